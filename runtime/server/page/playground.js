// Shows a verdict: each score against its threshold, the layers, and the words.
import { box, chart, element, line, number } from "./elements.js";

export const verdict = (answer, typed) => {
  const [kind, heading] = answer.blocked ? ["block", "Blocked"]
    : answer.flagged ? ["flag", "Flagged, not blocked"] : ["good", "Passed"];
  const facts = [
    answer.p_value === null ? null : `p-value ${number(answer.p_value)}`,
    `${answer.tokens} tokens${answer.truncated ? ", of which a part was not read" : ""}`,
    `${number(answer.timings_ms.total)} ms`,
    answer.unfamiliar ? "unlike the calibration texts" : null,
  ];
  return [
    element("div", { class: `verdict ${kind}` }, element("strong", {}, heading),
      element("p", {}, `${answer.reason}.`),
      element("p", { class: "note" }, facts.filter(Boolean).join(" \u00b7 "))),
    ...worstFirst(answer.readings).map((one) => detector(one, answer.shadow, typed)),
  ];
};

const worstFirst = (readings) =>
  Object.values(readings).sort((a, b) => b.flagged - a.flagged || a.p_value - b.p_value);

const detector = (reading, shadow, typed) => {
  const kind = reading.flagged ? "block" : "good";
  const note = shadow.includes(reading.detector) ? " (does not decide)" : "";
  return element("article", { class: "detector" },
    element("header", {}, element("h3", {}, reading.detector + note),
      element("span", { class: `tag ${kind}` }, reading.flagged ? "above its threshold" : "within its threshold")),
    score(reading, kind),
    layers(reading.evidence),
    ...reading.spans.map((span) => found(span, typed)));
};

const score = ({ score: value, threshold, p_value: p }, kind) => {
  const shown = value ?? Math.max(1, 2 * threshold); // no number: worse than any
  const low = Math.min(0, shown, threshold);
  const high = Math.max(shown, threshold, low + 1e-9) + 0.12 * Math.abs(Math.max(shown, threshold));
  const at = (x) => 600 * (x - low) / (high - low);
  const first = at(Math.max(low, Math.min(0, shown)));
  const label = `score ${number(value)}, threshold ${number(threshold)}`;
  return element("div", {},
    chart(600, 24, label, box(0, 5, 600, 14, "track"),
      box(first, 5, at(Math.max(0, shown)) - first, 14, `bar ${kind}`),
      line(at(threshold), 0, at(threshold), 24, "threshold")),
    element("p", { class: "ends note" },
      element("span", {}, `score ${number(value)}`), element("span", {}, `threshold ${number(threshold)}`),
      element("span", {}, `p-value ${number(p)}`)));
};

const layers = (evidence) => {
  if (!evidence.length) return null;
  const most = Math.max(...evidence.map((one) => Math.abs(one.value ?? 0))) || 1;
  const rows = evidence.flatMap(({ layer, measure, value }) => {
    const bar = chart(200, 10, "", box(0, 0, 200 * Math.abs(value ?? most) / most, 10,
      `bar ${value < 0 ? "unchecked" : "pass"}`));
    bar.setAttribute("preserveAspectRatio", "none");
    bar.setAttribute("aria-hidden", "true");
    return [element("dt", {}, `layer ${layer}, ${measure.replaceAll("_", " ")}`),
      element("dd", {}, bar), element("dd", {}, number(value))];
  });
  return element("dl", {}, ...rows);
};

// The typed text with the words marked; or the words alone, if they are of another view of it.
const found = (span, typed) => {
  const start = typed.startsWith(span.words, span.start) ? span.start : typed.indexOf(span.words);
  const marked = element("mark", {}, span.words);
  const text = start < 0 ? [marked] : [typed.slice(0, start), marked, typed.slice(start + span.words.length)];
  return element("p", { class: "words-found" }, ...text);
};
