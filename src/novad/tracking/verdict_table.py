"""Verdicts from a table: what people found out elsewhere, all of a CSV file or nothing of it."""

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from novad.config import Workspace, faults
from novad.errors import ConfigError, ImageError
from novad.images.decode import read_regular
from novad.tracking.decisions import LoggedDecision, decisions_of
from novad.tracking.proposal import Name, Reason
from novad.tracking.verdicts import (
    Finding,
    OperatorVerdict,
    line_verdicts,
    log_verdicts,
    verdict_now,
)

__all__ = ["import_verdicts"]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_COLUMNS = ("truth", "defect_type", "reason")
_KEYS = {"prediction_id": "prediction_id", "image": "image_sha256"}
_SHOWN = 20


class _Row(BaseModel):
    """One row, with its empty cells left out."""

    model_config = ConfigDict(extra="forbid")

    key: str
    truth: Finding
    defect_type: Name | None = None
    reason: Reason

    @model_validator(mode="after")
    def _good_has_no_defect(self) -> "_Row":
        if self.truth == "good" and self.defect_type is not None:
            raise ValueError("a good part has no defect type")
        return self


class _Problems:
    """What is wrong with a table, told together."""

    def __init__(self, table: Path) -> None:
        self._table, self._found = table, list[tuple[int, str]]()

    def add(self, row: int, what: str) -> None:
        self._found.append((row, what))

    def stop(self) -> None:
        """Raises:
        ConfigError: something is wrong; names every row, up to a screenful.
        """
        if not self._found:
            return
        shown = [f"row {row}: {what}" for row, what in sorted(self._found)[:_SHOWN]]
        more = len(self._found) - len(shown)
        tail = [f"and {more} more"] if more else []
        raise ConfigError(f"{self._table}: nothing was written:\n" + "\n".join([*shown, *tail]))


def import_verdicts(workspace: Workspace, line: str, table: Path, actor: str) -> tuple[int, int]:
    """Add the verdicts of a CSV file with the columns ``prediction_id`` or ``image``, ``truth``,
    ``defect_type`` and ``reason``.

    An image is named by its path or sha256, and stands for the newest decision on it. A verdict that stands
    already, word for word, is not given again. Rows count as in a spreadsheet: the header is row 1.

    Returns:
        Number of verdicts that were added, and of those that stood already.
    Raises:
        ConfigError: names every row that is wrong; nothing was written.
        ServiceError: the database cannot be reached or stays locked.
    """
    try:
        signer = TypeAdapter(Name).validate_python(actor)
    except ValidationError as error:
        raise ConfigError(f"--by: {faults(error)[0].why}") from None
    problems = _Problems(table)
    column, rows = _read(table, problems)
    problems.stop()
    keys = _keys(column, rows, problems)
    known = decisions_of(workspace, line, _KEYS[column], keys.values())  # type: ignore[arg-type]
    decisions = {at: known[key] for at, key in keys.items() if key in known}
    for at in keys.keys() - decisions.keys():
        problems.add(at, f"{rows[at].key}: {line} has taken no decision on it")
    _refuse_repeated(decisions, problems)
    problems.stop()
    verdicts = [
        verdict_now(decisions[at], row.truth, signer, row.reason, row.defect_type) for at, row in rows.items()
    ]
    standing = {each.prediction_id: each for _, each in line_verdicts(workspace, line)}
    fresh = [each for each in verdicts if not _same(each, standing.get(each.prediction_id))]
    log_verdicts(workspace, fresh)
    return len(fresh), len(verdicts) - len(fresh)


def _read(table: Path, problems: _Problems) -> tuple[str, dict[int, _Row]]:
    """Name of the key column, and the rows by their number."""
    cells = _cells(table)
    header = [name.strip() for name in next(cells, [])]
    keys = [name for name in _KEYS if name in header]
    wrong = [name for name in header if name not in (*_KEYS, *_COLUMNS)]
    missing = [name for name in ("truth", "reason") if name not in header]
    if len(keys) != 1 or wrong or missing or len(set(header)) != len(header):
        raise ConfigError(
            f"{table}: row 1: the columns are prediction_id or image, then truth, defect_type (may be left "
            f"out) and reason, separated by commas; found {', '.join(header)[:200] or 'nothing'}"
        )
    rows: dict[int, _Row] = {}
    for number, values in enumerate(cells, start=2):
        if not any(value.strip() for value in values):
            continue
        if len(values) > len(header):
            problems.add(number, f"{len(values)} cells under {len(header)} columns")
            continue
        filled = {name: value for name, value in zip(header, values, strict=False) if value.strip()}
        try:
            key = filled.pop(keys[0], "").strip()
            rows[number] = _Row.model_validate({**filled, **({"key": key} if key else {})})
        except ValidationError as error:
            for where, why in faults(error):
                told = ": ".join([*where, why])
                problems.add(number, told.replace("key:", f"{keys[0]}:", 1))
    if not rows:
        problems.add(2, "no verdict")
    return keys[0], rows


def _cells(table: Path) -> Iterator[list[str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream, strict=True)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table}: cannot be read as CSV: {error}") from None


def _keys(column: str, rows: dict[int, _Row], problems: _Problems) -> dict[int, str]:
    """What each row names, as the log knows it: a prediction id or the digest of an image."""
    keys = {}
    for number, row in rows.items():
        try:
            keys[number] = row.key.lower() if column == "prediction_id" else _digest(row.key)
        except (ImageError, ValueError) as error:
            problems.add(number, f"image: {error}")
    return keys


def _digest(image: str) -> str:
    if _SHA256.fullmatch(image):
        return image.lower()
    if not image.isprintable():
        raise ValueError(f"{image!a}: no path and no digest")
    return hashlib.sha256(read_regular(Path(image))).hexdigest()


def _refuse_repeated(decisions: dict[int, LoggedDecision], problems: _Problems) -> None:
    first: dict[str, int] = {}
    for number, decision in decisions.items():
        if (before := first.setdefault(decision.prediction_id, number)) != number:
            problems.add(number, f"row {before} speaks of the same decision")


def _same(verdict: OperatorVerdict, standing: OperatorVerdict | None) -> bool:
    return standing is not None and replace(verdict, at=standing.at) == standing
