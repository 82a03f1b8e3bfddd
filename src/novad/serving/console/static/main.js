// Which page is shown, and the key that opens them.

import { key, read, Refusal } from "./api.js";
import { linePage } from "./comparison.js";
import { decisionsPage } from "./decisions.js";
import { element, show, tell } from "./dom.js";
import { listen, openHelp } from "./keyboard.js";
import { linesPage } from "./lines.js";

let shown = null;
let turn = 0;

/** Show the page that the address names; of two that are asked for at once the later one wins. */
async function route() {
  const mine = ++turn;
  shown = null;
  if (!key.get()) return askForKey();
  document.getElementById("main").setAttribute("aria-busy", "true");
  try {
    const review = await read("/v1/review");
    if (mine !== turn) return undefined;
    greet(review.role);
    const [nodes, page] = await pageFor(review);
    if (mine !== turn) return undefined;
    show(...nodes);
    shown = page;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (mine !== turn) return undefined;
    if (error.status === 401 || error.status === 403) return askForKey(error);
    show(element("h1", {}, "Not shown"), element("p", { class: "alarm" }, error.message));
  } finally {
    if (mine === turn) document.getElementById("main").removeAttribute("aria-busy");
  }
  return undefined;
}

/** The nodes of a page, and what keys do there. */
async function pageFor(review) {
  const [place, question] = location.hash.replace(/^#\//, "").split("?");
  const query = new URLSearchParams(question ?? "");
  const [page, name] = place.split("/");
  for (const link of document.querySelectorAll("#nav a")) {
    const current = link.hash === `#/${page || "lines"}`;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (page === "decisions") return decisionsPage(review, query);
  if (page === "lines" && name) return [await linePage(review, readable(name), query, route), null];
  return [linesPage(review), null];
}

function readable(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function greet(role) {
  document.getElementById("nav").hidden = false;
  document.getElementById("session").hidden = false;
  document.getElementById("role").textContent = `${role} key`;
}

function askForKey(refusal) {
  key.forget();
  document.getElementById("nav").hidden = true;
  document.getElementById("session").hidden = true;
  const input = element("input", { type: "password", required: true, autocomplete: "off", maxlength: "200" });
  const form = element(
    "form",
    { class: "signed sign-in" },
    element("p", {}, "An API key that may review or administer. It is kept in this tab only."),
    element("label", {}, "Key", input),
    element("p", { class: "problem", role: "alert" }, refusal && wrongKey(refusal)),
    element("button", { type: "submit", class: "primary" }, "Open the console"),
    element("p", { class: "note" }, "A key is made by ", element("code", {}, "novad serve --new-key review"), "."),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    route();
  });
  show(element("h1", {}, "Review console"), form);
  input.focus();
}

function wrongKey(refusal) {
  return refusal.status === 403 ? "This key may score, but not review." : "The service does not know this key.";
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
document.getElementById("sign-out").addEventListener("click", () => {
  tell("Signed out.");
  askForKey();
});
document.getElementById("help-open").addEventListener("click", openHelp);
addEventListener("hashchange", route);
listen(() => shown);
route();
