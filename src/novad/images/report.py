"""What the data gate says, as values, as a sentence and as JSON data."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finding", "GateReport"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with the images that it concerns."""

    check: str
    severity: str  # 'error' stops the line, 'warning' goes into the report
    images: tuple[str, ...]  # paths relative to the line's data folder
    message: str

    def __str__(self) -> str:
        """One line; an error names every image, a warning the first ten."""
        shown = self.images if self.severity == "error" else self.images[:10]
        more = f" and {len(self.images) - len(shown)} more" if len(shown) < len(self.images) else ""
        return f"{self.severity} {self.check}: {', '.join(shown)}{more}: {self.message}"


@dataclass(frozen=True)
class GateReport:
    """Everything the gate found, and the checks that it ran."""

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    counts: dict[str, int]  # images per split, and 'images' in all
    checks: tuple[dict[str, Any], ...]  # name, severity and success of every check that ran

    @property
    def passed(self) -> bool:
        return not self.errors

    def as_document(self) -> dict[str, Any]:
        """The report as JSON data; equal data give equal documents."""
        return {
            "passed": self.passed,
            "counts": self.counts,
            "checks": list(self.checks),
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
        }
