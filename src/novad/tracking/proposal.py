"""A decision that somebody asks for: by name and reason, and on record whether it is made or refused."""

from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError
from novad.tracking.events import Event, append

__all__ = ["Proposal", "require_signature"]


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


def require_signature(approver: str, reason: str) -> None:
    """Raises:
    ConfigError: a decision without a name or a reason.
    """
    for name, value in (("approver", approver), ("reason", reason)):
        if not value.strip():
            raise ConfigError(f"--{name}: must not be empty: a decision is signed and explained")
