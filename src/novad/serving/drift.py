"""Drift of the served lines, looked at once a minute on a thread of its own: a scrape costs nothing."""

import logging
from collections.abc import Callable, Mapping
from threading import Event, Thread

from novad.config import Workspace, line_settings
from novad.tracking import Monitored, monitor

__all__ = ["DriftWatch"]

_log = logging.getLogger(__name__)
_SECONDS = 60.0


class DriftWatch:
    """The newest report on every line that is served.

    Args:
        workspace: of the decision log.
        served: version in service, by line; it may not be champion any more by the event log.
    """

    def __init__(self, workspace: Workspace, served: Callable[[], Mapping[str, int]]) -> None:
        self._workspace, self._served = workspace, served
        self._reports: Mapping[str, Monitored] = {}
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="novad-drift", daemon=True)

    @property
    def reports(self) -> Mapping[str, Monitored]:
        """By line; replaced as a whole. A line that could not be looked at is missing."""
        return self._reports

    def start(self) -> None:
        """Begin to look; the first time after a minute."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> None:
        """Look now; what fails is told in the log of the service and keeps no other line from its report."""
        found = {}
        for line, version in self._served().items():
            try:
                since = line_settings(self._workspace.params, line).monitor.since
                found[line] = monitor(self._workspace, line, since, version=version)
            except Exception as error:
                _log.warning("%s: cannot be monitored: %s", line, error)
        self._reports = found

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.refresh()
