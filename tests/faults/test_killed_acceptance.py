"""An acceptance that is killed at any step, or that two people start at once: all of it once, or nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from novad.config import Workspace
from novad.errors import ConfigError
from novad.pipeline import accepting
from novad.pipeline.train import validate_line
from verified_line import DATA, Verify

# One process loads DVC once; every acceptance is a child of it, in a copy of the workspace.
PROGRAM = """
import hashlib, json, os, shutil, signal, sys
from pathlib import Path
import dvc.repo, dvc.stage, networkx, pandas
from novad.config import Workspace
from novad.errors import LineBusyError
from novad.images.report import GateReport
from novad.pipeline import accepting
from novad.tracking import history

accepting.run_gate = lambda *_arguments: GateReport((), (), {}, ())
template, steps = Path(sys.argv[1]), sys.argv[2:]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(step):
    name, when = step.removesuffix(", accept").split(":")
    owner = accepting.os if name == "fsync" else accepting
    whole, calls = getattr(owner, name), []

    def killed(*arguments, **named):
        calls.append(name)
        if when == f"before {len(calls)}":
            kill()
        result = whole(*arguments, **named)
        if when == f"after {len(calls)}":
            kill()
        return result

    setattr(owner, name, killed)


def child(act):
    number = os.fork()
    if number == 0:
        try:
            act()
            os._exit(0)
        except LineBusyError:
            os._exit(7)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return number


def ended(number):
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def state(root):
    files = sorted(path for path in (root / "lines").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def accept(workspace):
    accepting.accept_verified(workspace, "plates", "ben", "all")


def killed(workspace, step):
    kill_at(step)
    accept(workspace)


told = {"before": state(template)}
for step in steps:
    workspace = Workspace(shutil.copytree(template, template.parent / "copy"))
    os.environ["NOVAD_WORKSPACE"] = str(workspace.root)
    if step == "twice":
        running = [child(lambda: accept(workspace)) for _ in range(2)]
        codes = sorted(ended(each) for each in running)
    else:
        codes = [ended(child(lambda: killed(workspace, step)))]
        if not step.endswith(", accept"):
            codes.append(ended(child(lambda: accepting.pending_images(workspace, "plates"))))
    seen = state(workspace.root)
    codes.append(ended(child(lambda: accept(workspace))))
    events = [event.kind for event in history(workspace, "plates")]
    left = [str(path) for path in (workspace.state / "accepting").iterdir()]
    after = state(workspace.root)
    told[step] = {"codes": codes, "seen": seen, "after": after, "events": events, "left": left}
    shutil.rmtree(workspace.root)
print(json.dumps(told))
"""
UNDONE = (
    "fsync:before 1",
    "fsync:before 2",
    "_copy_in:after 1",
    "track:after 1",
)
DONE = "append:after 1"
# What the next look takes away, the next acceptance does too.
AT_ONCE = "track:after 1, accept"


@pytest.fixture
def told(plates: Workspace, further_images: Path, verify_image: Verify) -> dict[str, Any]:
    """What a line's data, events and exit codes were after each step."""
    verify_image(further_images / "train/good/012.png", "FAIL", "good")
    verify_image(further_images / "test/dent/002.png", "PASS", "defect", "new")
    command = [sys.executable, "-c", PROGRAM, str(plates.root), *UNDONE, DONE, AT_ONCE, "twice"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["stderr"] = done.stderr
    return answer


def test_a_killed_acceptance_is_undone_or_done_and_two_at_once_are_one(told: dict[str, Any]) -> None:
    before, whole = told["before"], told[DONE]["seen"]
    joined = set(whole) - set(before)
    assert len(joined) == 2
    assert {name for name in before if whole[name] != before[name]} == {f"{DATA}.dvc"}
    for step in UNDONE:
        assert told[step]["codes"] == [-9, 0, 0], (step, told["stderr"])
        assert told[step]["seen"] == before, step
    assert told[DONE]["codes"] == [-9, 0, 0]
    codes = told["twice"]["codes"]
    assert codes[0] == 0, told["stderr"]
    assert set(codes) <= {0, 7}
    assert told["twice"]["seen"] == whole
    assert told[AT_ONCE]["codes"] == [-9, 0]
    for step in (*UNDONE, DONE, AT_ONCE, "twice"):
        assert told[step]["after"] == whole, step
        assert (told[step]["events"], told[step]["left"]) == (["data-accepted"], []), step


def test_the_next_validation_takes_away_what_a_killed_acceptance_left(
    plates: Workspace, further_images: Path
) -> None:
    recorded = (plates.root / f"{DATA}.dvc").read_text()
    left = plates.root / DATA / "test/new/accepted-0123.png"
    left.parent.mkdir()
    shutil.copyfile(further_images / "test/dent/002.png", left)
    note = accepting._note(plates, "plates")
    note.parent.mkdir()
    note.write_text(
        json.dumps(
            {
                "acceptance": "nobody's",
                "files": [left.relative_to(plates.root).as_posix()],
                "folders": [left.parent.relative_to(plates.root).as_posix()],
                "tracked_by": [f"{DATA}.dvc"],
                "recorded": recorded,
            }
        )
    )
    with pytest.raises(ConfigError, match="no stage"):
        validate_line(plates, "plates")
    assert not left.parent.exists()
    assert not note.exists()
