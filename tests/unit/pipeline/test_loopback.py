"""Whether a server answers: also where an address is none, or something else listens there."""

import socket
import threading

import pytest

from novad.pipeline.loopback import answers


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
