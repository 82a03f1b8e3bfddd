// Dialogs, and what every decision is signed with: a name and a reason.

import { Refusal } from "./api.js";
import { element, tell } from "./dom.js";

const NAME = "novad-name";

/** Fields for name and reason; the name is remembered on this machine. */
export function signature() {
  const name = element("input", {
    name: "name",
    required: true,
    maxlength: "100",
    autocomplete: "name",
    value: localStorage.getItem(NAME) ?? "",
  });
  const reason = element("textarea", { name: "reason", required: true, maxlength: "1000", rows: "2" });
  return [element("label", {}, "Your name", name), element("label", {}, "Reason", reason)];
}

/** Send what a form says; the form shows why when it is refused. Returns whether it was taken. */
export async function submitted(form, act) {
  const button = form.querySelector("[type=submit]");
  const problem = form.querySelector(".problem");
  const said = Object.fromEntries(new FormData(form));
  // A control character, such as a line break, would hide what was signed.
  for (const [field, text] of Object.entries(said)) said[field] = text.replace(/\s+/g, " ").trim();
  problem.textContent = "";
  button.disabled = true;
  try {
    const told = await act(said);
    localStorage.setItem(NAME, said.name);
    tell(told);
    return true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    // A service that fails may have recorded the decision before: only its own words tell.
    problem.textContent = error.code === "service_failed" ? error.message : `Not done: ${error.message}`;
    return false;
  } finally {
    button.disabled = false;
  }
}

/** A dialog with a title; it is removed when it is closed, and the focus goes back. */
export function openDialog(title, ...children) {
  const heading = element("h2", { id: "dialog-title" }, title);
  const close = element("button", { type: "button", class: "quiet close", onclick: () => dialog.close() }, "Close");
  const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, heading, close, ...children);
  const before = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Ask for a signed decision in a dialog. */
export function openDecision({ title, explanation, button, danger, act, done }) {
  const form = element(
    "form",
    { class: "signed" },
    element("p", {}, explanation),
    signature(),
    element("p", { class: "problem", role: "alert" }),
    element("button", { type: "submit", class: danger ? "danger" : "primary" }, button),
  );
  const dialog = openDialog(title, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await submitted(form, act)) {
      dialog.close();
      done();
    }
  });
  const [name, reason] = [form.elements.name, form.elements.reason];
  (name.value ? reason : name).focus();
}
