// Approve, reject and roll back, each signed; the service refuses what is based on an old view.

import { path, send } from "./api.js";
import { element } from "./dom.js";
import { openDecision } from "./forms.js";

/** What can be decided on the version that is looked at; `done` is called after a decision. */
export function decisionButtons(line, looked, role, done) {
  if (role !== "admin") {
    return element("p", { class: "note" }, "This key may review; approving, rejecting and rolling back need an admin key.");
  }
  const standing = line.versions.find((each) => each.version === looked)?.standing;
  // Nobody waits for one that was rolled back, but it can be decided on again.
  const waits = standing === "candidate" || (standing === "former champion" && looked > line.champion.version);
  const former = standing === "former champion" ? looked : line.former;
  return element(
    "div",
    { class: "buttons", role: "group", "aria-label": "Decisions" },
    (waits || standing === "rejected") && approve(line, looked, done),
    waits && reject(line, looked, done),
    former !== null && rollBack(line, former, done),
  );
}

function approve(line, version, done) {
  return button(`Approve version ${version}…`, "primary", {
    title: `Approve version ${version} of ${line.line}`,
    explanation: line.champion
      ? `It replaces version ${line.champion.version} as champion, if every gate agrees.`
      : "It becomes the line's first champion, if every gate agrees.",
    button: "Approve",
    act: async (said) => {
      await send(path("v1", "lines", line.line, "promote"), { ...said, version, seen: line.seen });
      return `Version ${version} of ${line.line} is champion.`;
    },
    done,
  });
}

function reject(line, version, done) {
  return button(`Reject version ${version}…`, "", {
    title: `Reject version ${version} of ${line.line}`,
    explanation: "The champion stays. The rejection is kept in the event log.",
    button: "Reject",
    danger: true,
    act: async (said) => {
      await send(path("v1", "lines", line.line, "reject"), { ...said, version, seen: line.seen });
      return `Version ${version} of ${line.line} is rejected.`;
    },
    done,
  });
}

function rollBack(line, to, done) {
  return button(`Roll back to version ${to}…`, "", {
    title: `Roll ${line.line} back to version ${to}`,
    explanation: `Version ${line.champion.version} stops judging; version ${to} is champion again.`,
    button: "Roll back",
    danger: true,
    act: async (said) => {
      await send(path("v1", "lines", line.line, "rollback"), { ...said, to, seen: line.seen });
      return `Version ${to} of ${line.line} is champion again.`;
    },
    done,
  });
}

function button(text, kind, decision) {
  return element("button", { type: "button", class: kind, onclick: () => openDecision(decision) }, text);
}
