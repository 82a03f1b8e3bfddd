"""May this version judge parts? The answer in one sentence, and why."""

from dataclasses import dataclass
from typing import Literal

from novad.report.subject import Subject
from novad.tracking import Event

__all__ = ["Answer", "answer"]

_REFUSED = "No."


@dataclass(frozen=True)
class Answer:
    """What stands first on the page."""

    mood: Literal["good", "warn", "bad"]
    short: str
    """`Yes.`, `Not yet.`, `No.` and the like."""
    reason: str
    decision: Event | None
    """Whose word it is, where somebody decided."""


def answer(subject: Subject) -> Answer:
    """The verdict on a version from its files, the event log and the gates, in this order."""
    if subject.evidence.damaged:
        return Answer(
            "bad", _REFUSED, f"Its files were changed: {'; '.join(subject.evidence.damaged)}.", None
        )
    if subject.log_problems:
        why = f"The record of decisions was changed: {'; '.join(subject.log_problems)}."
        return Answer("bad", _REFUSED, why, None)
    failed = [verdict.gate.replace("_", " ") for verdict in subject.gates if not verdict.passed]
    if subject.standing == "champion":
        return _champion(subject, failed)
    decision = next((each for each in reversed(subject.events) if _concerns(each, subject)), None)
    if subject.standing == "rejected":
        return Answer("bad", _REFUSED, "It was looked at and turned down.", decision)
    if subject.standing == "former champion":
        return Answer("warn", "No longer.", "It was champion; another version judges parts now.", decision)
    if failed:
        return Answer("bad", _REFUSED, f"Gates that it does not pass: {', '.join(failed)}.", decision)
    if subject.gate_problem is not None:
        return Answer("bad", _REFUSED, f"Its gates cannot be judged: {subject.gate_problem}", decision)
    return Answer("warn", "Not yet.", "It passes every gate; nobody has approved it.", decision)


def _champion(subject: Subject, failed: list[str]) -> Answer:
    if failed:
        why = f"It is the champion, but would not pass the gates of today: {', '.join(failed)}."
        return Answer("warn", "Yes, with doubts.", why, subject.champion)
    return Answer("good", "Yes.", "It is the champion: its decisions count.", subject.champion)


def _concerns(event: Event, subject: Subject) -> bool:
    return event.version is not None and event.version == subject.run.version
