// Single keys, for hands that stay on the keyboard; they can be switched off and never act while one types.

import { element } from "./dom.js";
import { openDialog } from "./forms.js";

const SWITCH = "novad-keys-off";
const KEYS = [
  ["j or ↓", "next decision"],
  ["k or ↑", "decision before"],
  ["g", "verdict: good"],
  ["d", "verdict: defect"],
  ["f", "to the filter, or to the choice of versions"],
  ["1, 2", "lines, decisions"],
  ["?", "this help"],
];

/** Act on keys; `page` gives what is shown and knows `step` and `verdict` where they make sense. */
export function listen(page) {
  const acts = {
    j: () => page()?.step?.(1),
    ArrowDown: () => page()?.step?.(1),
    k: () => page()?.step?.(-1),
    ArrowUp: () => page()?.step?.(-1),
    g: () => page()?.verdict?.("good"),
    d: () => page()?.verdict?.("defect"),
    f: () => document.querySelector(".filters select")?.focus(),
    1: () => (location.hash = "#/lines"),
    2: () => (location.hash = "#/decisions"),
    "?": openHelp,
  };
  document.addEventListener("keydown", (event) => {
    const act = acts[event.key];
    if (!act || busy(event)) return;
    const arrow = event.key.startsWith("Arrow");
    if (arrow && !(page()?.step && event.target.closest(".decisions"))) return;
    if (!arrow && localStorage.getItem(SWITCH)) return;
    event.preventDefault();
    act();
  });
}

/** The list of keys. */
export function openHelp() {
  const off = element("input", { type: "checkbox", checked: !localStorage.getItem(SWITCH) });
  off.addEventListener("change", () =>
    off.checked ? localStorage.removeItem(SWITCH) : localStorage.setItem(SWITCH, "off"),
  );
  openDialog(
    "Keys",
    element("dl", { class: "facts" }, KEYS.map(([name, does]) => [element("dt", {}, element("kbd", {}, name)), element("dd", {}, does)])),
    element("label", { class: "switch" }, off, "Single keys act (arrows always do)"),
  );
}

function busy(event) {
  return (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.closest("input, select, textarea") !== null ||
    document.querySelector("dialog[open]") !== null
  );
}
