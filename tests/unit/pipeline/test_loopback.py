"""Whether a server answers, and whose it is; an address may be none, or lead to something else."""

import os
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from novad.pipeline.loopback import answers, free_port, listens, taken
from tiny_pipeline import wait_for

LISTEN = (
    "import socket, sys, time; held = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
)
BELOW = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}, sys.argv[1]])"


@pytest.mark.parametrize("url", ["foo/health", "http:///health", "http://127.0.0.1:port/", "http://[::1/"])
def test_an_address_that_is_none_answers_nothing(url: str) -> None:
    assert not answers(url)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200]
)
def test_a_port_that_speaks_something_else_answers_nothing(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert not answers(f"http://127.0.0.1:{server.getsockname()[1]}/health")
        speaker.join()


@pytest.mark.parametrize("program", [LISTEN, BELOW])
def test_a_port_belongs_to_a_process_and_to_those_above_it(program: str) -> None:
    port = free_port()
    assert not taken(port)
    with subprocess.Popen([sys.executable, "-c", program, str(port)]) as process:
        try:
            wait_for(lambda: taken(port), 20)
            assert listens(process.pid, port)
            assert listens(os.getpid(), port)
            with subprocess.Popen(["sleep", "60"]) as other:
                assert not listens(other.pid, port)
                other.kill()
            assert not listens(other.pid, port)
        finally:
            for each in (*psutil.Process(process.pid).children(), process):
                each.kill()


def test_a_port_counts_as_ones_own_where_nobody_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "net_connections", denied)
    assert listens(os.getpid(), free_port())
