// Test images: the defects that a version passes, and the heatmaps that were logged with it.

import { path } from "./api.js";
import { element, figure } from "./dom.js";
import { lazyPicture, openImage } from "./image_view.js";

const MOST = 24;

/** Defects that a version lets pass, grouped by who misses them. */
export function missedDefects(line, versions) {
  const missed = versions.map(missedBy);
  const numbers = versions.map((each) => each.version);
  const groups =
    versions.length === 1
      ? [[`Missed by version ${numbers[0]}`, [...missed[0].values()]]]
      : [
          [`Missed by version ${numbers[1]} alone`, without(missed[1], missed[0])],
          [`Missed by version ${numbers[0]} alone`, without(missed[0], missed[1])],
          ["Missed by both", [...missed[0].values()].filter(({ sha256 }) => missed[1].has(sha256))],
        ];
  return element(
    "section",
    {},
    element("h2", {}, "Missed defects"),
    element("p", { class: "note" }, "Defective test images that pass. Open one for its maps."),
    groups.map(([title, images]) => group(line, versions, title, images)),
  );
}

/** Heatmaps of the same images, one version below the other. */
export function heatmaps(line, versions) {
  const first = versions[0].heatmaps;
  const shared = Object.keys(first).filter((sha256) => versions.every((each) => each.heatmaps[sha256]));
  const drawn = shared.map((sha256) =>
    element(
      "li",
      {},
      versions.map((each) => {
        const name = each.heatmaps[sha256];
        const address = path("v1", "lines", line, "versions", each.version, "heatmaps", name);
        const alt = `${name} by version ${each.version}: image, familiarity, novelty and hybrid map`;
        return element("figure", {}, lazyPicture(address, alt), element("figcaption", {}, `Version ${each.version}`));
      }),
    ),
  );
  return element(
    "section",
    {},
    element("h2", {}, "Heatmaps"),
    element("p", { class: "note" }, "As logged with each version, the same images, on each version's own fixed scale."),
    element("details", {}, element("summary", {}, `${shared.length} images`), element("ul", { class: "panels" }, drawn)),
  );
}

function missedBy(version) {
  const { test } = version;
  const places = test.sha256.map((_, at) => at).filter((at) => test.label[at] === 1 && test.decision[at] === "PASS");
  return new Map(
    places.map((at) => [
      test.sha256[at],
      { sha256: test.sha256[at], path: test.path[at], defect_type: test.defect_type[at], hybrid: test.hybrid[at] },
    ]),
  );
}

function without(these, others) {
  return [...these.values()].filter(({ sha256 }) => !others.has(sha256));
}

function group(line, versions, title, images) {
  const numbers = versions.map((each) => each.version);
  const ordered = images.toSorted((one, other) => one.hybrid - other.hybrid);
  const shown = ordered.slice(0, MOST).map((image) =>
    element(
      "li",
      {},
      element(
        "button",
        { type: "button", class: "tile", onclick: () => openImage(line, numbers, image) },
        lazyPicture(path("v1", "lines", line, "versions", numbers[0], "images", image.sha256, "thumbnail"), ""),
        element("span", {}, image.path),
        element("small", {}, `${image.defect_type}, hybrid ${figure(image.hybrid)}`),
      ),
    ),
  );
  return [
    element("h3", {}, `${title}: ${images.length}`),
    images.length > MOST && element("p", { class: "note" }, `The ${MOST} that look most normal.`),
    images.length > 0 && element("ul", { class: "gallery" }, shown),
  ];
}
