"""A decision that somebody asks for: by name and reason, and on record whether it is made or refused."""

from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError

from novad.config import Workspace, faults
from novad.errors import ConfigError, IntegrityError, RefusedError
from novad.tracking.events import Event, append

__all__ = ["Name", "Proposal", "Reason", "signature"]


def _printable(text: str) -> str:
    """Control characters hide what was signed, and no database takes all of them."""
    if not text.isprintable():
        raise ValueError("holds characters that cannot be shown")
    return text


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_printable)
]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), AfterValidator(_printable)
]
_SIGNATURE = {"approver": TypeAdapter(Name), "reason": TypeAdapter(Reason)}


@dataclass(frozen=True)
class Proposal:
    """One decision on a line. What refuses it inside a ``with`` block is recorded as a refusal."""

    workspace: Workspace
    line: str
    kind: str
    """What is asked for: the kind of the event that it becomes."""
    version: int | None
    actor: str
    reason: str
    seen: int
    """The newest event that the decision is based on; after another one it is refused."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What belongs into the record; filled while it is found out."""

    def decide(self) -> Event:
        """Append the event.

        Raises:
            RefusedError: somebody else decided since ``seen``.
            IntegrityError: the event log was changed.
            ServiceError: the database cannot be reached or stays locked.
        """
        return self._append(self.kind, self.detail, self.seen)

    def __enter__(self) -> "Proposal":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, RefusedError):
            # A log that was changed takes no further event; that is what the error says.
            with suppress(IntegrityError):
                self._append("refusal", {**self.detail, "asked": self.kind, "refused": str(error)}, None)

    def _append(self, kind: str, detail: dict[str, Any], expected: int | None) -> Event:
        return append(
            self.workspace,
            self.line,
            kind,
            actor=self.actor,
            reason=self.reason,
            version=self.version,
            detail=detail,
            expected=expected,
        )


def signature(approver: str, reason: str) -> tuple[str, str]:
    """Name and reason as they go on record, whichever way they came in: trimmed, short and legible.

    Raises:
        ConfigError: a decision without a name or a reason, or with one that cannot be shown.
    """
    signed = []
    for name, text in (("approver", approver), ("reason", reason)):
        if not text.strip():
            raise ConfigError(f"--{name}: must not be empty: a decision is signed and explained")
        try:
            signed.append(_SIGNATURE[name].validate_python(text))
        except ValidationError as error:
            raise ConfigError(f"--{name}: {faults(error)[0].why}") from None
    return signed[0], signed[1]
