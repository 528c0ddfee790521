"use strict";

const one = (id) => document.getElementById(id);
const number = (value) => value.toPrecision(4);
let about;

function element(tag, text, kind) {
  const made = document.createElement(tag);
  made.textContent = text;  // never as HTML: names come from files
  if (kind) made.className = kind;
  return made;
}

function neighbour(found) {
  const item = element("li", "", found.within_threshold === null ? "card" : found.within_threshold ? "card yes" : "card no");
  if (about.pictures) {
    const picture = document.createElement("img");
    picture.src = `/item/${found.position}`;
    picture.alt = found.name;
    item.append(picture);
  }
  item.append(element("strong", found.label ?? ""), element("span", found.name, "name"));
  const mark = { true: "✓ within the threshold", false: "✗ beyond the threshold", null: "" }[found.within_threshold];
  item.append(element("span", `distance ${number(found.distance)}`), element("span", mark, "muted"));
  return item;
}

function show(error, found) {
  one("error").hidden = !error;
  one("error").textContent = error;
  one("neighbours").replaceChildren(...found.map(neighbour));
  const near = found.filter((each) => each.within_threshold).length;
  const rule = about.threshold === null ? "" : `; ${near} within the threshold ${number(about.threshold)}`;
  one("found").textContent = found.length ? `${found.length} nearest items${rule}` : "";
}

let last = 0;
async function search(body, headers = {}) {
  const mine = ++last;  // an answer that comes late must not replace a newer one
  let content;
  try {
    const answer = await fetch("/search", { method: "POST", body, headers });
    content = await answer.json();
  } catch (error) {
    content = { error: `no answer (${error.message})` };
  }
  if (mine === last) show(content.error ?? "", content.neighbours?.[0] ?? []);
}

function searchImage(file) {
  if (!file) return;
  const picture = one("query");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.hidden = false;
  const form = new FormData();
  form.append("image", file);
  search(form);
}

one("file").addEventListener("change", (event) => searchImage(event.target.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (about?.takes === "image") searchImage(event.dataTransfer.files[0]);
});
for (const id of ["images", "texts"]) one(id).addEventListener("submit", (event) => event.preventDefault());
one("texts").addEventListener("submit", () =>
  search(JSON.stringify({ texts: [one("text").value] }), { "Content-Type": "application/json" }));

(async () => {
  about = await (await fetch("/health")).json();
  const rule = about.threshold === null ? "no threshold" : `threshold ${number(about.threshold)}`;
  one("about").textContent = about.items
    ? `${about.items.toLocaleString("en")} items in the gallery; ${rule}`
    : "There is no gallery: start with gallery=<folder of images, or file of task=embed>.";
  one("images").hidden = !about.items || about.takes !== "image";
  one("texts").hidden = !about.items || about.takes !== "text";
})();
