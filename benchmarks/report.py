"""A benchmark's result as a table for people and JSON for programs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["MissingInput", "Report"]


class MissingInput(Exception):  # noqa: N818 - not an error: the benchmark is skipped
    """What a benchmark needs is not on this machine; the message says what and how to name another."""


@dataclass(frozen=True)
class Report:
    """Rows of equal keys, under a title, with the conditions they were measured in.

    Attributes:
        title: one line.
        conditions: what a reader must know to repeat it.
        rows: one dictionary per line of the table, keys in the order of the columns.
    """

    title: str
    conditions: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    machine: dict[str, Any] = field(
        default_factory=lambda: {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    )

    def markdown(self) -> str:
        """Title, conditions and table."""
        told = ", ".join(f"{name} {value}" for name, value in {**self.conditions, **self.machine}.items())
        columns = list(self.rows[0])
        lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
        lines += [" | ".join(_shown(row[column]) for column in columns) for row in self.rows]
        return "\n".join([f"# {self.title}", "", f"{told}", "", *(f"| {line} |" for line in lines), ""])

    def write(self, stem: Path) -> None:
        """Write ``stem``.md and ``stem``.json."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "title": self.title,
            "conditions": self.conditions,
            "machine": self.machine,
            "rows": self.rows,
        }
        stem.with_suffix(".json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
        stem.with_suffix(".md").write_text(self.markdown(), "utf-8")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
