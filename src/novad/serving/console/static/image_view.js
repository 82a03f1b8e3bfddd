// One image as versions see it: maps on a fixed scale, and the normal patch nearest to its oddest one.

import { decoded, path, picture, read, Refusal } from "./api.js";
import { element, figure } from "./dom.js";
import { openDialog } from "./forms.js";

const KINDS = ["familiarity", "novelty", "hybrid"];

/** The view that the service has at `address`, as a section; says so where there is none. */
export async function imageView(address, signal) {
  try {
    return drawn(await read(address, signal));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return element("p", { class: "note" }, `No picture: ${error.message}.`);
  }
}

/** A placeholder that is replaced by a view once that has been computed. */
export function imageViewSoon(address, signal) {
  const waiting = element("div", { class: "view waiting" }, element("p", {}, "Computing maps…"));
  imageView(address, signal).then(
    (view) => waiting.replaceWith(view),
    (error) => error.name === "AbortError" || Promise.reject(error),
  );
  return waiting;
}

/** A dialog in which several versions look at one test image. */
export function openImage(line, versions, { sha256, path: name, defect_type: type }) {
  const views = versions.map((version) =>
    element(
      "section",
      {},
      element("h3", {}, `Version ${version}`),
      imageViewSoon(path("v1", "lines", line, "versions", version, "images", sha256)),
    ),
  );
  openDialog(name, element("p", {}, `${type}, sha256 ${sha256.slice(0, 12)}…`), ...views).classList.add("wide");
}

/** An image element that shows what the service has at `address` when it scrolls into sight. */
export function lazyPicture(address, alt) {
  const image = element("img", { alt, width: "224", height: "224" });
  const seen = new IntersectionObserver(async ([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    try {
      load(image, await picture(address));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      image.replaceWith(element("p", { class: "note missing" }, "not at hand"));
    }
  });
  seen.observe(image);
  return image;
}

function load(image, url) {
  image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
}

function drawn(view) {
  const pictures = [
    captioned(view.image, "image", "the image"),
    ...KINDS.map((kind) => captioned(view.maps[kind], kind, `the image under its ${kind} map`)),
  ];
  return element(
    "div",
    { class: "view" },
    element("div", { class: "pictures" }, pictures),
    element(
      "p",
      { class: "scale" },
      element("span", { class: "glow", "aria-hidden": "true" }),
      "Glows from the map threshold up, which good parts stay below; the same scale for every image of the version.",
    ),
    element("h4", {}, "Least familiar patch and the nearest normal one"),
    element(
      "div",
      { class: "pictures patches" },
      captioned(view.nearest.patch, "this image", "its least familiar patch, outlined"),
      view.nearest.normal
        ? captioned(view.nearest.normal, view.nearest.image, "the nearest normal patch, outlined")
        : element("p", { class: "note missing" }, `${view.nearest.image} is not at hand`),
    ),
    element(
      "p",
      { class: "note" },
      `Distance ${figure(view.nearest.distance)}. Judged again now: familiarity ${figure(view.familiarity)}, ` +
        `novelty ${figure(view.novelty)}, hybrid ${figure(view.hybrid)}; ${view.width} × ${view.height} pixels.`,
    ),
  );
}

function captioned(text, caption, alt) {
  const image = element("img", { alt });
  load(image, decoded(text));
  return element("figure", {}, image, element("figcaption", {}, caption));
}
