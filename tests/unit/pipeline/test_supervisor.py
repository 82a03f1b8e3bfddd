"""`novad up` with children that are web servers of one line: started, watched, restarted, ended in order."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from novad.config import Workspace
from novad.errors import ConfigError, ServiceError
from novad.pipeline.loopback import answers, listener
from novad.pipeline.services import Ports, plan
from novad.pipeline.supervisor import bring_down
from novad.serving.keys import Role, add_key
from novad.tracking.services import RunningServices, find_services
from tiny_pipeline import wait_for

# Each child tells in the file `told` when it is asked to end; one of them ignores that.
CHILD = """
import http.server, signal, sys
name, port = sys.argv[1], int(sys.argv[2])
def end(*_):
    with open("told", "a") as told: told.write(name + " ")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

UP = """
import os, sys
from pathlib import Path
from novad.config import Workspace
from novad.errors import NovadError, ServiceError, exit_code
from novad.pipeline import child as children, supervisor
from novad.pipeline.loopback import free_port
from novad.pipeline.services import Ports, Service
workspace, child, names = Workspace(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
environment = {**os.environ, "NOVAD_WORKSPACE": str(workspace.root)}
taken = iter(os.environ.get("TAKEN", "").split())
def service(name):
    port = int(next(taken, 0)) or free_port()
    command = [sys.executable, "-c", child, name, str(port)]
    return Service(name, command, port, "/", workspace.state / f"logs/{name}.log", environment)
supervisor.plan = lambda *_, **__: [service(name) for name in names]
supervisor.create_store = lambda _: None
def prepare(_):
    if workspace.path("outage").exists():
        raise ServiceError("Prefect does not answer")
supervisor._Run._prepare_worker, supervisor._Run._close_runs = prepare, lambda _: None
supervisor._BACK_OFF, supervisor._PUT_OFF = 0.01, 0.1
children._ASK = float(os.environ.get("ASK", children._ASK))
try:
    tell = lambda text: print(text, flush=True)
    supervisor.run_services(workspace, Ports(), lambda _: tell("ready"), tell)
except NovadError as error:
    print(error)
    sys.exit(exit_code(error))
"""

# Answers only while nothing is the matter with it.
FAULTY = CHILD.replace(
    "http.server.HTTPServer",
    """
import os
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503) if name == "serve" and os.path.exists("faulty") else super().do_GET()
http.server.SimpleHTTPRequestHandler = Handler
http.server.HTTPServer""",
)

NAMES = ("prefect", "mlflow", "worker", "serve")


@contextmanager
def _up(root: Path, child: str = CHILD, names: tuple[str, ...] = NAMES) -> Iterator["subprocess.Popen[str]"]:
    keys = root / ".novad/serve/keys.json"
    if not keys.exists():
        add_key(keys, Role.ADMIN)
    command = [sys.executable, "-c", UP, str(root), child, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _says(process: "subprocess.Popen[str]", beginning: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(beginning), line
    return line


def _running(workspace: Workspace) -> RunningServices:
    """What the note says that runs; there must be one."""
    running = find_services(workspace)
    assert running is not None
    return running


def _gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_down_ends_the_children_last_started_first_and_frees_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert bring_down(workspace) is None
    with _up(tmp_path) as up:
        _says(up, "ready")
        running = _running(workspace)
        assert running.pid == up.pid
        assert [service.name for service in running.services] == list(NAMES)
        assert all(answers(service.health) for service in running.services)
        with _up(tmp_path) as second:
            assert f"already (process {up.pid} since 20" in _says(second, str(tmp_path))
            assert second.wait() == 1
        assert bring_down(workspace) == running
        assert up.wait() == 0
        assert find_services(workspace) is None
        assert (tmp_path / "told").read_text().split() == list(reversed(NAMES))
        assert _gone([service.pid for service in running.services])
    with _up(tmp_path) as again:
        _says(again, "ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_of_the_terminal_ends_all_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with _up(tmp_path, names=("prefect", "serve")) as up:
        _says(up, "ready")
        up.send_signal(number)
        assert up.wait() == 0
    assert (tmp_path / "told").read_text().split() == ["serve", "prefect"]


def test_a_kill_leaves_no_child_and_no_claim(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _up(tmp_path) as up:
        _says(up, "ready")
        running = _running(workspace)
        up.kill()
        up.wait()
        wait_for(lambda: _gone([service.pid for service in running.services]), 10)
    assert find_services(workspace) is None
    assert bring_down(workspace) is None
    assert not (tmp_path / "told").exists()


def test_down_does_not_touch_a_process_that_got_the_number_of_a_dead_one(tmp_path: Path) -> None:
    (tmp_path / ".novad").mkdir()
    (tmp_path / ".novad/up.lock").touch()
    stranger = {"pid": os.getpid(), "since": "yesterday", "services": []}
    (tmp_path / ".novad/up.json").write_text(json.dumps(stranger))
    assert bring_down(Workspace(tmp_path)) is None


def test_a_child_that_dies_is_started_again_and_its_new_number_is_noted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _up(tmp_path) as up:
        _says(up, "ready")
        before = _running(workspace)
        os.kill(before.services[1].pid, signal.SIGKILL)
        _says(up, "mlflow ended (status -9) and is started again")
        wait_for(lambda: find_services(workspace) != before, 20)
        after = _running(workspace)
        assert answers(after.services[1].health)
        same = [(old.pid == new.pid) for old, new in zip(before.services, after.services, strict=True)]
        assert same == [True, False, True, True]


def test_a_child_that_lives_and_does_not_answer_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASK", "0.1")
    workspace = Workspace(tmp_path)
    with _up(tmp_path, FAULTY, ("prefect", "serve")) as up:
        _says(up, "ready")
        before = _running(workspace)
        (tmp_path / "faulty").touch()
        _says(up, "serve does not answer and is ended; see")
        (tmp_path / "faulty").unlink()
        _says(up, "serve ended (status 0) and is started again")
        wait_for(lambda: find_services(workspace) != before, 20)
        after = _running(workspace)
        assert answers(after.services[1].health)
        assert after.services[0] == before.services[0]


def test_a_child_that_keeps_dying_brings_all_down_loudly(tmp_path: Path) -> None:
    once = "import os, sys\nif sys.argv[1] == 'serve' and os.path.exists('broken'): sys.exit(5)\n" + CHILD
    workspace = Workspace(tmp_path)
    with _up(tmp_path, once, ("prefect", "serve")) as up:
        _says(up, "ready")
        running = _running(workspace)
        (tmp_path / "broken").touch()
        os.kill(running.services[1].pid, signal.SIGKILL)
        _says(up, "serve ended (status -9)")
        _says(up, "serve ended (status 5)")
        _says(up, "serve ended (status 5)")
        assert "serve.log" in _says(up, "serve ended 4 times in a row; ")
        assert up.wait() == 3
    assert _gone([running.services[0].pid])


def test_a_worker_waits_for_prefect_without_ending_others(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _up(tmp_path) as up:
        _says(up, "ready")
        before = _running(workspace)
        (tmp_path / "outage").touch()
        os.kill(before.services[2].pid, signal.SIGKILL)
        _says(up, "worker ended (status -9) and is started again")
        _says(up, "worker is started once it can be: Prefect does not answer")
        time.sleep(1)  # Tried again some times, and told once.
        assert find_services(workspace) == before
        assert answers(before.services[3].health)
        os.kill(before.services[3].pid, signal.SIGKILL)
        _says(up, "serve ended (status -9) and is started again")
        (tmp_path / "outage").unlink()
        wait_for(lambda: answers(before.services[2].health), 20)
        wait_for(lambda: answers(before.services[3].health), 20)
        up.send_signal(signal.SIGTERM)
        assert up.wait() == 0


def test_the_scoring_service_starts_without_a_prefect_elsewhere_and_not_without_its_own(
    tmp_path: Path,
) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "outage").touch()
    with _up(tmp_path, names=("worker", "serve")) as up:
        _says(up, "worker is started once it can be: Prefect does not answer")
        _says(up, "ready")
        running = _running(workspace)
        assert [(each.name, answers(each.health)) for each in running.services] == [("serve", True)]
        (tmp_path / "outage").unlink()
        wait_for(lambda: find_services(workspace) != running, 20)
        found = _running(workspace)
        assert [(each.name, answers(each.health)) for each in found.services] == [
            ("worker", True),
            ("serve", True),
        ]
        assert bring_down(workspace) == found
    (tmp_path / "outage").touch()
    with _up(tmp_path) as broken:
        _says(broken, "Prefect does not answer")
        assert broken.wait() == 3


def test_a_child_that_does_not_start_is_named_with_its_log(tmp_path: Path) -> None:
    broken = "import sys\nif sys.argv[1] == 'mlflow': sys.exit('no disk')\n" + CHILD
    with _up(tmp_path, broken) as up:
        assert str(tmp_path / ".novad/logs/mlflow.log") in _says(up, "mlflow did not start; see")
        assert up.wait() == 3
    assert (tmp_path / ".novad/logs/mlflow.log").read_text() == "no disk\n"
    assert (tmp_path / "told").read_text().split() == ["prefect"]


def test_a_named_port_that_is_taken_is_wrong_use_and_the_usual_one_is_left_to_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--serve-port {taken}: .*in use"):
            listener("--serve-port", taken)
        with listener("--serve-port", None, taken) as other:
            assert other.getsockname()[1] not in (0, taken)


@contextmanager
def _foreign() -> Iterator[str]:
    """A server of somebody else that answers as ours would; its port."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


SLOW = CHILD.replace("http.server.HTTPServer", "import time; time.sleep(0.5)\nhttp.server.HTTPServer")


@pytest.mark.parametrize("child", [CHILD, SLOW])
def test_a_server_of_somebody_else_is_not_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: str
) -> None:
    with _foreign() as port:
        # Chosen by another `novad up` at the same moment, which was quicker.
        monkeypatch.setenv("TAKEN", port)
        with _up(tmp_path, child, ("prefect", "serve")) as up:
            _says(up, f"prefect: another process took port {port}; other ports are chosen")
            _says(up, "ready")
            running = find_services(Workspace(tmp_path))
            assert running is not None
            assert [each.name for each in running.services] == ["prefect", "serve"]
            assert all(answers(each.health) and port not in each.url for each in running.services)
            assert bring_down(Workspace(tmp_path)) == running


def test_ports_that_are_always_taken_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _foreign() as port:
        monkeypatch.setenv("TAKEN", f"{port} {port} {port}")
        with _up(tmp_path, names=("prefect",)) as up:
            for _ in range(2):
                _says(up, f"prefect: another process took port {port}; other ports are chosen")
            assert _says(up, "prefect: ") == f"prefect: another process took port {port}\n"
            assert up.wait() == 3


def test_a_port_that_somebody_takes_after_a_death_is_told(tmp_path: Path) -> None:
    with _up(tmp_path, names=("serve",)) as up:
        _says(up, "ready")
        running = find_services(Workspace(tmp_path))
        assert running is not None
        [serve] = running.services
        port = int(serve.url.rpartition(":")[2])
        up.send_signal(signal.SIGSTOP)
        os.kill(serve.pid, signal.SIGKILL)
        wait_for(lambda: _gone([serve.pid]), 10)
        with socket.create_server(("127.0.0.1", port)):
            up.send_signal(signal.SIGCONT)
            for _ in range(3):
                _says(up, "serve ended (status ")
            _says(up, f"serve ended 4 times in a row (serve: another process took port {port}); see")
            assert up.wait() == 3


def test_the_second_choice_of_ports_leaves_the_usual_ones_and_named_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with listener("port", None) as free:
        named = int(free.getsockname()[1])
    chosen = [each.port for each in plan(Workspace(tmp_path), Ports(mlflow=named), usual=False)]
    assert (chosen[1], len(set(chosen))) == (named, 4)
    assert not {4200, 8600} & set(chosen)


def test_a_process_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novad.pipeline.supervisor._PATIENCE", 0.2)
    with _up(tmp_path, names=("prefect",)) as up:
        _says(up, "ready")
        up.send_signal(signal.SIGSTOP)
        with pytest.raises(ServiceError, match=f"process {up.pid} does not end"):
            bring_down(Workspace(tmp_path))
