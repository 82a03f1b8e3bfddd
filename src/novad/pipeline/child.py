"""One process of `novad up`: started, asked how it is, and ended."""

import subprocess
import threading
import time

from novad.errors import ServiceError
from novad.orphans import end_with_parent
from novad.pipeline.loopback import answers, listens, taken
from novad.pipeline.processes import end
from novad.pipeline.services import Service
from novad.tracking.services import RunningService

__all__ = ["Child"]

_PATIENCE = 120.0
# A child is asked how it is every five seconds; one that is silent for a minute is ended and started again.
_ASK = 5.0
_MOST_SILENT = 12


class Child:
    """A service and its process, which dies with this one; without one until it is started."""

    def __init__(self, service: Service) -> None:
        self.service, self.deaths = service, 0
        self.process: subprocess.Popen[bytes] | None = None
        self.put_off: ServiceError | None = None
        """What keeps it from being started."""
        self.shut_out = False
        """Whether it did not become healthy because its port is another process's."""
        self.begun = 0.0
        log = service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C at a terminal reaches only this one."""
        self.begun = self.asked = time.monotonic()
        self.silent, self.put_off, self.shut_out = 0, None, False
        with self.service.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.service.command,
                cwd=self.service.environment["NOVAD_WORKSPACE"],
                env=self.service.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def end(self) -> None:
        """End the process, where there is one."""
        if self.process is not None:
            end(self.process)

    @property
    def dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def healthy(self) -> bool:
        return answers(self.service.url + self.service.health)

    @property
    def hung(self) -> bool:
        """Whether it lives and left so many questions in a row without an answer; asks when one is due."""
        if not self.dead and time.monotonic() - self.asked > _ASK:
            self.silent = 0 if self.healthy else self.silent + 1
            self.asked = time.monotonic()
        return not self.dead and self.silent >= _MOST_SILENT

    def until_healthy(self, stopping: threading.Event) -> bool:
        """Whether it answers before it dies, before patience ends, and before this process is to stop."""
        deadline = time.monotonic() + _PATIENCE
        while self.process and not self.dead and time.monotonic() < deadline:
            if self.healthy:
                # Another process may have taken the port since it was chosen, and answer just as well.
                self.shut_out = not listens(self.process.pid, self.service.port)
                return not self.shut_out
            if stopping.wait(0.1):
                return False
        self.shut_out = self.dead and taken(self.service.port)
        return False

    def told(self) -> list[RunningService]:
        """Itself, for the note of what runs; nothing before its first start."""
        service, health = self.service, self.service.url + self.service.health
        if self.process is None:
            return []
        return [RunningService(service.name, self.process.pid, service.url, health, str(service.log))]
