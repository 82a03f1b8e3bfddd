// Approve, reject and roll back, each signed; the service refuses what is based on an old view.

import { path, send } from "./api.js";
import { element } from "./dom.js";
import { openDecision } from "./forms.js";

/** The buttons of a line; `done` is called after a decision. */
export function decisionButtons(line, role, done) {
  if (role !== "admin") {
    return element("p", { class: "note" }, "This key may review; approving, rejecting and rolling back need an admin key.");
  }
  return element(
    "div",
    { class: "buttons", role: "group", "aria-label": "Decisions" },
    ...(line.challenger === null ? [] : [approve(line, done), reject(line, done)]),
    line.former !== null && rollBack(line, done),
  );
}

function approve(line, done) {
  const version = line.challenger;
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

function reject(line, done) {
  const version = line.challenger;
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

function rollBack(line, done) {
  const to = line.former;
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
