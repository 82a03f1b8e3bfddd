"""Training: what runs, what does not, and how a line's failure is told."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from novad.config import Workspace
from novad.errors import ConfigError, LineBusyError, RefusedError, ServiceError
from novad.pipeline.locks import line_locks
from novad.pipeline.reproduce import STAGE_THREADS
from novad.pipeline.train import LineResult, train_lines, validate_line
from novad.tracking import resolve
from novad.tracking.digests import STAGES
from novad.tracking.store import open_client
from tiny_pipeline import MakeTiny, prefect_tables, train_process, wait_for

UNCHANGED = """
import sys
from pathlib import Path
from novad.config import Workspace
from novad.pipeline.train import train_lines
[result] = train_lines(Workspace(Path(sys.argv[1])), ["metal"])
print(result.unchanged, result.version, sorted({"prefect", "mlflow", "torch"} & set(sys.modules)))
"""


def _train(workspace: Workspace, *lines: str, force: bool = False) -> list[LineResult]:
    return train_lines(workspace, list(lines), force)


@pytest.mark.usefixtures("prefect_server")
def test_only_what_changed_runs_and_equal_results_are_one_version(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    [first] = _train(workspace, "metal")
    assert first.ran == [f"{stage}@metal" for stage in STAGES]
    assert (first.version, first.error, first.unchanged) == (1, None, False)
    assert first.run_id is not None
    tags = open_client(workspace).get_run(first.run_id).data.tags
    assert len(tags["novad.prefect_flow_run"]) == 36
    assert "input/metal" in tags["novad.dvc.validate"]

    (workspace.root / "input/metal").write_text("another batch of parts")
    [second] = _train(workspace, "metal")
    assert (second.ran, second.version) == (first.ran, 2)
    told = subprocess.run(
        [sys.executable, "-c", UNCHANGED, str(workspace.root)], capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[0] == "True 2 []"

    (workspace.root / "input/metal").write_text("as usual")
    [third] = _train(workspace, "metal", force=True)
    assert (third.ran, third.version) == (first.ran, 1)


@pytest.mark.usefixtures("prefect_server")
def test_one_lines_failure_does_not_stop_the_others(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    workspace = make_tiny("metal", "fabric", "board", "glass")
    for line, order in (
        ("metal", "validate: refuse"),
        ("fabric", "memory_bank: wrong"),
        ("board", "evaluate: crash"),
    ):
        (workspace.root / "input" / line).write_text(order)
    results = {result.line: result for result in _train(workspace, "metal", "fabric", "board", "glass")}
    assert type(results["metal"].error) is RefusedError
    assert "part-07.png is empty" in str(results["metal"].error)
    assert results["metal"].ran == []
    assert type(results["fabric"].error) is ConfigError
    assert "params.yaml: lines: wrong" in str(results["fabric"].error)
    assert results["fabric"].ran == ["validate@fabric"]
    assert type(results["board"].error) is ServiceError
    assert "ZeroDivisionError: no such luck" in str(results["board"].error)
    assert str(workspace.state / "logs/evaluate-board.log") in str(results["board"].error)
    assert results["glass"].error is None
    assert [resolve(workspace, "glass").version, results["glass"].version] == [1, 1]
    assert all(results[line].version is None for line in ("metal", "fabric", "board"))
    # A stage sums with as many threads beside three other lines as alone, or its bytes would differ.
    assert {path.read_text() for path in workspace.root.glob("started-*")} == {str(STAGE_THREADS)}


@pytest.mark.usefixtures("prefect_server")
def test_an_input_that_changes_under_a_training_is_not_published(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    hold = workspace.root / "hold-evaluate-metal"
    hold.touch()
    training = train_process(workspace, "metal")
    wait_for(lambda: (workspace.root / "started-evaluate-metal").exists() or training.poll() is not None)
    (workspace.root / "input/metal").write_text("too late")
    hold.unlink()
    out, err = training.communicate(timeout=120)
    assert training.returncode == 3, out + err
    row = json.loads(out)
    assert "changed while it was training" in row["error"]
    assert row["version"] is None


def test_lines_trained_by_two_processes_at_once_are_both_published(
    make_tiny: MakeTiny, empty_prefect: Path
) -> None:
    workspace = make_tiny("metal", "fabric")
    databases = prefect_tables(workspace, empty_prefect, "0", "1")
    both = [train_process(workspace, line) for line in ("metal", "fabric")]
    for training in both:
        out, err = training.communicate(timeout=200)
        assert training.returncode == 0, out + err
    for line in ("metal", "fabric"):
        assert resolve(workspace, line).version == 1
    assert [result.unchanged for result in _train(workspace, "metal", "fabric")] == [True, True]
    # A server of its own each, because SQLite takes one writing server.
    for database in databases:
        with sqlite3.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM flow_run").fetchone() == (1,)


def test_a_line_that_another_run_holds_is_refused_by_the_name_of_its_process(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    with line_locks(workspace, ["metal"]):
        with pytest.raises(LineBusyError, match=f"process {os.getpid()} since 20"):
            _train(workspace, "metal")
        with pytest.raises(LineBusyError):
            validate_line(workspace, "metal")


def test_the_data_gate_alone_says_whether_it_ran(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    assert validate_line(workspace, "metal")
    assert not validate_line(workspace, "metal")
    (workspace.root / "input/metal").write_text("validate: refuse")
    with pytest.raises(RefusedError, match=r"part-07\.png is empty"):
        validate_line(workspace, "metal")


def test_an_unknown_line_is_wrong_use_before_anything_starts(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    with pytest.raises(ConfigError, match=r"lines\.cups: no such product line"):
        _train(workspace, "metal", "cups")
    assert not (workspace.state / "locks").exists()


def test_a_workspace_without_the_flow_says_so(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    (workspace.root / "flows").unlink()
    with pytest.raises(ConfigError, match=r"flows/train\.py: this flow is missing"):
        _train(workspace, "metal")


def test_images_that_are_not_there_are_named_before_anything_runs(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    (workspace.root / "data/metal").rmdir()
    for work in (lambda: train_lines(workspace, ["metal"]), lambda: validate_line(workspace, "metal")):
        with pytest.raises(ConfigError, match="data/metal: the images of metal are missing"):
            work()
    assert not (workspace.state / "logs").exists()
