// Draws the charts in the colours of the page, and again when the page turns dark or is printed.
addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);

  function dress(value) {
    if (Array.isArray(value)) return value.map(dress);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, dress(item)]));
    }
    const isVariable = typeof value === "string" && value.startsWith("--");
    return isVariable ? getComputedStyle(root).getPropertyValue(value).trim() : value;
  }

  function draw() {
    for (const [id, figure] of Object.entries(figures)) {
      const { data, layout } = dress(figure);
      if (document.getElementById(id).clientWidth < 480) layout.xaxis.nticks = 4; // longer labels would overlap
      Plotly.react(id, data, layout, { displayModeBar: false });
    }
  }

  // A heading sorts its table, a second click the other way; a cell without a value stays below.
  function valueOf(row, place) {
    const text = row.cells[place].dataset.value ?? "";
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  }
  function ordered(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    table.tHead.addEventListener("click", (event) => {
      const head = event.target.closest("button")?.closest("th");
      if (!head) return;
      const place = heads.indexOf(head), falling = head.ariaSort !== "descending", sign = falling ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const known = (row) => valueOf(row, place) !== null;
      const rows = [...body.rows], sorted = rows.filter(known);
      sorted.sort((a, b) => sign * ordered(valueOf(a, place), valueOf(b, place)));
      body.append(...sorted, ...rows.filter((row) => !known(row)));
    });
  }

  // A table that is wider than its place says so: a phone shows no scroll bar.
  const measured = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    const cut = target.scrollWidth > target.clientWidth + 1;
    target.classList.toggle("cut", cut);
    target.previousElementSibling.style.display = cut ? "block" : "";
  }));
  for (const place of document.querySelectorAll(".scroll, .trades")) {
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "Scroll the table sideways: it has more columns.";
    place.before(hint);
    place.tabIndex = 0;
    measured.observe(place);
  }

  if (typeof Plotly === "undefined") {
    root.classList.add("chartless");
    return;
  }
  draw();
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => Plotly.Plots.resize(entry.target)));
  for (const id of Object.keys(figures)) resized.observe(document.getElementById(id));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.classList.add("printed"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("printed"); draw(); });
});
