// The first page: where every line stands.

import { badge, element, moment, table } from "./dom.js";

const COLUMNS = ["Line", "Champion", "Challenger", "Last 24 hours", "Notes"];

/** All lines, as the nodes of a page. */
export function linesPage(review) {
  return [
    element("h1", {}, "Product lines"),
    review.log_problems.length > 0 &&
      element("div", { class: "alarm", role: "alert" }, "The event log was changed: ", review.log_problems.join("; ")),
    review.lines.length > 0
      ? table("Who judges, and who waits for a decision", COLUMNS, review.lines.map(row))
      : element("p", {}, "No version is registered yet; `novad train LINE` makes one."),
  ];
}

function row(line) {
  const link = element("a", { href: `#/lines/${encodeURIComponent(line.line)}` }, line.line);
  return [link, champion(line), challenger(line), counts(line), notes(line)];
}

function champion({ champion }) {
  if (!champion) return "none";
  return [`Version ${champion.version}`, element("small", {}, `${champion.approver}, `, moment(champion.at))];
}

function challenger({ challenger }) {
  return challenger === null ? null : [`Version ${challenger} `, badge("to decide")];
}

function counts({ line, decisions }) {
  const told = ["PASS", "REVIEW", "FAIL"].filter((name) => decisions[name]);
  if (told.length === 0) return "no decision";
  const links = told.map((name) => {
    const address = `#/decisions?${new URLSearchParams({ line, decision: name })}`;
    return element("a", { href: address, class: "count" }, badge(name), ` ${decisions[name]}`);
  });
  return element("span", {}, links);
}

function notes({ champion, in_service: loaded, problem, drift }) {
  const alarm = drift?.verdict === "alarm";
  const other = champion && loaded !== champion.version;
  const told = [
    problem && element("p", { class: "alarm" }, problem),
    !problem && other && `in service: ${loaded ? `version ${loaded}` : "none"}`,
    alarm && element("p", { class: "alarm" }, `Drift of ${drift.drifted.join(", ")} since about `, moment(drift.since)),
  ].filter(Boolean);
  return told.length > 0 ? told : null;
}
