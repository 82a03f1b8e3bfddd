// One line: champion and challenger side by side, and the decisions on them.

import { path, read, Refusal } from "./api.js";
import { commonEdges, counted, histogram, intervals } from "./charts.js";
import { badge, element, figure, fill, moment, table } from "./dom.js";
import { decisionButtons } from "./governance.js";
import { heatmaps, missedDefects } from "./gallery.js";

const KINDS = ["hybrid", "familiarity", "novelty"];
const FIGURES = [
  ["image_auroc", "Image AUROC"],
  ["image_aupr", "Image AUPR"],
  ["fnr_at_fpr_05", "Missed at 5 % false positives"],
  ["fnr_at_fpr_01", "Missed at 1 % false positives"],
  ["f1", "F1 at the threshold"],
  ["pixel_auroc", "Pixel AUROC"],
  ["aupro", "AUPRO"],
];
const DIFFERENCES = [
  ["auroc", "Image AUROC"],
  ["fnr_at_fpr_05", "Missed at 5 % false positives"],
  ["fnr_at_fpr_01", "Missed at 1 % false positives"],
];
const SIDES = ["left", "right"];

/** A line, as the nodes of a page; `query` may name the two versions that are compared. */
export async function linePage(review, name, query, again) {
  const line = review.lines.find((each) => each.line === name);
  if (!line) return [element("h1", {}, "No such line"), element("p", {}, "Nothing is registered under this name.")];
  const chosen = chosenVersions(line, query);
  const [events, versions] = await Promise.all([
    read(path("v1", "lines", name, "history")),
    Promise.all(chosen.map((version) => evidence(name, version))),
  ]);
  const known = versions.filter((each) => each.test);
  const comparison = element("div", {});
  if (known.length > 0) compare(comparison, name, known);
  return [
    element("h1", {}, name),
    standing(line),
    decisionButtons(line, chosen.findLast((version) => version !== line.champion?.version), review.role, again),
    versionChoice(line, chosen),
    versions.filter((each) => each.problem).map((each) => element("p", { class: "alarm" }, each.problem)),
    comparison,
    history(events.events),
  ];
}

async function evidence(line, version) {
  try {
    return await read(path("v1", "lines", line, "versions", version));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { problem: `Version ${version}: ${error.message}` };
  }
}

/** The versions asked for, else champion and challenger, else the newest ones. */
function chosenVersions(line, query) {
  const known = line.versions.map((each) => each.version);
  const asked = SIDES.map((side) => Number(query.get(side))).filter((version) => known.includes(version));
  const usual = [line.champion?.version, line.challenger, ...known.toReversed()];
  return [...new Set([...asked, ...(asked.length === 2 ? [] : usual)])]
    .filter((version) => known.includes(version))
    .slice(0, 2);
}

function standing(line) {
  const { champion } = line;
  return element(
    "p",
    {},
    champion
      ? [`Version ${champion.version} is champion since `, moment(champion.at), ` by ${champion.approver}: “${champion.reason}”. `]
      : "This line has no champion. ",
    line.challenger === null ? "No newer version waits for a decision." : `Version ${line.challenger} waits for a decision.`,
  );
}

function versionChoice(line, chosen) {
  const form = element(
    "form",
    { class: "filters", "aria-label": "Versions to compare" },
    chosen.map((version, at) =>
      element(
        "label",
        { class: SIDES[at] },
        at === 0 ? "Compare" : "with",
        element(
          "select",
          { name: SIDES[at] },
          line.versions.map((each) =>
            element(
              "option",
              { value: each.version, selected: each.version === version },
              `version ${each.version} (${each.standing})`,
            ),
          ),
        ),
      ),
    ),
  );
  form.addEventListener("change", () => {
    location.hash = `#/lines/${encodeURIComponent(line.line)}?${new URLSearchParams(new FormData(form))}`;
  });
  return form;
}

function compare(place, name, versions) {
  const draw = (kind) =>
    fill(
      place,
      scoreChoice(kind, draw),
      figures(versions, kind),
      versions.length === 2 && differences(name, versions, kind),
      histograms(versions, kind),
      element("div", { class: "beside" }, versions.map(gates)),
      recall(versions, kind),
      missedDefects(name, versions),
      heatmaps(name, versions),
    );
  draw("hybrid");
}

function scoreChoice(chosen, draw) {
  const choice = element(
    "fieldset",
    { class: "choice" },
    element("legend", {}, "Score"),
    KINDS.map((kind) =>
      element(
        "label",
        {},
        element("input", { type: "radio", name: "score", value: kind, checked: kind === chosen }),
        kind,
      ),
    ),
  );
  choice.addEventListener("change", (event) => {
    draw(event.target.value);
    document.querySelector(`[name=score][value=${event.target.value}]`).focus();
  });
  return choice;
}

function figures(versions, kind) {
  const columns = ["Figure", ...versions.map((each) => `Version ${each.version}`), "Intervals, 0 to 1"];
  const rows = FIGURES.map(([key, title]) => {
    const entries = versions.map((each, at) => ({
      side: SIDES[at],
      label: `version ${each.version}`,
      value: each.metrics.scores[kind][key],
      range: each.metrics.scores[kind].ci95?.[key],
    }));
    return [title, ...entries.map(valued), intervals(entries)];
  });
  const counts = ["Test images", ...versions.map(({ metrics: { counts } }) => `${counts.test_normal} normal, ${counts.test_anomalous} defective`), ""];
  return element(
    "section",
    {},
    element("h2", {}, `Figures of the ${kind} score`),
    table("On the test split, with 95 % bootstrap intervals", columns, [...rows, counts]),
    element("p", { class: "note" }, "Each interval is that of its own version; whether two versions differ is told below."),
  );
}

/** Both versions on the same images: what they differ by, and whether chance alone may explain it. */
function differences(line, [left, right], kind) {
  const place = element("section", {}, element("h2", {}, `Version ${right.version} less version ${left.version}, ${kind}`));
  const query = new URLSearchParams({ left: left.version, right: right.version, kind });
  read(`${path("v1", "lines", line, "comparison")}?${query}`).then(
    ({ images, differences: found }) => {
      const rows = DIFFERENCES.filter(([key]) => found[key]).map(([key, title]) => {
        const { value, ci95, p_value: p } = found[key];
        return [title, signed(value), ci95 ? `${signed(ci95[0])} to ${signed(ci95[1])}` : null, figure(p)];
      });
      const columns = ["Figure", "Difference", "95 % interval", "p of no difference"];
      place.append(
        rows.length > 0
          ? table(`Paired bootstrap on the ${images} test images that both versions judged`, columns, rows)
          : element("p", { class: "note" }, `The ${images} test images that both judged prove nothing.`),
      );
    },
    (error) => place.append(element("p", { class: "alarm" }, error.message)),
  );
  return place;
}

function signed(value) {
  return typeof value === "number" && value > 0 ? `+${figure(value)}` : figure(value);
}

function valued({ value, range }) {
  return [figure(value), range && element("small", {}, `${figure(range[0])} to ${figure(range[1])}`)];
}

function histograms(versions, kind) {
  const edges = commonEdges(...versions.map((each) => each.test[kind]));
  const samples = versions.map((each) => {
    const of = (label) => counted(each.test[kind].filter((_, at) => each.test.label[at] === label), edges);
    return { version: each.version, normal: of(0), anomalous: of(1), threshold: each.thresholds.scores?.[kind] };
  });
  const most = Math.max(...samples.flatMap((each) => [...each.normal, ...each.anomalous]));
  return element(
    "section",
    {},
    element("h2", {}, `Scores of the test images, ${kind}`),
    element(
      "div",
      { class: "beside" },
      samples.map((sample) =>
        element(
          "figure",
          {},
          histogram({ ...sample, edges, most, title: `Histogram of ${kind} scores of version ${sample.version}, threshold ${figure(sample.threshold)}` }),
          element("figcaption", {}, `Version ${sample.version}, threshold ${figure(sample.threshold)}`),
        ),
      ),
    ),
    element(
      "p",
      { class: "legend" },
      element("span", { class: "key normal" }), "normal ",
      element("span", { class: "key anomalous" }), "defective ",
      element("span", { class: "key threshold" }), "threshold; both versions on the same axes, the highest 2 % in the last bar",
    ),
  );
}

function gates(version) {
  const rows = version.gates.map((gate) => [gate.gate, badge(gate.passed ? "passed" : "failed"), said(gate.measured), said(gate.limit)]);
  return element(
    "section",
    {},
    element("h2", {}, `Gates of version ${version.version}`),
    table(`Promotion gates of version ${version.version}`, ["Gate", "Verdict", "Measured", "Limit"], rows),
  );
}

function said(value) {
  if (value === null || typeof value !== "object") return typeof value === "number" ? String(value) : value;
  return Object.entries(value).map(([name, each]) => `${name} ${each}`).join(", ");
}

function recall(versions, kind) {
  const types = [...new Set(versions.flatMap((each) => Object.keys(each.metrics.by_defect_type ?? {})))].sort();
  const columns = ["Defect type", "Images", ...versions.map((each) => `Version ${each.version}`)];
  const rows = types.map((type) => {
    const told = versions.map((each) => each.metrics.by_defect_type[type]);
    return [type, String(told.find(Boolean).count), ...told.map((each) => figure(each?.recall[kind]))];
  });
  return element("section", {}, element("h2", {}, `Found by defect type, ${kind}`), table("Share found at the threshold", columns, rows));
}

function history(events) {
  const rows = events
    .toReversed()
    .map((event) => [String(event.sequence), moment(event.at), badge(event.kind), event.version ?? "–", event.actor, event.reason]);
  return element(
    "section",
    {},
    element("h2", {}, "Decisions on this line"),
    rows.length > 0
      ? table("Event log, newest first", ["No.", "When", "What", "Version", "Who", "Why"], rows)
      : element("p", {}, "Nobody has decided anything yet."),
  );
}
