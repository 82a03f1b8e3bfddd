"""What every command promises: help, one JSON document, exit codes, messages that name what is wrong."""

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from PIL import Image

from fake_line import write_outputs
from novad.cli import main
from novad.cli.app import app
from novad.config import Workspace
from novad.errors import RefusedError
from novad.images import discover
from novad.pipeline.graph import stale_stages
from novad.pipeline.locks import line_locks
from novad.serving.keys import KeyRing, Role
from novad.tracking import DATA_ACCEPTED, decisions_on, promote, publish, resolve
from novad.tracking.events import append
from novad.tracking.store import open_client
from novad.vision import Detection, NearestNormal, Thresholds
from tiny_pipeline import MakeTiny, wait_for

Told = tuple[int, str, str]
Novad = Callable[..., Told]
HEAVY = ("torch", "mlflow", "prefect", "dvc", "pandas", "great_expectations")
COMMANDS = (
    "audit", "bench", "data accept", "data pending", "data verdicts", "demo", "deploy", "doctor", "down",
    "export", "gate", "history", "line add", "line list", "monitor", "promote", "reject", "report",
    "rollback", "score", "serve", "status", "threshold", "trace", "train", "up", "validate",
)  # fmt: skip


@pytest.fixture
def novad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Novad:
    """Run a command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, told.out, told.err

    return run


@pytest.fixture
def line(tracked: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Line `metal`, registered as version 1, as the workspace that commands find."""
    monkeypatch.setenv("NOVAD_WORKSPACE", str(tracked.root))
    publish(tracked, "metal")
    return tracked


def _document(told: Told) -> Any:
    return json.loads(told[1])


def test_every_command_is_known_to_these_tests() -> None:
    plain = {each.name for each in app.registered_commands}
    grouped = {
        f"{group.name} {each.name}"
        for group in app.registered_groups
        if group.typer_instance is not None
        for each in group.typer_instance.registered_commands
    }
    assert plain | grouped == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(command: str, novad: Novad) -> None:
    code, out, err = novad(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert len([word for word in out.split() if word[0].isalpha()]) > 15


def test_a_report_is_told_by_path_and_size(line: Workspace, tmp_path: Path, novad: Novad) -> None:
    target = tmp_path / "metal.html"
    document = _document(novad("report", "metal", "-o", target, "--json"))
    assert document == {
        "line": "metal",
        "version": 1,
        "verdict": "Not yet. It passes every gate; nobody has approved it.",
        "path": str(target),
        "bytes": target.stat().st_size,
    }
    code, out, err = novad("report", "metal", "--version", 1, "-o", target)
    assert (code, err) == (0, "")
    assert str(target) in out


def test_a_report_of_nothing_is_refused(
    tracked: Workspace, novad: Novad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOVAD_WORKSPACE", str(tracked.root))
    monkeypatch.chdir(tracked.root)
    before = sorted(tracked.root.iterdir())
    for arguments, told in (
        (("wood",), "lines.wood: no such product line"),
        (("metal",), "metal: no model is registered; run `novad train metal` first"),
        (("metal", "-o", "no/such/place.html"), "--output: "),
    ):
        code, out, err = novad("report", *arguments)
        assert (code, out) == (2, "")
        assert told in err
    assert sorted(tracked.root.iterdir()) == before


def test_help_loads_none_of_the_big_libraries() -> None:
    program = (
        "import sys\nfrom novad.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        f"    print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [("train",), ("frobnicate",), ("score", "metal", "--version", "none")])
def test_wrong_use_exits_2_and_is_told_in_json_too(arguments: tuple[str, ...], novad: Novad) -> None:
    code, out, err = novad(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: novad" in err
    told = novad(*arguments, "--json")
    assert told[0] == 2
    assert _document(told) | {"error": ""} == {"error": "", "kind": "UsageError", "code": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "glass"), ("params.yaml", "lines.glass", "metal")),
        (("score", "metal", "nowhere.png"), ("nowhere.png",)),
        (("trace", "nowhere.png"), ("nowhere.png", "prediction id")),
        (("trace", "f" * 64), ("f" * 64, "no registered version")),
        (("trace", "00000000-0000-4000-8000-000000000000"), ("no such prediction",)),
        (("gate", "metal", "--version", "9"), ("metal", "version 9")),
        (("promote", "metal", "--version", "1", "--approver", " ", "--reason", "why"), ("--approver",)),
        (("rollback", "metal", "--approver", "ada", "--reason", ""), ("--reason",)),
        (
            ("rollback", "metal", "--approver", "a\x1b[2J", "--reason", "why"),
            ("--approver", "cannot be shown"),
        ),
        (
            ("rollback", "metal", "--approver", "ada", "--reason", "r", "--to", f"1{0:020}"),
            ("not registered",),
        ),
        (("audit", "metal", "--at", "last tuesday"), ("--at", "last tuesday")),
        (("audit", "wood"), ("wood",)),
        (("audit", "--adopt", "--verify"), ("--adopt", "--verify")),
        (("audit", "--reason", "why"), ("--reason", "--adopt")),
        (("audit", "--adopt", "--approver", "ada", "--reason", "why"), ("NOVAD_SIGNING_KEY_FILE",)),
        (("threshold", "metal", "--approver", "ada", "--reason", "why"), ("--alpha", "--value")),
        (("history", "glass"), ("params.yaml", "lines.glass")),
    ],
)
def test_errors_name_what_is_wrong(
    arguments: tuple[str, ...], words: tuple[str, ...], novad: Novad, line: Workspace
) -> None:
    code, out, err = novad(*arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words)
    told = novad(*arguments, "--json")
    assert told[0] == 2
    document = _document(told)
    assert set(document) == {"error", "kind", "code"}
    assert all(word in document["error"] for word in words)
    assert (document["kind"], document["code"]) == ("ConfigError", 2)


def test_outside_a_workspace_the_way_back_is_named(
    novad: Novad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOVAD_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    code, _, err = novad("line", "list")
    assert code == 2
    assert str(tmp_path) in err
    assert "NOVAD_WORKSPACE" in err


def test_a_service_that_fails_exits_3(novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("NOVAD_DATABASE_URI", f"sqlite:///{line.root / 'elsewhere.db'}")
    told = novad("gate", "metal", "--version", "1", "--json")
    assert told[0] == 3
    assert (_document(told)["code"], _document(told)["kind"]) == (3, "ServiceError")
    assert "127.0.0.1:9" in _document(told)["error"]


@pytest.mark.parametrize("command", ["history metal", "line list", "audit --verify", "trace " + "f" * 64])
@pytest.mark.parametrize("intact", [0, 100], ids=["all", "all but its header"])
def test_a_damaged_database_exits_3_and_the_file_is_named(
    command: str, intact: int, novad: Novad, tracked: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOVAD_WORKSPACE", str(tracked.root))
    file = tracked.state / "mlflow.db"
    file.write_bytes(file.read_bytes()[:intact] + b"\xa5" * 40_000)
    told = novad(*command.split(), "--json")
    assert (told[0], _document(told)["kind"]) == (3, "ServiceError")
    assert f"{file}" in _document(told)["error"]
    assert "SELECT" not in _document(told)["error"]
    assert "Traceback" not in told[2]


def test_a_fault_of_novad_itself_is_no_refusal_and_still_one_document(
    novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        print("a library talks")
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("novad.tracking.history", broken)
    told = novad("history", "metal", "--json")
    assert told[0] == 2
    assert "no such luck" in _document(told)["error"]
    assert "a library talks" in told[2]
    assert "Traceback" in told[2]


def test_an_interrupt_from_the_keyboard_exits_130(
    novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("novad.tracking.history", interrupted)
    assert novad("history", "metal") == (130, "", "novad: stopped\n")
    told = novad("history", "metal", "--json")
    assert (told[0], _document(told)["code"]) == (130, 130)


def test_a_reader_who_has_seen_enough_is_no_error(line: Workspace) -> None:
    program = "from novad.cli import main; main(['line', 'list', '--json'])"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_gates_promotion_and_history_tell_one_story(novad: Novad, line: Workspace) -> None:
    told = novad("gate", "metal", "--json")
    assert told[0] == 0
    document = _document(told)
    assert (document["line"], document["version"], document["passed"]) == ("metal", 1, True)
    assert {gate["passed"] for gate in document["gates"]} == {True}
    assert novad("history", "metal", "--json")[1].split() == [
        '{"line":',
        '"metal",',
        '"events":',
        "[]",
        "}",
    ] or (_document(novad("history", "metal", "--json"))["events"] == [])
    told = novad(
        "promote", "metal", "--version", 1, "--approver", "ada", "--reason", "good [enough]", "--json"
    )
    assert told[0] == 0
    assert (_document(told)["kind"], _document(told)["actor"]) == ("promotion", "ada")
    [event] = _document(novad("history", "metal", "--json"))["events"]
    assert event == _document(told)
    code, out, _ = novad("history", "metal")
    assert code == 0
    assert "good [enough]" in out
    [row] = _document(novad("line", "list", "--json"))["lines"]
    assert (row["line"], row["champion"], row["newest"], row["next_run"]) == ("metal", 1, 1, None)
    assert row["last_run"] is not None


def test_without_services_status_tells_the_lines_and_deploying_says_what_is_missing(
    novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    told = novad("status", "--json")
    assert (told[0], _document(told)["running"], _document(told)["services"]) == (0, False, [])
    assert [(row["line"], row["newest"]) for row in _document(told)["lines"]] == [("metal", 1)]
    assert novad("status")[1].startswith("`novad up` does not run here.")
    assert (novad("down")[0], _document(novad("down", "--json"))) == (0, {"stopped": None})
    code, _, err = novad("deploy")
    assert (code, "`novad up`" in err, "PREFECT_API_URL" in err) == (3, True, True)
    # A server that is down is no reason not to tell what the files know.
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert [row["newest"] for row in _document(novad("line", "list", "--json"))["lines"]] == [1]


def test_a_named_port_that_is_taken_ends_up_before_anything_starts(novad: Novad, line: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, _, err = novad("up", "--mlflow-port", port)
    assert (code, f"--mlflow-port {port}" in err) == (2, True)
    assert not (line.state / "up.json").exists()


def test_a_rollback_and_what_an_audit_says_of_it(novad: Novad, line: Workspace) -> None:
    decision = ("--approver", "ada", "--reason", "why", "--json")
    refused = novad("rollback", "metal", *decision)
    assert (refused[0], "no champion" in _document(refused)["error"]) == (1, True)
    _, out, _ = novad("history", "metal")
    assert "refusal of rollback" in out
    assert "no champion; there is nothing to roll back" in out
    write_outputs(line, "metal", auroc=0.95, seed=1)
    publish(line, "metal")
    for version in (1, 2):
        assert novad("promote", "metal", "--version", version, *decision)[0] == 0
    told = novad("rollback", "metal", *decision)
    assert (told[0], _document(told)["kind"], _document(told)["version"]) == (0, "rollback", 1)
    promoted = _document(novad("history", "metal", "--json"))["events"][-2]
    [then] = _document(novad("audit", "metal", "--at", promoted["at"], "--json"))["standings"]
    assert (then["decision"]["version"], then["model"]["version"]) == (2, 2)
    code, out, _ = novad("audit", "--verify")
    assert code == 0
    assert "fail 1.5, review 1.25, alpha 0.05" in out
    assert "1 bank" in out
    assert "requirements.lock" in out
    assert "all as recorded" in out
    settings = line.params.read_text()
    line.params.write_text("lines: {}\n")
    assert "metal: 4 events" in novad("audit", "--verify")[1]
    assert novad("audit", "metal")[0] == 0
    line.params.write_text(settings)
    (resolve(line, "metal").folder / "bank.safetensors").write_bytes(b"other")
    broken = novad("audit", "metal", "--verify", "--json")
    assert broken[0] == 1
    assert "bank.safetensors was changed" in "".join(_document(broken)["checked"]["metal"]["problems"])


@pytest.mark.parametrize("garbage", ["reason = x'c3'", "line = 'o''brien'", "line = x'c3'"])
def test_garbage_in_the_log_of_one_line_hides_no_other(garbage: str, novad: Novad, line: Workspace) -> None:
    for name in ("fabric", "metal"):
        append(line, name, "note", actor="ada", reason="why")
    with closing(sqlite3.connect(line.state / "mlflow.db")) as connection, connection:
        connection.execute(f"UPDATE novad_events SET {garbage} WHERE line = 'fabric'")  # noqa: S608
    told = novad("audit", "--verify", "--json")
    checked = _document(told)["checked"]
    assert (told[0], checked["metal"]["problems"]) == (1, [])
    assert "fabric: " in "".join(checked["fabric"]["problems"])


def test_signing_is_switched_on_for_a_line_with_a_history_by_name_and_reason(
    novad: Novad, line: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = ("--approver", "ada", "--reason", "why", "--json")
    write_outputs(line, "metal", auroc=0.95, seed=1)
    publish(line, "metal")
    assert novad("promote", "metal", "--version", 1, *decision)[0] == 0
    file = tmp_path / "key.pem"
    private = Ed25519PrivateKey.generate()
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    monkeypatch.setenv("NOVAD_SIGNING_KEY_FILE", str(file))
    refused = novad("promote", "metal", "--version", 2, *decision)
    assert refused[0] == 1
    assert "`novad audit metal --adopt --approver WHO --reason WHY`" in _document(refused)["error"]
    found = novad("audit", "--verify", "--json")
    assert (found[0], len(_document(found)["checked"]["metal"]["problems"])) == (1, 1)
    code, out, _ = novad("audit", "--adopt", "--approver", "ada", "--reason", "never signed")
    assert (code, "metal: signed from event 2 on, approved by ada" in out) == (0, True)
    assert novad("promote", "metal", "--version", 2, *decision)[0] == 0
    assert novad("audit", "--verify")[0] == 0
    assert _document(novad("audit", "--adopt", *decision)) == {"adopted": []}
    told = _document(novad("history", "metal", "--json"))["events"]
    assert [event["kind"] for event in told] == ["promotion", "key-adopted", "promotion"]


def test_a_rejection_is_on_record_and_does_not_touch_the_champion(novad: Novad, line: Workspace) -> None:
    told = novad("reject", "metal", "--version", 1, "--approver", "ada", "--reason", "blurred")
    assert told[0] == 0
    assert "metal: version 1 is rejected by ada" in told[1]
    [event] = _document(novad("history", "metal", "--json"))["events"]
    assert (event["kind"], event["version"], event["actor"], event["reason"]) == (
        "rejection", 1, "ada", "blurred",
    )  # fmt: skip
    decision = ("--approver", "ada", "--reason", "why", "--json")
    assert novad("promote", "metal", "--version", 1, *decision)[0] == 0
    refused = novad("reject", "metal", "--version", 1, *decision)
    assert (refused[0], "roll it back instead" in _document(refused)["error"]) == (1, True)
    assert resolve(line, "metal").version == 1


def test_a_refused_promotion_exits_1_and_names_the_gate(novad: Novad, line: Workspace) -> None:
    policy = line.root / "mlflow"
    text = (policy / "gates.yaml").read_text("utf-8")
    policy.unlink()
    policy.mkdir()
    assert "hybrid_auroc: {min: 0.6}" in text
    (policy / "gates.yaml").write_text(
        text.replace("hybrid_auroc: {min: 0.6}", "hybrid_auroc: {min: 0.99}"), "utf-8"
    )
    assert novad("gate", "metal")[0] == 1
    arguments = ("promote", "metal", "--version", 1, "--approver", "ada", "--reason", "why", "--json")
    told = novad(*arguments)
    assert told[0] == 1
    assert "hybrid_auroc" in _document(told)["error"]
    assert (_document(told)["kind"], _document(told)["code"]) == ("RefusedError", 1)
    _, out, _ = novad("history", "metal")
    assert "refusal" in out
    assert "hybrid_auroc" in out


def test_tables_end_by_saying_where_to_look(novad: Novad, line: Workspace) -> None:
    for arguments in (("gate", "metal"), ("history", "metal"), ("line", "list")):
        _, out, _ = novad(*arguments)
        assert f"mlflow ui --backend-store-uri sqlite:///{line.state / 'mlflow.db'}" in out


def test_training_tells_what_ran_and_then_that_nothing_did(
    novad: Novad, make_tiny: MakeTiny, prefect_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("metal", "fabric")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    (workspace.root / "input/fabric").write_text("memory_bank: refuse")
    empty = {"check": "readable_image", "severity": "left out", "images": ["a.png"], "message": "is empty"}
    report = json.dumps({"errors": [], "warnings": [], "left_out": [empty]})
    (workspace.root / "template/metal/validate/report.json").write_text(report)
    told = novad("train", "metal", "fabric", "--json")
    assert told[0] == 1
    document = _document(told)
    metal, fabric = document["lines"]
    # As the copied line tells.
    assert metal["warning"].startswith("15 good parts set the threshold and promise at most 0.062 ")
    assert (metal["line"], metal["version"], metal["error"], metal["unchanged"]) == ("metal", 1, None, False)
    assert len(metal["ran"]) == 5
    assert metal["left_out"] == [empty]
    assert metal["scores"]["hybrid"] == {"image_auroc": 0.93, "fnr_at_fpr_05": 0.2}
    assert (fabric["version"], fabric["scores"], fabric["code"]) == (None, None, 1)
    assert "part-07.png is empty" in fabric["error"]
    assert (document["code"], document["error"]) == (1, fabric["error"])

    code, out, _ = novad("train", "metal")
    assert code == 0
    assert "Nothing to do" in out
    assert "0.930" in out
    assert "metal: left out readable_image: a.png: is empty" in out
    assert str(workspace.artifacts("metal", "evaluate") / "heatmaps") in out


def test_only_lines_with_a_cause_are_trained_if_due_and_each_cause_once(
    novad: Novad, make_tiny: MakeTiny, prefect_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("fabric", "metal")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    workspace.params.write_text(workspace.params.read_text() + "    retrain: {verified_images: 1}\n")
    shutil.copytree(workspace.root / "template", workspace.root / "artifacts")
    publish(workspace, "metal")
    promote(workspace, "metal", 1, "ada", "first")
    image = {"sha256": "ab" * 32, "path": "train/good/ab.png", "prediction_id": "p"}
    detail = {"data": {"before": "old", "after": "new"}, "images": [image]}
    append(workspace, "metal", DATA_ACCEPTED, actor="ben", reason="looked", detail=detail)

    (workspace.root / "input/metal").write_text("memory_bank: refuse")
    code, out, _ = novad("train", "metal", "fabric", "--if-due", "--json")
    assert (code, _document((code, out, ""))["not_due"]) == (1, ["fabric"])
    (workspace.root / "input/metal").write_text("as usual")
    document = _document(novad("train", "metal", "fabric", "--if-due", "--json"))
    [row], reason = document["lines"], "1 verified image since version 1"
    assert (row["line"], row["version"], row["reason"]) == ("metal", 2, reason)
    run = open_client(workspace).get_run(row["run_id"])
    assert run.data.tags["novad.reason"] == reason
    told = novad("train", "metal", "fabric", "--if-due", "--json")
    assert (told[0], _document(told)) == (0, {"lines": [], "not_due": ["metal", "fabric"]})
    _, out, _ = novad("train", "fabric", "--if-due")
    assert "fabric: not due: no cause of lines.fabric.retrain holds anew" in out
    assert novad("train", "glass", "--if-due")[0] == 2


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_ctrl_c_in_a_training_stops_its_stages_and_exits_130(
    make_tiny: MakeTiny, prefect_server: Path, shell: str
) -> None:
    """DVC starts a stage through the user's shell, and some shells stay between the two."""
    workspace = make_tiny("metal")
    hold, started = (workspace.root / f"{word}-memory_bank-metal" for word in ("hold", "started"))
    hold.touch()
    command = [sys.executable, "-c", "from novad.cli import main; main(['train', 'metal', '--json'])"]
    with subprocess.Popen(
        command,
        env={**os.environ, "NOVAD_WORKSPACE": str(workspace.root), "SHELL": shell},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        wait_for(lambda: started.exists() or training.poll() is not None)
        children = psutil.Process(training.pid).children(recursive=True)
        training.send_signal(signal.SIGINT)
        try:
            out, err = training.communicate(timeout=60)
        finally:
            training.kill()
    assert (training.returncode, json.loads(out)["code"]) == (130, 130), err
    assert len(children) >= 2
    assert psutil.wait_procs(children, 20)[1] == []
    with line_locks(workspace, ["metal"]):
        assert stale_stages(workspace, ["metal"])[0] == "memory_bank@metal"


class FakeDetector:
    """Judges an image by its brightness; counts how many it holds at once."""

    digest = "ab" * 32
    thresholds = Thresholds(
        fail=0.5, review=0.25, alpha=0.05, map={"familiarity": 0.5, "novelty": 0.5, "hybrid": 0.5}
    )

    def score(self, images: Any, batch_size: int = 8) -> Any:
        for image in images:
            value = float(image.mean()) / 255
            height, width = image.shape[:2]
            yield Detection(
                familiarity=value,
                novelty=value / 2,
                hybrid=value,
                p_value=1 - value,
                decision=self.thresholds.decide(value),
                nearest=NearestNormal("train/good/7.png", "cd" * 32, 1, 2, 0.25),
                size=(height, width),
                coarse_maps={
                    kind: np.full((4, 4), value, np.float32) for kind in ("familiarity", "novelty", "hybrid")
                },
            )


@pytest.fixture
def parts(line: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of parts in two folders, one name in both, and one that is broken."""
    monkeypatch.setattr("novad.tracking.ResolvedModel.load", lambda _: FakeDetector())
    folder = tmp_path / "parts"
    for place, brightness in (("a/one.png", 10), ("a/two [bold].png", 90), ("b/one.png", 250)):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 24, 3), brightness, np.uint8)).save(folder / place)
    return folder


def test_scoring_judges_every_image_and_draws_each_into_a_file_of_its_own(
    novad: Novad, parts: Path, tmp_path: Path
) -> None:
    told = novad(
        "score",
        "metal",
        parts / "a",
        parts / "b",
        parts / "a/one.png",
        "--heatmaps",
        tmp_path / "h",
        "--json",
    )
    assert told[0] == 0
    assert "no champion" in told[2]
    document = _document(told)
    assert (document["version"], document["alias"], document["unreadable"]) == (1, "challenger", [])
    rows = document["images"]
    assert [Path(row["path"]).relative_to(parts).as_posix() for row in rows] == [
        "a/one.png", "a/two [bold].png", "b/one.png",
    ]  # fmt: skip
    assert [row["decision"] for row in rows] == ["PASS", "REVIEW", "FAIL"]
    assert {
        "path",
        "sha256",
        "prediction_id",
        "familiarity",
        "novelty",
        "hybrid",
        "p_value",
        "decision",
        "nearest",
        "heatmap",
    } == set(rows[0])
    assert rows[0]["nearest"]["image"] == "train/good/7.png"
    assert len({row["heatmap"] for row in rows}) == 3
    sizes = [Image.open(row["heatmap"]).size for row in rows]
    assert all(width > 3 * height / 2 for width, height in sizes)


def test_every_decision_is_logged_unless_told_not_to(novad: Novad, parts: Path, line: Workspace) -> None:
    code, out, _ = novad("score", "metal", parts, "--no-log", "--json")
    assert code == 0
    unlogged = json.loads(out)["images"]
    assert [row["prediction_id"] for row in unlogged] == [None] * 3
    assert decisions_on(line, unlogged[0]["sha256"]) == []
    for row in _document(novad("score", "metal", parts, "--json"))["images"]:
        [decision] = decisions_on(line, row["sha256"])
        assert decision.prediction_id == row["prediction_id"]
        assert decision.image_sha256 == hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest()
        assert (decision.line, decision.version, decision.source) == ("metal", 1, row["path"])
        assert (decision.decision, decision.nearest_sha256) == (row["decision"], "cd" * 32)
        assert decision.hybrid == pytest.approx(row["hybrid"], abs=1e-6)
        assert (decision.latency_ms > 0, decision.shadow) == (True, False)


def test_a_prediction_and_an_image_lead_to_each_other(novad: Novad, parts: Path, line: Workspace) -> None:
    arguments = ("--version", 1, "--approver", "ada", "--reason", "good")
    assert novad("promote", "metal", *arguments)[0] == 0
    [row] = _document(novad("score", "metal", parts / "b/one.png", "--json"))["images"]
    told = _document(novad("trace", row["prediction_id"], "--json"))
    assert (told["kind"], told["prediction"]["decision"], told["approval"]["approver"]) == (
        "prediction", "FAIL", "ada",
    )  # fmt: skip
    for what in (parts / "b/one.png", row["sha256"]):
        told = _document(novad("trace", what, "--json"))
        assert (told["kind"], told["versions"]) == ("image", [])
        assert [each["prediction_id"] for each in told["decisions"]] == [row["prediction_id"]]
    _, out, _ = novad("trace", row["prediction_id"])
    assert all(word in out for word in ("metal version 1", "ada", "train/good/7.png", "data/metal"))
    _, out, _ = novad("trace", "0" * 64)
    assert all(word in out for word in ("metal", "bank", "good/0.png"))


def test_keys_are_made_on_demand_and_nobody_is_let_in_without(novad: Novad, line: Workspace) -> None:
    keys = line.state / "serve" / "keys.json"
    code, _, err = novad("serve", "--host", "0.0.0.0", "--port", 0)  # noqa: S104 - must be refused
    assert (code, keys.exists()) == (2, False)
    assert "--new-key" in err
    told = _document(novad("serve", "--new-key", "review", "--json"))
    assert (told["role"], told["keys"]) == ("review", str(keys))
    assert KeyRing(keys).role(told["key"]) is Role.REVIEW
    _, out, err = novad("serve", "--new-key", "score")
    assert KeyRing(keys).role(err.split()[-1]) is Role.SCORE
    assert out == ""
    assert "--new-key" in novad("serve", "--new-key", "root")[2]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = novad("serve", "--port", taken.getsockname()[1])
    assert (code, "--port" in err) == (2, True)


def test_scores_for_people_name_the_images_as_they_are_called(novad: Novad, parts: Path) -> None:
    relative = os.path.relpath(parts / "b")
    code, out, _ = novad("score", "metal", parts / "a", relative)
    assert code == 0
    assert f"Images in {parts}\n" in out
    assert "a/two [bold].png" in out
    assert "b/one.png" in out
    assert "1 PASS, 1 REVIEW, 1 FAIL" in out


def test_a_name_that_is_no_text_is_printed_where_only_text_may_be(novad: Novad, parts: Path) -> None:
    """Decisions are in the log by then; the answer must not be lost."""
    name = "caf\udce9.png"
    (parts / "a").rename(parts / "odd")
    next((parts / "odd").iterdir()).rename(parts / "odd" / name)
    told = novad("score", "metal", parts / "odd", "--json")
    assert name in [Path(row["path"]).name for row in _document(told)["images"]]
    code, out, _ = novad("score", "metal", parts / "odd")
    assert code == 0
    assert "caf\\udce9.png" in out


def test_an_unreadable_image_is_named_and_the_others_are_judged(novad: Novad, parts: Path) -> None:
    (parts / "a/torn.png").write_bytes((parts / "a/one.png").read_bytes()[:60])
    told = novad("score", "metal", parts, "--json")
    assert told[0] == 2
    document = _document(told)
    assert [row["decision"] for row in document["images"]] == ["PASS", "REVIEW", "FAIL"]
    [unreadable] = document["unreadable"]
    assert unreadable["path"] == str(parts / "a/torn.png")
    assert "torn.png" in document["error"]
    assert document["code"] == 2
    code, out, err = novad("score", "metal", parts)
    assert code == 2
    assert "1 unreadable" in out
    assert "torn.png" in err


def test_every_file_of_a_folder_is_judged_or_named_whatever_its_name_ends_in(
    novad: Novad, parts: Path
) -> None:
    """What the data gate would take is judged; what it would refuse is named."""
    image = Image.fromarray(np.full((16, 24, 3), 10, np.uint8))
    kinds = {"1.pgm": "PPM", "2.jp2": "JPEG2000", "3.jpe": "JPEG", "4": "PNG", "deep/5.TIF": "TIFF"}
    folder = parts / "kinds/normal"
    (folder / "deep").mkdir(parents=True)
    for name, kind in kinds.items():
        image.save(folder / name, kind)
    assert [each.path for each in discover(parts / "kinds", "folder")] == [f"normal/{name}" for name in kinds]
    (folder / "labels.csv").write_text("part,label")
    (folder / "linked").symlink_to(parts / "a")
    for name in ("Thumbs.db", ".hidden.png", ".cache/one.png", "deep/._5.TIF"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no image")
    told = novad("score", "metal", folder, "--json")
    assert told[0] == 2
    document = _document(told)
    assert [Path(row["path"]).relative_to(folder).as_posix() for row in document["images"]] == [*kinds]
    assert [Path(each["path"]).name for each in document["unreadable"]] == ["labels.csv", "linked"]


def test_images_of_another_size_than_the_versions_own_are_told_once(novad: Novad, parts: Path) -> None:
    code, _, err = novad("score", "metal", parts)
    assert (code, "images are not" in err) == (0, False)
    for name in ("c.png", "d.png"):
        Image.new("RGB", (16, 24)).save(parts / "b" / name)
    code, _, err = novad("score", "metal", parts)
    assert (code, err.count("16x24")) == (0, 1)
    assert "2 of 5 images are not 24x16" in err
    assert f"{parts}/b/c.png (16x24)" in err


def test_a_version_of_several_sizes_has_no_other_and_one_without_its_record_says_so(
    novad: Novad, parts: Path, line: Workspace
) -> None:
    manifest = line.artifacts("metal", "validate") / "manifest.parquet"
    rows = pd.read_parquet(manifest)
    pd.concat([rows, rows.assign(width=30)]).to_parquet(manifest)
    publish(line, "metal")
    Image.new("RGB", (16, 24)).save(parts / "c.png")
    code, _, err = novad("score", "metal", parts, "--version", 2)
    assert (code, err) == (0, "")
    for record in line.state.rglob("validate/manifest.parquet"):
        record.write_bytes(b"")
    code, out, err = novad("score", "metal", parts, "--version", 2)
    assert (code, "1 PASS" in out or "2 PASS" in out) == (0, True)
    assert "size of the version's own is not known" in err


def test_an_overlay_that_cannot_be_written_is_named_and_no_judgement_is_lost(
    novad: Novad, parts: Path, line: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Image.Image.save

    def full(picture: Image.Image, target: Path) -> None:
        if target.name.startswith("two"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(picture, target)

    monkeypatch.setattr(Image.Image, "save", full)
    told = novad("score", "metal", parts, "--heatmaps", tmp_path / "h", "--json")
    document = _document(told)
    assert (told[0], document["code"], document["unreadable"]) == (2, 2, [])
    assert [row["decision"] for row in document["images"]] == ["PASS", "REVIEW", "FAIL"]
    assert [row["heatmap"] is None for row in document["images"]] == [False, True, False]
    assert all(len(decisions_on(line, row["sha256"])) == 1 for row in document["images"])
    [undrawn] = document["undrawn"]
    assert undrawn["path"] == str(parts / "a/two [bold].png")
    assert "No space left" in document["error"]
    code, out, err = novad("score", "metal", parts, "--heatmaps", tmp_path / "h")
    assert (code, "1 PASS, 1 REVIEW, 1 FAIL, 1 without its overlay" in out) == (2, True)
    assert f"{parts}/a/two [bold].png: " in err


def test_overlays_of_an_earlier_run_are_not_judged(novad: Novad, parts: Path) -> None:
    maps = parts / "maps"
    first = novad("score", "metal", parts, "--heatmaps", maps, "--json")
    again = novad("score", "metal", parts, maps, "--heatmaps", parts / "a/../maps", "--json")
    judged = [[row["path"] for row in _document(told)["images"]] for told in (first, again)]
    assert judged[0] == judged[1]
    assert len(judged[0]) == len(list(maps.iterdir())) == 3
    assert "left out" not in first[2]
    assert "left out: 3 files in" in again[2]


def test_beside_the_overlays_only_what_is_named_is_judged(novad: Novad, parts: Path) -> None:
    code, _, err = novad("score", "metal", parts / "a", "--heatmaps", parts / "a")
    assert (code, "--heatmaps" in err) == (2, True)
    told = novad("score", "metal", parts / "a/one.png", "--heatmaps", parts / "a", "--json")
    assert [row["decision"] for row in _document(told)["images"]] == ["PASS"]
    told = novad("score", "metal", parts / "b", "--heatmaps", parts, "--json")
    assert [row["decision"] for row in _document(told)["images"]] == ["FAIL"]


def test_a_folder_without_images_and_a_heatmap_folder_that_is_a_file_are_refused(
    novad: Novad, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: no image" in novad("score", "metal", tmp_path / "empty")[2]
    told = novad("score", "metal", parts, "--heatmaps", parts / "a/one.png")
    assert told[0] == 2
    assert "--heatmaps" in told[2]


def test_a_model_that_was_tampered_with_is_refused(novad: Novad, parts: Path, line: Workspace) -> None:
    [bank] = line.state.rglob("detector/bank.safetensors")
    bank.write_bytes(bank.read_bytes()[:-1] + b"x")
    told = novad("score", "metal", parts, "--json")
    assert (told[0], _document(told)["kind"]) == (1, "IntegrityError")


def test_exit_from_a_command_keeps_its_status(novad: Novad, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None:
        raise typer.Exit(3)

    monkeypatch.setattr("novad.config.Workspace.find", leave)
    assert novad("line", "list")[0] == 3


def test_a_refused_data_gate_gives_its_findings_by_image(
    novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = line.state / "refused/metal/report.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"passed": false, "errors": [{"images": ["train/good/old.png"]}]}')
    os.utime(kept, (1, 1))

    def refuse(*_: object) -> bool:
        raise RefusedError("train/good/7.png: the file is empty")

    monkeypatch.setattr("novad.pipeline.train.validate_line", refuse)
    told = novad("validate", "metal", "--json")
    assert told[0] == 1
    assert set(_document(told)) == {"error", "kind", "code"}

    def refuse_and_report(*_: object) -> bool:
        kept.write_text('{"passed": false, "errors": [{"images": ["train/good/7.png"]}]}')
        return refuse()

    monkeypatch.setattr("novad.pipeline.train.validate_line", refuse_and_report)
    document = _document(novad("validate", "metal", "--json"))
    assert (document["code"], document["line"], document["passed"]) == (1, "metal", False)
    assert document["errors"][0]["images"] == ["train/good/7.png"]
    code, _, err = novad("validate", "metal")
    assert code == 1
    assert "train/good/7.png" in err


def test_doctor_names_a_bad_pair_a_missing_package_and_damaged_weights(
    novad: Novad, line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from novad.cli.doctor import check_pairs, check_requirements

    [bad] = check_pairs({"prefect": "3.8.8", "fastapi": "0.155.1"})
    assert not bad.well
    assert "fastapi" in bad.mend
    good = {"prefect": "3.8.8", "fastapi": "0.150.0", "sqlalchemy": "2.0.58"}
    assert [check.well for check in check_pairs(good)] == [True, True]
    assert [check.well for check in check_pairs(good | {"sqlalchemy": "2.1.9"})] == [True, False]
    wanted = ["numpy<3,>=2", "torch>=2.9", "faiss-cpu", 'ruff; extra == "dev"']
    found = {
        check.name: check.well
        for check in check_requirements(wanted, {"numpy": "1.26", "torch": "2.15.0+cpu"})
    }
    assert found == {"numpy": False, "torch": True, "faiss-cpu": False}

    monkeypatch.setenv("NOVAD_DEVICE", "abacus")
    told = novad("doctor", "--json")
    assert told[0] == 1
    checks = {check["name"]: check for check in _document(told)["checks"]}
    weights = checks["weights src/novad/vision/weights/novad-bcos.safetensors"]
    assert not weights["well"]
    assert "metal" in weights["found"]
    assert weights["mend"] != ""
    assert not checks["dvc set up"]["well"]
    assert checks["mlflow store"]["well"]
    assert checks["write access"]["well"]
    assert checks["torch with torchvision"]["well"]
    assert not checks["scoring device"]["well"]
    assert "abacus" in checks["scoring device"]["found"]
    code, out, _ = novad("doctor")
    assert code == 1
    assert f"Mend: {weights['mend']}" in out
