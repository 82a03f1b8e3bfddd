"""Verified images into the next version of a line's data: all of them or none, signed and on record."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from novad.config import Workspace, line_settings
from novad.errors import LineBusyError, RefusedError
from novad.images.validation import run_gate
from novad.pipeline.locks import line_locks
from novad.pipeline.next_dataset import NextDataset, next_dataset
from novad.pipeline.recovery import mend
from novad.pipeline.tracked_data import data_digest, lines_tracked_by, own_data, require_recorded, track
from novad.pipeline.verified_images import VerifiedImage, image_bytes
from novad.tracking import DATA_ACCEPTED, Event
from novad.tracking.events import append, events
from novad.tracking.proposal import signature

__all__ = ["Accepted", "accept_verified", "pending_images", "undo_interrupted"]

_REASONS_TOLD = 20


@dataclass(frozen=True)
class Accepted:
    """What an acceptance did."""

    event: Event | None
    """None when nothing was waiting."""
    images: tuple[VerifiedImage, ...]
    held_back: tuple[VerifiedImage, ...]
    """Those that stay out, each with its reason."""


def pending_images(workspace: Workspace, line: str) -> NextDataset:
    """What an acceptance would do now; see :func:`next_dataset`."""
    if _note(workspace, line).exists():
        with suppress(LineBusyError), line_locks(workspace, [line]):
            undo_interrupted(workspace, line)
    return next_dataset(workspace, line)


def accept_verified(
    workspace: Workspace, line: str, approver: str, reason: str, only: Sequence[str] = ()
) -> Accepted:
    """Copy verified images into the line's data, let DVC record it and append the event; or change nothing.

    A kill at any moment leaves either the event and everything that it tells, or traces that the next call,
    or the next training, takes away.

    Args:
        approver: the person who answers for it.
        reason: why, in their words.
        only: prediction ids, or digests or their beginnings; empty for all that can be accepted.
    Raises:
        ConfigError: no approver or reason, or nothing waits under a name of ``only``.
        LineBusyError: another process works on the line, or on one whose images DVC tracks together with it.
        RefusedError: the data gate refuses an image, none of those that wait can be accepted, or one that
            ``only`` names cannot; the message names them.
        IntegrityError: the event log was changed.
        ServiceError: DVC failed, or the database cannot be reached.
    """
    approver, reason = signature(approver, reason)
    _, tracked_by = own_data(workspace, line)
    together = lines_tracked_by(workspace, tracked_by)
    with line_locks(workspace, together):
        mend(workspace)
        for each in together:
            undo_interrupted(workspace, each)
        coming = next_dataset(workspace, line, only)
        if coming.held_back and (only or not coming.ready):
            raise RefusedError(f"{line}: nothing was accepted:\n{_reasons(coming.held_back)}")
        if not coming.ready:
            return Accepted(None, (), ())
        require_recorded(workspace, coming.tracked_by)
        _hold_to_gate(workspace, line, coming)
        return Accepted(_commit(workspace, line, coming, approver, reason), coming.ready, coming.held_back)


def undo_interrupted(workspace: Workspace, line: str) -> None:
    """Take away what a killed acceptance left, unless its event was written: then it had finished.

    The caller holds the line.
    """
    note = _note(workspace, line)
    if not note.is_file():
        return
    told = json.loads(note.read_text("utf-8"))
    written = {event.detail.get("acceptance") for event in events(workspace, line)}
    if told["acceptance"] not in written:
        _undo(workspace, told)
    note.unlink()


def _hold_to_gate(workspace: Workspace, line: str, coming: NextDataset) -> None:
    """Raises:
    RefusedError: the data gate finds an error in the data as they would be.
    """
    settings = line_settings(workspace.params, line).validation
    docs = _note(workspace, line).with_suffix(".docs")
    shutil.rmtree(docs, ignore_errors=True)
    report = run_gate(coming.manifest, settings, docs)
    shutil.rmtree(docs, ignore_errors=True)
    if not report.passed:
        findings = "\n".join(f"  {finding}" for finding in report.errors)
        raise RefusedError(f"{line}: the data gate refuses the data; nothing was accepted:\n{findings}")


def _commit(workspace: Workspace, line: str, coming: NextDataset, approver: str, reason: str) -> Event:
    acceptance = uuid4().hex
    before = data_digest(coming.tracked_by)
    with _all_or_nothing(workspace, line, coming, acceptance):
        for image in coming.ready:
            _copy_in(workspace, coming.folder, image)
        track(workspace, coming.tracked_by.with_suffix(""))
        data = {
            "path": coming.tracked_by.relative_to(workspace.root).as_posix(),
            "before": before,
            "after": data_digest(coming.tracked_by),
        }
        detail = {"acceptance": acceptance, "data": data, "images": [_record(each) for each in coming.ready]}
        return append(workspace, line, DATA_ACCEPTED, actor=approver, reason=reason, detail=detail)


@contextmanager
def _all_or_nothing(workspace: Workspace, line: str, coming: NextDataset, acceptance: str) -> Iterator[None]:
    """Note what is about to appear, so that it can be taken away again, by the next call if need be."""
    places = [coming.folder / str(image.path) for image in coming.ready]
    fresh = {above for place in places for above in place.parents if not above.exists()}

    def relative(paths: Iterable[Path]) -> list[str]:
        return [path.relative_to(workspace.root).as_posix() for path in paths]

    told = {
        "acceptance": acceptance,
        "files": relative(places),
        "folders": relative(sorted(fresh, reverse=True)),
        "tracked_by": relative([coming.tracked_by]),
        "recorded": coming.tracked_by.read_text("utf-8"),
    }
    taken = [str(place) for place in places if place.exists()]
    if taken:
        raise RefusedError(f"{', '.join(taken)}: exists and holds something else; move it away")
    note = _note(workspace, line)
    note.parent.mkdir(parents=True, exist_ok=True)
    _write(note, json.dumps(told).encode())
    try:
        yield
    except BaseException as error:
        undo_interrupted(workspace, line)
        if isinstance(error, OSError):  # no room, a folder that may not be written
            raise RefusedError(f"{coming.folder}: nothing was accepted: {error}") from error
        raise
    note.unlink()


def _copy_in(workspace: Workspace, folder: Path, image: VerifiedImage) -> None:
    data = image_bytes(workspace, image)
    if data is None:
        raise RefusedError(f"{image.sources[-1]} (sha256 {image.sha256}): changed or vanished meanwhile")
    place = folder / str(image.path)
    place.parent.mkdir(parents=True, exist_ok=True)
    _write(place, data)


def _undo(workspace: Workspace, told: dict[str, Any]) -> None:
    for path in map(workspace.path, told["files"]):
        _partial(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    for folder in map(workspace.path, told["folders"]):  # the deepest first
        with suppress(OSError):
            folder.rmdir()
    [tracked_by] = map(workspace.path, told["tracked_by"])
    if not tracked_by.is_file() or tracked_by.read_text("utf-8") != told["recorded"]:
        _write(tracked_by, told["recorded"].encode())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and on disk when this returns."""
    partial = _partial(path)
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _partial(path: Path) -> Path:
    """Hidden, so that no layout finds it."""
    return path.with_name(f".{path.name}.partial")


def _note(workspace: Workspace, line: str) -> Path:
    return workspace.state / "accepting" / f"{line}.json"


def _record(image: VerifiedImage) -> dict[str, Any]:
    """What the event keeps of an image."""
    return {
        "sha256": image.sha256,
        "path": image.path,
        "kind": image.kind,
        "defect_type": image.defect_type,
        "prediction_id": image.prediction_ids[-1],
        "verdict_by": image.actor,
    }


def _reasons(images: Sequence[VerifiedImage]) -> str:
    shown = images[-_REASONS_TOLD:]
    before = [f"  {len(images) - len(shown)} before these"] if len(shown) < len(images) else []
    told = [f"  {each.sources[-1]} (sha256 {each.sha256}): {each.held_back}" for each in shown]
    return "\n".join([*before, *told])
