// Building the page from data: text is always set as text, never read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`on...`) and children; null and false children are left out. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...present(children));
  return node;
}

function present(children) {
  return children.flat(2).filter((child) => child !== null && child !== undefined && child !== false);
}

/** A number as figures are told: three places, or a dash where it is not defined. */
export function figure(value) {
  return typeof value === "number" && Number.isFinite(value) ? value.toFixed(3) : "–";
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** A moment in the reader's own time zone. */
export function moment(at) {
  return element("time", { datetime: at, title: at }, MOMENT.format(new Date(at)));
}

/** A word with a colour; the word alone says it too. */
export function badge(word, kind = word.toLowerCase().replace(" ", "-")) {
  return element("span", { class: `badge ${kind}` }, word);
}

/** A table; the first cell of each row is its heading. */
export function table(caption, columns, rows) {
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, columns.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, rows.map((row) => tableRow(row, columns))),
    ),
  );
}

function tableRow([first, ...others], columns) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, first),
    others.map((cell, at) => element("td", { "data-label": columns[at + 1] }, cell ?? "–")),
  );
}

/** What is shown now, for screen readers alone. */
export function announce(text) {
  say(text, "unseen");
}

/** What was done, for everybody. */
export function tell(text) {
  say(text, "");
}

function say(text, kind) {
  const status = document.getElementById("status");
  status.replaceChildren(element("span", { class: kind }, text));
}

/** Put children in place of those before. */
export function fill(place, ...children) {
  place.replaceChildren(...present(children));
}

/** Put a page in place of the one before and move the focus to its heading. */
export function show(...children) {
  const main = document.getElementById("main");
  fill(main, ...children);
  const heading = main.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus();
}
