// Drawings: intervals of figures and histograms of scores, on axes that versions share.

import { drawing, figure } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 140;
const FOOT = 18;
const BINS = 30;

/** Figures of the versions with their 95 % intervals, on one axis from 0 to 1. */
export function intervals(entries) {
  const height = 12 * entries.length + 4;
  const told = entries.map(({ label, value, range }) => `${label}: ${figure(value)}${spoken(range)}`);
  return drawing(
    "svg",
    { class: "intervals", viewBox: `0 0 120 ${height}`, role: "img", "aria-label": told.join("; ") },
    [0, 30, 60, 90, 120].map((x) => drawing("line", { class: "grid", x1: x, x2: x, y1: 0, y2: height })),
    entries.map(({ side, value, range }, at) => interval(side, value, range, 8 + 12 * at)),
  );
}

function interval(side, value, range, y) {
  if (typeof value !== "number") return null;
  return drawing(
    "g",
    { class: side },
    range && drawing("line", { x1: 120 * range[0], x2: 120 * range[1], y1: y, y2: y }),
    drawing("circle", { cx: 120 * value, cy: y, r: 3.5 }),
  );
}

function spoken(range) {
  return range ? `, 95 % interval ${figure(range[0])} to ${figure(range[1])}` : "";
}

/** Edges of bins that hold the scores of all versions; the few highest would squeeze all others. */
export function commonEdges(...samples) {
  const sorted = Float64Array.from(samples.flat()).sort();
  const low = sorted[0] ?? 0;
  const high = sorted[Math.floor(0.98 * (sorted.length - 1))] ?? 1;
  const step = (high > low ? high - low : 1) / BINS;
  return Array.from({ length: BINS + 1 }, (_, at) => low + at * step);
}

/** How many scores lie in each bin; those beyond the last edge count in the last bin. */
export function counted(scores, edges) {
  const counts = new Array(edges.length - 1).fill(0);
  const step = edges[1] - edges[0];
  for (const score of scores) {
    counts[Math.max(0, Math.min(counts.length - 1, Math.floor((score - edges[0]) / step)))] += 1;
  }
  return counts;
}

/** Scores of normal and anomalous test images of one version, with its threshold. */
export function histogram({ title, normal, anomalous, edges, threshold, most }) {
  const place = (score) => (WIDTH * (score - edges[0])) / (edges.at(-1) - edges[0]);
  const known = typeof threshold === "number" && threshold > edges[0] && threshold < edges.at(-1);
  return drawing(
    "svg",
    { class: "histogram", viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, role: "img", "aria-label": title },
    bars(normal, "normal", most),
    bars(anomalous, "anomalous", most),
    drawing("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }),
    known && drawing("line", { class: "threshold", x1: place(threshold), x2: place(threshold), y1: 0, y2: HEIGHT }),
    [edges[0], edges[BINS / 2], edges.at(-1)].map((score, at) =>
      drawing(
        "text",
        { x: place(score), y: HEIGHT + 14, "text-anchor": ["start", "middle", "end"][at] },
        score.toFixed(1),
      ),
    ),
  );
}

function bars(counts, kind, most) {
  const width = WIDTH / counts.length;
  const scale = (HEIGHT - 6) / Math.max(1, most);
  return counts.map((count, at) =>
    drawing("rect", {
      class: kind,
      x: at * width + 0.5,
      y: HEIGHT - scale * count,
      width: width - 1,
      height: scale * count,
    }),
  );
}
