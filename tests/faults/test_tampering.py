"""Whoever changes a record or a file of a registered model is found out, and what was changed is named."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from novad.config import Workspace
from novad.errors import IntegrityError, RefusedError
from novad.tracking import check, history, promote, resolve, rollback
from novad.tracking.database import EVENTS, HEADS, writing
from novad.tracking.events import append
from novad.tracking.evidence import find_version, run_folder, version_files
from novad.tracking.store import locate, open_client
from tracking_fixtures import Kept

LINE = "metal"
Tamper = Callable[[Workspace], object]


def _decide_thrice(workspace: Workspace) -> None:
    promote(workspace, LINE, 1, "Ann", "first")
    promote(workspace, LINE, 2, "Ann", "better")
    rollback(workspace, LINE, "Bob", "worse")


@pytest.fixture(scope="module")
def kept(keep: Callable[..., Kept]) -> Kept:
    return keep(2, then=_decide_thrice)


@pytest.fixture
def decided(own_store: None, kept: Kept) -> Workspace:
    """Versions 1 and 2; 1 promoted, then 2, then rolled back to 1."""
    return kept.put_back()


def _model(workspace: Workspace, version: int = 1) -> Path:
    client = open_client(workspace)
    return version_files(workspace, client, find_version(client, LINE, version)).folder


def _run_id(workspace: Workspace, version: int = 1) -> str:
    return find_version(open_client(workspace), LINE, version).run_id or ""


def _run(workspace: Workspace, version: int = 1) -> Path:
    return run_folder(workspace, open_client(workspace), _run_id(workspace, version))


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b" ")


def _write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")


def _swap_banks(workspace: Workspace) -> None:
    banks = [_model(workspace, version) / "artifacts/detector/bank.safetensors" for version in (1, 2)]
    aside = banks[0].with_suffix(".aside")
    shutil.move(banks[0], aside)
    shutil.move(banks[1], banks[0])
    shutil.move(aside, banks[1])


def _edit(**values: object) -> Tamper:
    def edit(workspace: Workspace) -> None:
        with writing(locate(workspace)) as connection:
            connection.execute(update(EVENTS).where(EVENTS.c.sequence == 2).values(**values))

    return edit


def _remove(sequence: int) -> Tamper:
    def remove(workspace: Workspace) -> None:
        with writing(locate(workspace)) as connection:
            connection.execute(delete(EVENTS).where(EVENTS.c.sequence == sequence))

    return remove


def _swap_order(workspace: Workspace) -> None:
    with writing(locate(workspace)) as connection:
        for old, new in ((1, 99), (2, 1), (99, 2)):
            connection.execute(update(EVENTS).where(EVENTS.c.sequence == old).values(sequence=new))


def _forge_head(workspace: Workspace) -> None:
    with writing(locate(workspace)) as connection:
        connection.execute(update(HEADS).values(digest="0" * 64))


def _tag(name: str) -> Tamper:
    return lambda workspace: open_client(workspace).set_model_version_tag(LINE, "1", name, "0" * 64)


TAMPERING: dict[str, tuple[Tamper, str]] = {
    "bank": (lambda w: _append(_model(w) / "artifacts/detector/bank.safetensors"), "bank.safetensors"),
    "detector": (lambda w: _append(_model(w) / "artifacts/detector/detector.json"), "detector.json"),
    "description": (lambda w: _append(_model(w) / "MLmodel"), "model/MLmodel was changed"),
    "code": (lambda w: _append(_model(w) / "novad_model.py"), "model/novad_model.py was changed"),
    "requirements": (lambda w: _append(_model(w) / "requirements.txt"), "model/requirements.txt was changed"),
    "added": (lambda w: (_model(w) / "data.pkl").write_bytes(b"x"), "model/data.pkl was added"),
    "hidden": (lambda w: _write(_model(w) / ".env"), "model/.env was added"),
    "hidden folder": (lambda w: _write(_model(w) / ".git/config"), "model/.git/config was added"),
    "compiled": (
        lambda w: _write(_model(w) / "__pycache__/novad_model.cpython-311.pyc"),
        "model/__pycache__/novad_model.cpython-311.pyc was added",
    ),
    "hidden in detector": (
        lambda w: _write(_model(w) / "artifacts/detector/.bank"),
        "model/artifacts/detector/.bank was added",
    ),
    "linked folder": (
        lambda w: (_model(w) / "code").symlink_to(_model(w) / "artifacts"),
        "model/code was added",
    ),
    "linked nowhere": (lambda w: (_model(w) / "x.py").symlink_to("gone"), "model/x.py was added"),
    "hidden in run": (lambda w: _write(_run(w) / "evaluate/.scores"), "run/evaluate/.scores was added"),
    "removed": (lambda w: (_model(w) / "python_env.yaml").unlink(), "model/python_env.yaml was removed"),
    "other version": (lambda w: _append(_model(w, 2) / "MLmodel"), "version 2: model/MLmodel was changed"),
    "banks swapped": (_swap_banks, "version 2: model/artifacts/detector/bank.safetensors was changed"),
    "metrics": (lambda w: _append(_run(w) / "evaluate/metrics.json"), "run/evaluate/metrics.json was"),
    "scores": (lambda w: _append(_run(w) / "evaluate/scores.parquet"), "run/evaluate/scores.parquet was"),
    "images": (lambda w: _append(_run(w) / "validate/manifest.parquet"), "run/validate/manifest.parquet"),
    "heatmap": (lambda w: _append(_run(w) / "evaluate/heatmaps/a.png"), "run/evaluate/heatmaps/a.png was"),
    "data docs": (lambda w: _append(_run(w) / "validate/docs/index.html"), "run/validate/docs/index.html"),
    "lineage": (lambda w: _append(_run(w) / "lineage.json"), "run/lineage.json was changed"),
    "record of files": (lambda w: (_run(w) / "files.json").write_text("{}"), "files.json is not the record"),
    "actor": (_edit(actor="Eve"), "event 2 was edited"),
    "reason": (_edit(reason="none"), "event 2 was edited"),
    "kind": (_edit(kind="refusal"), "event 2 was edited"),
    "version": (_edit(version=1), "event 2 was edited"),
    "time": (_edit(at="2020-01-01T00:00:00.000000+00:00"), "event 2 was edited"),
    "detail": (_edit(detail="{}"), "event 2 was edited"),
    "link": (_edit(previous="0" * 64), "event 2 does not follow event 1"),
    "order": (_swap_order, "event 1 was edited"),
    "first event": (_remove(1), "event 1 is missing"),
    "middle event": (_remove(2), "event 2 is missing"),
    "last event": (_remove(3), "its end was removed"),
    "head": (_forge_head, "its end was removed or replaced"),
    "alias": (
        lambda w: open_client(w).set_registered_model_alias(LINE, "champion", "2"),
        "alias champion names version 2",
    ),
    "alias removed": (
        lambda w: open_client(w).delete_registered_model_alias(LINE, "champion"),
        "alias champion names version None",
    ),
    "version deleted": (
        lambda w: open_client(w).delete_model_version(LINE, "2"),
        "version 2 was published and is no longer registered",
    ),
    "detector tag": (_tag("novad.detector_digest"), "tag novad.detector_digest differs"),
    "model tag": (_tag("novad.model_digest"), "tag novad.model_digest differs"),
    "output tag": (_tag("novad.output_digest"), "tag novad.output_digest"),
    "files tag removed": (
        lambda w: open_client(w).delete_model_version_tag(LINE, "1", "novad.files_digest"),
        "no tag novad.files_digest",
    ),
    "code of the run": (
        lambda w: open_client(w).set_tag(_run_id(w), "novad.git_commit", "0" * 40),
        "version 1: tag novad.git_commit of its run differs",
    ),
    "lock of the run": (
        lambda w: open_client(w).delete_tag(_run_id(w), "novad.requirements_lock"),
        "version 1: tag novad.requirements_lock of its run differs",
    ),
    "files tag": (_tag("novad.files_digest"), "tag novad.files_digest"),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_and_named(decided: Workspace, kind: str) -> None:
    before = check(decided, LINE)
    assert (before.events, before.versions, before.problems) == (3, 2, ())
    assert before.files > 20
    tamper, named = TAMPERING[kind]
    tamper(decided)
    assert named in "\n".join(check(decided, LINE).problems)


def test_only_what_was_changed_is_named(decided: Workspace) -> None:
    _append(_model(decided, 2) / "MLmodel")
    assert check(decided, LINE).problems == ("metal version 2: model/MLmodel was changed",)


THRESHOLD = {"fail": 2.0, "review": 1.0, "alpha": 0.1, "before": {"fail": 1.5, "review": 1.0, "alpha": 0.05}}


@pytest.mark.parametrize(
    "edited",
    [
        {"detail": json.dumps(THRESHOLD | {"fail": 3.0}, sort_keys=True, separators=(",", ":"))},
        {"detail": json.dumps(THRESHOLD | {"alpha": 0.2}, sort_keys=True, separators=(",", ":"))},
        {"kind": "refusal"},
        {"version": 2},
        {"actor": "Eve"},
        {"reason": "none"},
        {"at": "2020-01-01T00:00:00.000000+00:00"},
    ],
    ids=["fail", "alpha", "kind", "version", "actor", "reason", "at"],
)
def test_a_threshold_that_was_edited_judges_nothing(decided: Workspace, edited: dict[str, object]) -> None:
    append(decided, LINE, "threshold", actor="Ann", reason="stock", version=1, detail=THRESHOLD)
    assert check(decided, LINE).problems == ()
    with writing(locate(decided)) as connection:
        connection.execute(update(EVENTS).where(EVENTS.c.sequence == 4).values(**edited))
    assert "event 4 was edited" in "\n".join(check(decided, LINE).problems)
    with pytest.raises(IntegrityError, match="event 4 was edited"):
        resolve(decided, LINE)


def _decide(root: str, worker: int, rounds: int) -> None:
    workspace = Workspace(Path(root))
    for turn in range(rounds):
        try:
            if (worker + turn) % 2:
                rollback(workspace, LINE, f"worker {worker}", f"turn {turn}")
            else:
                promote(workspace, LINE, 1 + (worker + turn) // 2 % 2, f"worker {worker}", f"turn {turn}")
        except RefusedError:
            continue


def test_decisions_by_several_processes_leave_one_chain_and_its_alias(decided: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_decide, args=(str(decided.root), each, 8)) for each in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert check(decided, LINE).problems == ()
    chain = history(decided, LINE)
    made = [event for event in chain if event.kind != "refusal"]
    assert len(made) > 3
    assert resolve(decided, LINE).version == made[-1].version
