"""A relay before a server, which loses requests or answers as a failing network, or a dying server, does."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Literal

__all__ = ["UNAVAILABLE", "Address", "Fault", "Relay", "relay"]

Address = str | tuple[str, int]
"""The path of a socket, or host and port."""
Fault = Literal["none", "request lost", "answer lost", "answer lost and gone", "unavailable"]

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay:
    """Passes everything on, but for the one fault that it is told."""

    def __init__(self, server: Address, listen: Address) -> None:
        self._server = server
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        self.work()
        self._listener = _listener(listen)
        self.port = 0 if isinstance(listen, str) else int(self._listener.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def fail(self, told: bytes, fault: Fault, *, after: bytes = b"", skip: int = 0) -> None:
        """Let the first request that holds ``told`` go wrong, once ``after`` was sent and ``skip`` others.

        What is unavailable stays so; other faults strike once.
        """
        with self._lock:
            self._told, self._fault, self._after, self._skip, self.struck = told, fault, after, skip, False

    def work(self) -> None:
        """No fault any more."""
        self.fail(b"", "none")

    def close(self) -> None:
        """Nobody listens any more, and every connection is cut."""
        _cut(self._listener)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = _connected(self._server)
        except OSError:
            _cut(client)
            return
        with self._lock:
            self._open |= {client, server}
        answers = _Answers(client, server)
        Thread(target=answers.pass_on, daemon=True).start()
        try:
            while chunk := client.recv(1 << 16):
                fault = self._fault_of(chunk)
                if fault == "unavailable":
                    client.sendall(UNAVAILABLE)
                if fault in ("unavailable", "request lost"):
                    break
                if fault == "answer lost and gone":
                    _cut(self._listener)
                answers.lost = answers.lost or fault.startswith("answer lost")
                server.sendall(chunk)
        except OSError:
            pass
        finally:
            for connection in (client, server):
                _cut(connection)
            with self._lock:
                self._open -= {client, server}

    def _fault_of(self, chunk: bytes) -> Fault:
        with self._lock:
            if self._after in chunk:
                self._after = b""
            elif self._after:
                return "none"
            over = self.struck and self._fault != "unavailable"
            if self._fault == "none" or over or self._told not in chunk:
                return "none"
            if self._skip:
                self._skip -= 1
                return "none"
            self.struck = True
            return self._fault


class _Answers:
    """What the server says, until an answer is to be lost."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server, self.lost = client, server, False

    def pass_on(self) -> None:
        try:
            while (chunk := self.server.recv(1 << 16)) and not self.lost:
                self.client.sendall(chunk)
        except OSError:
            pass
        finally:
            _cut(self.client)


@contextmanager
def relay(server: Address, listen: Address = ("127.0.0.1", 0)) -> Iterator[Relay]:
    """A relay for as long as the block lasts."""
    made = Relay(server, listen)
    try:
        yield made
    finally:
        made.close()


def _listener(listen: Address) -> socket.socket:
    if isinstance(listen, tuple):
        return socket.create_server(listen)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(listen)
    listener.listen()
    return listener


def _connected(server: Address) -> socket.socket:
    if isinstance(server, tuple):
        return socket.create_connection(server)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    return connection


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
