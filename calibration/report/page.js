"use strict";
// Makes tables sortable by a click on a heading, and filterable by words. Without this script the
// page shows the same rows.
const FILTERED = 8; // tables with more rows than this get a filter

const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
};

const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1; // numbers come before words and dashes
  if (typeof b === "number") return 1;
  return a.localeCompare(b, undefined, { numeric: true });
};

const sortable = (table) => {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
};

const filterable = (table) => {
  const rows = [...table.tBodies[0].rows];
  if (rows.length <= FILTERED) return;
  const label = document.createElement("label");
  const input = document.createElement("input");
  const shown = document.createElement("output");
  label.className = "filter";
  input.type = "search";
  label.append("Rows that contain ", input, shown);
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) count += 1;
    }
    shown.value = `${count} of ${rows.length}`;
  };
  input.addEventListener("input", apply);
  apply();
  table.parentElement.before(label);
};

for (const table of document.querySelectorAll("table")) {
  sortable(table);
  filterable(table);
}
