"""What the data gate says, as values, as a sentence and as JSON data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finding", "GateReport", "told"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with the images that it concerns."""

    check: str
    severity: str  # 'error' stops the line, 'warning' and '[mask] left out' go into the report
    images: tuple[str, ...]  # paths relative to the line's data folder
    message: str

    def __str__(self) -> str:
        """One line; a warning names the first ten images, others every image."""
        return self.line(10 if self.severity == "warning" else len(self.images))

    def line(self, most: int) -> str:
        """The finding in one line that names at most so many images."""
        shown = self.images[:most]
        more = f" and {len(self.images) - len(shown)} more" if len(shown) < len(self.images) else ""
        named = f"{', '.join(shown)}{more}: " if shown else ""
        return f"{self.severity} {self.check}: {named}{self.message}"


@dataclass(frozen=True)
class GateReport:
    """Everything the gate found, and the checks that it ran."""

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    counts: dict[str, int]  # images per split, and 'images' in all
    checks: tuple[dict[str, Any], ...]  # name, severity and success of every check that ran
    left_out: tuple[Finding, ...] = ()  # what went before these checks, and why

    @property
    def passed(self) -> bool:
        return not self.errors

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, the gravest first."""
        return (*self.errors, *self.left_out, *self.warnings)

    def as_document(self) -> dict[str, Any]:
        """The report as JSON data; equal data give equal documents.

        ``left_out`` is there where something was: the reports of other lines stay what they were.
        """
        document = {
            "passed": self.passed,
            "counts": self.counts,
            "checks": list(self.checks),
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
        }
        left_out = [asdict(finding) for finding in self.left_out]
        return document | ({"left_out": left_out} if left_out else {})


def told(findings: Sequence[Mapping[str, Any]], most: int = 20) -> list[str]:
    """Findings of a report document as at most so many lines for people, each with at most ten images."""
    lines = [Finding(**finding).line(10) for finding in findings[:most]]
    return lines + ([f"and {len(findings) - most} more findings"] if len(findings) > most else [])
