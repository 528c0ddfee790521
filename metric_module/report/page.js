"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The colours of the theme for text and for every axis of the plot.
function themed(layout) {
  const changes = { "font.color": colour("--ink") };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    for (const part of ["gridcolor", "linecolor", "zerolinecolor", "tickcolor"]) {
      changes[`${axis}.${part}`] = colour("--line");
    }
  }
  return changes;
}

const plots = [];
for (const data of document.querySelectorAll("script[data-figure]")) {
  const place = document.getElementById(data.dataset.figure);
  const { data: traces, layout } = JSON.parse(data.textContent);
  const whole = { ...layout, xaxis: { automargin: true, ...layout.xaxis }, yaxis: { automargin: true, ...layout.yaxis } };
  const follow = () => Plotly.relayout(place, themed(whole));
  plots.push({ place, follow });
  if (layout.height) place.style.height = `${layout.height}px`;
  Plotly.newPlot(place, traces, whole, { responsive: true, displayModeBar: false }).then(follow);
  dark.addEventListener("change", follow);
}

// A sheet of paper is narrower than most screens, and light.
const PAPER = 680;
addEventListener("beforeprint", () => {
  document.documentElement.dataset.print = "";
  for (const { place, follow } of plots) {
    follow();
    if (place.clientWidth > PAPER) Plotly.relayout(place, { width: PAPER });
  }
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.print;
  for (const { place, follow } of plots) {
    follow();
    Plotly.relayout(place, { width: null, autosize: true });
  }
});

// Compare cells by the number they begin with; cells without one come last in both directions.
function compare(one, other, numeric, way) {
  if (!numeric) return way * one.localeCompare(other, undefined, { numeric: true });
  const [a, b] = [parseFloat(one), parseFloat(other)];
  if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
  return way * (a - b);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const way = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const text = (row) => row.cells[head.cellIndex].textContent;
    const numeric = head.classList.contains("number");
    body.append(...[...body.rows].sort((one, other) => compare(text(one), text(other), numeric, way)));
  });
}

for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected";
    }
  });
}
