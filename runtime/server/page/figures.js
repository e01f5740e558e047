// Draws what the server does now.
import { box, chart, drawn, element, line, number, percent, rounded, whole, words } from "./elements.js";

const DECISIONS = ["pass", "flag", "block", "unchecked"];
const NAMES = { pass: "passed", flag: "flagged", block: "blocked", unchecked: "unchecked" };

export const tag = (decision) =>
  element("span", { class: `tag ${decision}` }, NAMES[decision] ?? decision);

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);
const counted = (slot) => sum(Object.values(slot));

export const facts = (status) => {
  const minute = status.slots.slice(-Math.round(60 / status.slot_s) - 1, -1);
  const { queue, streams } = status;
  const blocked = sum(status.slots.map((slot) => slot.block ?? 0));
  return [
    ["Texts per second", number(sum(minute.map(counted)) / 60), "in the last minute"],
    ["Blocked", whole(blocked), `of ${whole(sum(status.slots.map(counted)))} in ten minutes`],
    ["Queue", whole(queue.texts), `of ${whole(queue.most_texts)} texts; ${whole(queue.tokens)} tokens`],
    ["Open answers", whole(streams.open), `of ${whole(streams.most)}`],
  ].map(([name, value, note]) =>
    element("div", {}, element("dt", {}, name),
      element("dd", {}, element("strong", {}, value), element("span", {}, note))));
};

// A bar for each slot, with one part for each decision; `room` is the width in pixels.
export const texts = ({ slots, slot_s: seconds }, room) => {
  const [left, height] = [40, 150];
  const width = room - left;
  const most = 2 * niceAbove(Math.max(...slots.map(counted), 4) / 2); // the half is a whole number
  const step = width / slots.length;
  const marks = [0, most / 2, most].flatMap((value) => {
    const y = 8 + height * (1 - value / most);
    return [line(left, y, room, y, "grid"), words(left - 8, y + 4, number(value), "end", "quiet")];
  });
  const bars = slots.flatMap((slot, index) => {
    let y = 8 + height;
    return DECISIONS.filter((one) => slot[one]).map((one) => {
      const size = height * slot[one] / most;
      y -= size;
      return box(left + (index + 0.1) * step, y, 0.8 * step, size, `bar ${one}`);
    });
  });
  const minutes = Math.round(slots.length * seconds / 60);
  const totals = DECISIONS.map((one) => [one, sum(slots.map((slot) => slot[one] ?? 0))]);
  const said = totals.filter(([, n]) => n).map(([one, n]) => `${n} ${NAMES[one]}`).join(", ");
  return [
    chart(room, 182, `${minutes} minutes: ${said || "no text"}`, ...marks, ...bars,
      words(left, 178, `${minutes} minutes ago`, "start", "quiet"),
      words(room, 178, `now; a bar is ${seconds} s`, "end", "quiet")),
    legend(totals),
  ];
};

const legend = (totals) =>
  element("ul", { class: "legend" }, ...totals.filter(([one, n]) => n || one === "pass" || one === "block")
    .map(([one, n]) => element("li", { class: one }, `${NAMES[one]}: ${whole(n)}`)));

// A line from the median to the 99th percentile of each stage, on a logarithmic scale.
export const stages = ({ stages: rows }, room) => {
  if (!rows.length) return [element("p", { class: "empty" }, "No text has been checked yet.")];
  const left = 70;
  const width = room - left - 160;
  const low = 10 ** Math.floor(Math.log10(Math.max(Math.min(...rows.map((row) => row.p50)), 0.01)));
  const top = Math.max(...rows.map((row) => row.p99), low * 10);
  const high = 10 ** Math.ceil(Math.log10(top));
  const at = (value) => left + width * Math.log(Math.max(value, low) / low) / Math.log(high / low);
  const bottom = 24 + 28 * rows.length;
  const decades = Array.from({ length: Math.round(Math.log10(high / low)) + 1 }, (_, n) => low * 10 ** n);
  const every = Math.ceil(44 * decades.length / width); // so that no two numbers overlap
  const marks = decades.flatMap((value, index) => [line(at(value), 20, at(value), bottom, "grid"),
    ...(index % every ? [] : [words(at(value), 12, number(value), "middle", "quiet")])]);
  const shown = rows.flatMap((row, index) => {
    const y = 40 + 28 * index;
    const figures = ["p50", "p95", "p99"].map((name, column) =>
      words(room - 96 + 48 * column, y + 4, rounded(row[name]), "end"));
    return [words(0, y + 4, row.stage), line(at(row.p50), y, at(row.p99), y, "whisker"),
      line(at(row.p95), y - 5, at(row.p95), y + 5, "whisker"),
      drawn("circle", { cx: at(row.p50), cy: y, r: 5, class: "bar pass" }), ...figures];
  });
  const heads = ["50 %", "95 %", "99 %"].map((name, column) =>
    words(room - 96 + 48 * column, 12, name, "end", "quiet"));
  const said = rows.map((row) =>
    `${row.stage}: median ${number(row.p50)}, 95 % within ${number(row.p95)}, 99 % within ${number(row.p99)}`);
  return [chart(room, bottom + 4, `${said.join("; ")} milliseconds`, ...marks, ...heads, ...shown)];
};

export const bundle = (one) => {
  const [low, high] = one.interval;
  const promised = high < 1 ? `calibrated: ${percent(low)} to ${percent(high)}` : "no calibrated interval";
  const state = one.drifting ? ["block", "drifting"] : ["good", "no drift"];
  const evidence = one.e_value;
  return element("article", { class: "card" },
    element("header", {}, element("h3", {}, one.name),
      high < 1 ? element("span", { class: `tag ${state[0]}` }, state[1]) : null),
    element("p", { class: "note" }, `${one.model} on ${one.device}, bundle ${one.id}`),
    element("div", { class: "halves" },
      element("div", {},
        ends(`${percent(one.rate)} flagged`, `${whole(one.flagged)} of ${whole(one.texts)} texts`, "large"),
        rate(one),
        ends(one.target === null ? promised : `${promised}; target: ${percent(one.target)}`,
          `scale to ${percent(scaleOf(one))}`)),
      element("div", {},
        ends(`e-value ${number(evidence)}`, `alarm at ${whole(one.alarm)}`, "large"),
        wealth(evidence, one),
        ends("1: no evidence", "logarithmic"))));
};

const ends = (first, last, kind = "note") =>
  element("p", { class: `ends ${kind}` }, element("span", {}, first), element("span", {}, last));

const scaleOf = ({ interval: [, high], rate: share }) =>
  niceAbove(Math.max(high < 1 ? 2 * high : 0, 1.15 * share, 0.001) * 100) / 100;

const rate = (one) => {
  const [low, high] = one.interval;
  const at = (share) => 8 + 584 * Math.min(share / scaleOf(one), 1);
  return chart(600, 24, `flag rate ${percent(one.rate)}`, box(8, 7, 584, 10, "track"),
    high < 1 ? box(at(low), 2, at(high) - at(low), 20, "band") : null,
    one.target === null ? null : line(at(one.target), 0, at(one.target), 24, "target"),
    one.texts ? drawn("circle", { cx: at(one.rate), cy: 12, r: 7, class: `mark ${one.drifting ? "block" : "pass"}` }) : null);
};

const wealth = (evidence, one) => {
  const share = Math.min(Math.log(Math.max(evidence, 1)) / Math.log(one.alarm), 1);
  return chart(600, 24, `e-value ${number(evidence)}`, box(8, 7, 584, 10, "track"),
    box(8, 7, 584 * share, 10, `bar ${one.drifting ? "block" : "good"}`), line(592, 0, 592, 24, "threshold"));
};

export const decisions = ({ decisions: rows }) => {
  if (!rows.length) {
    return [element("tr", {}, element("td", { class: "empty", colspan: 8 }, "No text has been checked yet."))];
  }
  return rows.map((row) => {
    const cut = row.truncated ? " (cut)" : "";
    const time = new Date(1000 * row.at).toLocaleTimeString("en-GB");
    return element("tr", {}, element("td", { class: "words" }, time),
      element("td", { class: "words" }, tag(row.decision)),
      element("td", { class: "words" }, row.detectors.join(", ") || "\u2013"),
      element("td", {}, number(row.p_value)),
      element("td", {}, row.tokens === null ? "\u2013" : `${whole(row.tokens)}${cut}`),
      element("td", {}, number(row.milliseconds)),
      element("td", { class: "words" }, `${row.contract}, ${row.direction}`),
      element("td", { class: "words" }, row.bundle));
  });
};

// The least number with one or two simple digits that is not below `value`.
const niceAbove = (value) => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].find((digit) => digit * power >= value * 0.9999) * power;
};
