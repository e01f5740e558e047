// Builds elements. Every text becomes a text node, so nothing that the server sends is markup.

export const element = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

export const drawn = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
};

// A drawing of `width` by `height` units; `label` says in words what it shows.
export const chart = (width, height, label, ...children) =>
  drawn("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ...children);

export const words = (x, y, text, anchor = "start", kind = "") =>
  drawn("text", { x, y, "text-anchor": anchor, class: kind }, String(text));

export const line = (x1, y1, x2, y2, kind) => drawn("line", { x1, y1, x2, y2, class: kind });

export const box = (x, y, width, height, kind) =>
  drawn("rect", { x, y, width: Math.max(width, 0), height: Math.max(height, 0), class: kind, rx: 2 });

const format = (options) => new Intl.NumberFormat("en", options).format;
const significant = format({ maximumSignificantDigits: 3 });
export const rounded = format({ maximumSignificantDigits: 2 });
export const whole = format({ maximumFractionDigits: 0 });

// Three digits; very small and very large numbers as powers of ten.
export const number = (value) => {
  if (value === null || value === undefined) return "\u2013";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(1) : significant(value);
};

export const percent = (share) => (share === null ? "\u2013" : `${number(100 * share)} %`);
