"""Everything on one machine: children started in order, watched, restarted, and ended in order."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from novad.config import Workspace
from novad.errors import RefusedError, ServiceError
from novad.pipeline.child import Child
from novad.pipeline.deployments import ensure_pool
from novad.pipeline.prefect_client import api_url, close_runs, prefect_client, unfinished, workspace_tag
from novad.pipeline.services import Ports, Service, plan
from novad.serving.keys import Role, add_key, keys_file, read_keys
from novad.tracking.services import RunningServices, find_services, hold_services
from novad.tracking.store import create_store

__all__ = ["bring_down", "run_services"]

_PATIENCE = 120.0
_LOOK = 0.5
# A child that dies is started again after 1, 2 and 4 seconds; one that lived this long begins anew.
_BACK_OFF = 1.0
_MOST_DEATHS = 3
_STEADY = 300.0
# So long a worker waits before it asks again for a Prefect that does not answer.
_PUT_OFF = 10.0
_MOST_PLANS = 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_services(
    workspace: Workspace,
    ports: Ports,
    ready: Callable[[RunningServices], None],
    tell: Callable[[str], None],
) -> None:
    """Run a workspace's services until SIGINT, SIGTERM or SIGHUP, or until one cannot be kept alive.

    Args:
        workspace: whose services.
        ports: that were named.
        ready: called once when all are healthy.
        tell: called with what a person has to know at once: a new key, a child that died.
    Raises:
        ConfigError: a named port is taken.
        RefusedError: they run already; the message names the process.
        ServiceError: one does not start or keeps dying; all are down by then.
    """
    with hold_services(workspace) as note:
        if note is None:
            raise RefusedError(_already(workspace))
        with _stopping_on_signals() as stopping:
            for plans in range(1, _MOST_PLANS + 1):
                try:
                    # Who lost a race for the usual ports leaves them to whom has won it.
                    services = plan(workspace, ports, usual=plans == 1)
                    _Run(workspace, note, stopping, tell).run(services, ready)
                    break
                except _PortTakenError as error:
                    if plans == _MOST_PLANS:
                        raise
                    tell(f"{error}; other ports are chosen")


class _PortTakenError(ServiceError):
    """Another process was quicker to listen on a port that was free when it was chosen."""


def bring_down(workspace: Workspace) -> RunningServices | None:
    """End the `novad up` of a workspace, and wait for it; what ran, or None when nothing did.

    Raises:
        ServiceError: it does not end.
    """
    running = find_services(workspace)
    if running is None:
        return None
    try:
        # A handle on the process: whatever gets its number later is not meant.
        process = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return None
    try:
        again = find_services(workspace)
        if again is None or again.pid != running.pid:
            return None
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended = select.select([process], [], [], _PATIENCE)[0]
    finally:
        os.close(process)
    if not ended:
        raise ServiceError(f"process {running.pid} does not end; its logs are in {workspace.state / 'logs'}")
    return running


class _Run:
    """One `novad up` from its first child to its last."""

    def __init__(
        self,
        workspace: Workspace,
        note: Callable[[RunningServices], None],
        stopping: threading.Event,
        tell: Callable[[str], None],
    ) -> None:
        self.workspace, self.note, self.stopping, self.tell = workspace, note, stopping, tell
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
        self.children: list[Child] = []

    def run(self, services: list[Service], ready: Callable[[RunningServices], None]) -> None:
        servers = [service for service in services if service.name in ("prefect", "mlflow")]
        self._write_note()
        create_store(self.workspace)
        try:
            self._start(servers)
            # Trainings of this workspace go through the servers from here on.
            self._write_note()
            if not self.stopping.is_set():
                self._make_first_key()
                self._start([service for service in services if service not in servers])
            if not self.stopping.is_set():
                ready(self._write_note())
            while not self.stopping.wait(_LOOK):
                for child in self.children:
                    self._look_after(child)
        finally:
            self._stop()

    def _start(self, services: list[Service]) -> None:
        children = [Child(service) for service in services]
        self.children += children
        # The scoring service before the worker: it need not wait for somebody else's Prefect.
        for child in reversed(children):
            self._begin(child)
        for child in children:
            if child.put_off or child.until_healthy(self.stopping) or self.stopping.is_set():
                continue
            if child.shut_out:
                raise _PortTakenError(_taken(child))
            raise ServiceError(f"{child.service.name} did not start; see {child.service.log}")

    def _begin(self, child: Child) -> bool:
        """Start a child, a worker only where Prefect answers; whether it was started."""
        if child.service.name == "worker":
            try:
                self._prepare_worker()
            except ServiceError as error:
                own = any(each.service.name == "prefect" for each in self.children)
                if own and child.process is None:
                    raise  # It has only just answered: something is broken here.
                self._put_off(child, error)
                return False
        child.start()
        return True

    def _put_off(self, child: Child, error: ServiceError) -> None:
        """An outage of Prefect ends nobody else, and is told once."""
        if str(error) != str(child.put_off or ""):
            self.tell(f"{child.service.name} is started once it can be: {error}")
        child.put_off, child.begun = error, time.monotonic()

    def _look_after(self, child: Child) -> None:
        name, log = child.service.name, child.service.log
        if child.hung:
            self.tell(f"{name} does not answer and is ended; see {log}")
            child.end()
        if child.put_off:
            if time.monotonic() - child.begun > _PUT_OFF:
                self._start_again(child)
        elif child.dead:
            self._revive(child)

    def _revive(self, child: Child) -> None:
        name, log = child.service.name, child.service.log
        child.deaths = 1 if time.monotonic() - child.begun > _STEADY else child.deaths + 1
        if child.deaths > _MOST_DEATHS:
            why = f" ({_taken(child)})" if child.shut_out else ""
            raise ServiceError(
                f"{name} ended {child.deaths} times in a row{why}; see {log}; everything is stopped"
            )
        status = child.process.returncode if child.process else None
        self.tell(f"{name} ended (status {status}) and is started again; see {log}")
        if not self.stopping.wait(_BACK_OFF * 2 ** (child.deaths - 1)):
            self._start_again(child)

    def _start_again(self, child: Child) -> None:
        if not self._begin(child):
            return
        if not child.until_healthy(self.stopping) and not child.dead:
            child.end()
        self._write_note()

    def _prepare_worker(self) -> None:
        """A pool to poll; what a worker before has left running has died with it."""
        with prefect_client(self._url(), patient=False) as client:
            ensure_pool(client, self.workspace)
            self._close_runs()

    def _close_runs(self) -> None:
        from prefect.client.schemas.filters import FlowRunFilterDeploymentId, FlowRunFilterTags

        chosen = unfinished(
            tags=FlowRunFilterTags(all_=[workspace_tag(self.workspace)]),
            deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        )
        with prefect_client(self._url(), patient=False) as client:
            close_runs(client, chosen)

    def _make_first_key(self) -> None:
        """A key where there is none yet: the one that the service would make goes into its log."""
        file = keys_file(self.workspace)
        if not read_keys(file):
            self.tell(f"New key, shown this once: {add_key(file, Role.ADMIN)}")

    def _url(self) -> str:
        url = api_url(self.workspace)
        if url is None:
            raise ServiceError(f"{self.workspace.state / 'up.json'}: was removed while `novad up` ran")
        return url

    def _write_note(self) -> RunningServices:
        told = tuple(each for child in self.children for each in child.told())
        running = RunningServices(os.getpid(), self.since, told)
        self.note(running)
        return running

    def _stop(self) -> None:
        """Last started, first ended; a training under way dies with its worker and goes on from its stage."""
        for child in reversed(self.children):
            child.end()
            if child.service.name == "worker" and child.process is not None:
                try:
                    self._close_runs()
                except ServiceError as error:
                    self.tell(f"runs of the worker stay open until the next start: {error}")


@contextmanager
def _stopping_on_signals() -> Iterator[threading.Event]:
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in _SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _taken(child: Child) -> str:
    return f"{child.service.name}: another process took port {child.service.port}"


def _already(workspace: Workspace) -> str:
    running = find_services(workspace)
    holder = f"process {running.pid} since {running.since}" if running else "a process that is only starting"
    return f"{workspace.root}: `novad up` runs here already ({holder}); `novad down` ends it"
