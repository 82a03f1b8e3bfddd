"""``novad serve``: the scoring service."""

import ipaddress
import signal
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.outcome import document, tell
from novad.cli.output import JSON
from novad.config import Workspace
from novad.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["serve"]

_ROLES = ("score", "review", "admin")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8600,
    shadow: Annotated[bool, typer.Option("--shadow", help="Challengers score silently too.")] = False,
    keep_images: Annotated[
        int, typer.Option(metavar="MIB", min=0, help="Keep judged images for reviewers, so many MiB.")
    ] = 0,
    new_key: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Make a key (score, review, admin), and end.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Score images over HTTP with the champions, and show the review console, until SIGTERM or Ctrl-C.

    The first start makes a key and shows it once. Queued work is finished and logged before the end.
    """
    from novad.serving.keys import Role, add_key, keys_file, read_keys

    workspace = Workspace.find()
    keys = keys_file(workspace)
    if new_key is not None:
        if new_key not in _ROLES:
            raise ConfigError(f"--new-key: must be one of {', '.join(_ROLES)}")
        _tell({"key": add_key(keys, Role[new_key.upper()]), "role": new_key, "keys": str(keys)}, as_json)
        return
    known = read_keys(keys)
    if not known and not _is_loopback(host):
        raise ConfigError(
            f"--host: {host} can be reached from elsewhere and there is no key in {keys}; "
            "make one first with `novad serve --new-key admin`"
        )
    listener = _listen(host, port)
    # FastAPI and torch take seconds to import: only those pay who serve.
    from novad.serving.app import build_app
    from novad.serving.image_store import ImageStore, image_folder
    from novad.serving.service import Service

    images = ImageStore(image_folder(workspace), keep_images << 20) if keep_images else None
    service = Service(workspace, keys, shadow, images=images)
    with listener:
        try:
            service.start()
            # After all that can fail: a key that nobody saw would be lost.
            fresh = None if known else add_key(keys, Role.ADMIN)
            _run(build_app(service), listener, {"keys": str(keys), "key": fresh}, as_json)
        finally:
            service.stop()


def _run(app: "FastAPI", listener: socket.socket, told: dict[str, Any], as_json: bool) -> None:
    """Serve until a signal; requests that were taken are answered first."""
    import uvicorn

    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _tell({"url": address, **told}, as_json)

    # No limit_concurrency: it counts connections, and those that ask nothing would shut everybody out.
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False)
    server = Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # After its own graceful stop uvicorn raises the signal again, for whoever had it before: that is the
    # ordinary end of this command, not a failure.
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tell(content: dict[str, Any], as_json: bool) -> None:
    if as_json:
        document(content)
        return
    if "url" in content:
        print(f"Serving on {content['url']} (keys: {content['keys']}); Ctrl-C ends it", flush=True)
        print(f"Review console: {content['url']}/console/", flush=True)
    if content["key"] is not None:
        tell(f"New key, shown this once: {content['key']}")
