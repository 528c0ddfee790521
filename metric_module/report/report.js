"use strict";

addEventListener("DOMContentLoaded", () => {
  const album = JSON.parse(document.getElementById("album").textContent);

  // Each picture is in the page once; an image gets it when it is scrolled to.
  function fill(image) {
    image.src = album[image.dataset.id].picture;
    seen.unobserve(image);
  }
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) fill(target);
    }
  }, { rootMargin: "600px" });
  for (const image of document.querySelectorAll("img[data-id]")) seen.observe(image);
  addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll("img[data-id]:not([src])")) if (image.checkVisibility()) fill(image);
  });

  const list = document.getElementById("queries");
  const cards = [...list.children];
  const buttons = [...document.querySelectorAll(".filters button")];
  const search = document.getElementById("class-search");
  const order = document.getElementById("order");
  const more = document.getElementById("more");
  const page = 24;
  let room = page;

  function filter() {
    const wanted = buttons.find((button) => button.ariaPressed === "true").dataset.show;
    const word = search.value.trim().toLowerCase();
    const found = [...list.children].filter((card) =>
      (wanted === "all" || card.dataset.right === wanted) && card.dataset.name.includes(word));
    const kept = new Set(found.slice(0, room));
    for (const card of cards) card.hidden = !kept.has(card);
    more.hidden = found.length <= room;
    document.getElementById("shown-count").textContent = `${kept.size} of ${found.length} queries`;
  }

  function again() {
    room = page;
    filter();
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.ariaPressed = String(other === button);
      again();
    });
  }
  search.addEventListener("input", again);
  order.addEventListener("change", () => {
    list.append(...(order.value === "worst" ? cards : [...cards].reverse()));
    again();
  });
  more.addEventListener("click", () => {
    room += page;
    filter();
  });
  filter();

  const map = document.getElementById("map");
  const tip = document.getElementById("tip");
  function point({ points: [{ customdata }], event }) {
    const { title, picture, text } = album[customdata];
    const image = document.createElement("img");
    const words = document.createElement("span");
    if (picture) Object.assign(image, { src: picture, alt: "", className: "shot" });
    words.textContent = picture ? title : `${title}: ${text}`;
    tip.replaceChildren(...(picture ? [image, words] : [words]));
    tip.hidden = false;
    const { clientX: x, clientY: y } = event;
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, y - tip.offsetHeight - 14)}px`;
  }
  map.on("plotly_hover", point);
  map.on("plotly_click", point);
  map.on("plotly_unhover", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
});
