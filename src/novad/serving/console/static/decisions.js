// The latest decisions: a filtered list, the image of the chosen one, and the verdict on it.

import { path, read, send } from "./api.js";
import { announce, badge, element, figure, moment } from "./dom.js";
import { signature, submitted } from "./forms.js";
import { imageViewSoon } from "./image_view.js";

const PAUSE = 200;
const FILTERS = {
  decision: { "": "all decisions", REVIEW: "REVIEW", FAIL: "FAIL", PASS: "PASS" },
  verdict: { "": "with or without verdict", none: "no verdict yet", good: "verdict good", defect: "verdict defect" },
};

/** The decisions, as the nodes of a page and what keys do there; the query of the address is the filter. */
export async function decisionsPage(review, query) {
  const list = element("ol", { class: "decisions" });
  const detail = element("section", { class: "detail", "aria-label": "Chosen decision" });
  const more = element("button", { type: "button", class: "quiet", hidden: true }, "Show older ones");
  const page = new DecisionList(review, query, list, detail, more);
  page.add(await page.load());
  const nodes = [
    element("h1", {}, "Decisions"),
    filters(review, query),
    element("div", { class: "split" }, element("div", { class: "list" }, list, more), detail),
  ];
  return [nodes, page];
}

function filters(review, query) {
  const lines = Object.fromEntries([["", "all lines"], ...review.lines.map(({ line }) => [line, line])]);
  const choices = { line: lines, ...FILTERS };
  const form = element(
    "form",
    { class: "filters", "aria-label": "Filter" },
    Object.entries(choices).map(([name, options]) =>
      element(
        "label",
        {},
        element("span", {}, name),
        element(
          "select",
          { name },
          Object.entries(options).map(([value, text]) =>
            element("option", { value, selected: value === (query.get(name) ?? "") }, text),
          ),
        ),
      ),
    ),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    location.hash = `#/decisions?${chosen(new FormData(form))}`;
  });
  return form;
}

function chosen(pairs) {
  return new URLSearchParams([...pairs].filter(([, value]) => value !== ""));
}

/** The list and what is chosen in it. */
class DecisionList {
  constructor(review, query, list, detail, more) {
    this.review = review;
    this.query = chosen(query);
    this.list = list;
    this.detail = detail;
    this.more = more;
    this.before = null;
    this.leaving = null;
    more.addEventListener("click", async () => this.add(await this.load()));
  }

  load() {
    const query = new URLSearchParams(this.query);
    if (this.before) query.set("before", this.before);
    return read(`/v1/predictions?${query}`);
  }

  add({ decisions, before }) {
    this.before = before;
    this.more.hidden = before === null;
    this.list.append(...decisions.map((each) => this.item(each)));
    if (this.list.children.length === 0) this.list.append(element("li", { class: "empty" }, "No decision matches."));
  }

  item(each) {
    const { decision } = each;
    const button = element(
      "button",
      { type: "button", onclick: () => this.choose(button, each) },
      element("span", { class: "top" }, badge(decision.decision), verdictBadge(each.verdict), moment(decision.at)),
      element("span", { class: "source" }, decision.source),
      element("small", {}, `${decision.line} version ${decision.version}, hybrid ${figure(decision.hybrid)}`),
    );
    return element("li", {}, button);
  }

  /** One step down or up from what is chosen. */
  step(by) {
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.findIndex((each) => each.getAttribute("aria-current") === "true");
    const next = buttons[Math.max(0, Math.min(buttons.length - 1, at < 0 ? 0 : at + by))];
    next?.focus();
    next?.click();
  }

  /** Begin a verdict by key. */
  verdict(finding) {
    const form = this.detail.querySelector("form");
    if (!form) return;
    form.querySelector(`[value=${finding}]`).click();
    const { defect_type: type, name, reason } = form.elements;
    (finding === "defect" ? type : name.value ? reason : name).focus();
  }

  choose(button, each) {
    this.list.querySelector("[aria-current]")?.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    button.scrollIntoView({ block: "nearest" });
    this.leaving?.abort();
    this.leaving = new AbortController();
    const { signal } = this.leaving;
    const maps = element("div", {});
    this.detail.replaceChildren(...this.told(button, each, maps));
    document.querySelector(".split").classList.add("chosen");
    announce(`${each.decision.decision}, ${each.decision.source}`);
    // Whoever runs through the list does not want the maps of every image on the way.
    setTimeout(() => {
      if (!signal.aborted) maps.append(imageViewSoon(path("v1", "predictions", each.decision.prediction_id, "view"), signal));
    }, PAUSE);
  }

  told(button, each, maps) {
    const { decision } = each;
    const said = element("div", {});
    this.tellVerdicts(said, decision);
    const back = () => {
      document.querySelector(".split").classList.remove("chosen");
      button.focus();
    };
    return [
      element("button", { type: "button", class: "quiet back", onclick: back }, "Back to the list"),
      element("h2", {}, badge(decision.decision), " ", element("span", { class: "source" }, decision.source)),
      facts(decision),
      maps,
      element("h3", {}, "Verdict"),
      said,
      this.form(button, each, said),
      identifiers(decision),
    ];
  }

  async tellVerdicts(place, decision) {
    const verdicts = await read(path("v1", "predictions", decision.prediction_id, "verdicts"));
    const items = verdicts.toReversed().map((each) =>
      element(
        "li",
        {},
        verdictBadge(each),
        each.defect_type && ` ${each.defect_type}`,
        `, ${each.actor}, `,
        moment(each.at),
        `: ${each.reason}`,
      ),
    );
    place.replaceChildren(
      items.length > 0 ? element("ul", { class: "verdicts" }, items) : element("p", { class: "note" }, "Nobody said anything yet."),
    );
  }

  form(button, each, said) {
    const form = verdictForm();
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { prediction_id: id } = each.decision;
      const taken = await submitted(form, async (told) => {
        const { defect_type: type, ...others } = told;
        const document = others.verdict === "defect" && type ? { ...others, defect_type: type } : others;
        each.verdict = await send(path("v1", "predictions", id, "verdict"), document);
        return `Verdict ${each.verdict.verdict} recorded on ${each.decision.source}.`;
      });
      if (!taken) return;
      button.querySelector(".verdict")?.remove();
      button.querySelector(".badge").after(verdictBadge(each.verdict));
      form.elements.reason.value = "";
      // On a narrow screen the list is out of sight.
      (button.checkVisibility() ? button : form.querySelector("[type=submit]")).focus();
      await this.tellVerdicts(said, each.decision);
    });
    return form;
  }
}

function verdictForm() {
  const type = element("input", { name: "defect_type", maxlength: "100", disabled: true });
  const findings = element(
    "fieldset",
    { class: "choice" },
    element("legend", {}, "The part is"),
    ["good", "defect"].map((finding) =>
      element("label", {}, element("input", { type: "radio", name: "verdict", value: finding, required: true }), finding),
    ),
  );
  findings.addEventListener("change", (event) => {
    type.disabled = event.target.value !== "defect";
  });
  return element(
    "form",
    { class: "signed", "aria-label": "Record a verdict" },
    findings,
    element("label", {}, "Defect type, if known", type),
    signature(),
    element("p", { class: "problem", role: "alert" }),
    element("button", { type: "submit", class: "primary" }, "Record verdict"),
  );
}

function verdictBadge(verdict) {
  if (!verdict) return null;
  const shown = badge(verdict.verdict);
  shown.classList.add("verdict");
  return shown;
}

function facts(decision) {
  const told = {
    Line: element("a", { href: `#/lines/${encodeURIComponent(decision.line)}` }, `${decision.line}, version ${decision.version}`),
    When: moment(decision.at),
    Hybrid: `${figure(decision.hybrid)} (familiarity ${figure(decision.familiarity)}, novelty ${figure(decision.novelty)})`,
    "p-value": figure(decision.p_value),
  };
  return element(
    "dl",
    { class: "facts" },
    Object.entries(told).map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

function identifiers(decision) {
  const told = { Prediction: decision.prediction_id, Image: decision.image_sha256, Detector: decision.detector_digest };
  return element(
    "details",
    {},
    element("summary", {}, "For novad trace"),
    element(
      "dl",
      { class: "facts" },
      Object.entries(told).map(([name, value]) => [element("dt", {}, name), element("dd", {}, element("code", {}, value))]),
    ),
  );
}
