"""The champions that a service holds in memory, and their exchange when the event log moves on."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import numpy as np

from novad.config import Workspace, line_settings
from novad.errors import IntegrityError, NovadError
from novad.tracking import ResolvedModel, publications, resolve
from novad.tracking.events import heads

if TYPE_CHECKING:
    from novad.vision import Detector

__all__ = ["Champions", "LineState", "Served"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
# Checking a model again means reading all of it.
_RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class Served:
    """A version in memory: verified, loaded and warm."""

    line: str
    version: int
    digest: str
    approver: str | None
    max_pixels: int
    detector: "Detector"


@dataclass(frozen=True)
class LineState:
    """What a service knows of a line; replaced as a whole, so that a batch sees one state."""

    sequence: int = 0
    """Newest event that was acted on."""
    champion: Served | None = None
    challenger: Served | None = None
    """Scores in the shadow, where that was asked for."""
    problem: str | None = None
    """Why the newest decision could not be followed; the champion before it stays."""
    retry_at: float = 0.0


class Champions:
    """The champion of every line, kept up with the event log.

    A new champion is resolved (which checks every digest), loaded and warmed up beside the one that judges;
    then the state of its line is replaced. A batch reads the state once.

    Args:
        workspace: of the lines.
        shadow: hold the newest version that is not champion too.
    """

    def __init__(self, workspace: Workspace, shadow: bool = False) -> None:
        self._workspace, self._shadow = workspace, shadow
        self._states: Mapping[str, LineState] = {}
        self._refreshing = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="novad-champions", daemon=True)

    @property
    def states(self) -> Mapping[str, LineState]:
        """State by line, of every line that was ever decided on."""
        return self._states

    def state(self, line: str) -> LineState:
        """State of one line; an empty one when nobody decided on it."""
        return self._states.get(line, LineState())

    def start(self) -> None:
        """Load all champions, then watch the event log.

        Raises:
            ServiceError: the event log cannot be read.
        """
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> None:
        """Follow the event log now.

        Raises:
            ServiceError: the event log cannot be read.
        """
        with self._refreshing:
            newest = {each.line: each.version for each in publications(self._workspace)}
            for line, sequence in heads(self._workspace).items():
                before = self.state(line)
                if time.monotonic() < before.retry_at:
                    continue
                if sequence != before.sequence or self._challenger_changed(before, newest.get(line)):
                    self._states = {**self._states, line: self._followed(line, sequence, before, newest)}

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self.refresh()
            except Exception as error:  # The champions in memory go on; the next look may succeed.
                _log.warning("the event log cannot be followed: %s", error)

    def _challenger_changed(self, state: LineState, newest: int | None) -> bool:
        if not self._shadow or state.champion is None:
            return False
        wanted = newest if newest != state.champion.version else None
        return wanted != (state.challenger.version if state.challenger else None)

    def _followed(self, line: str, sequence: int, before: LineState, newest: Mapping[str, int]) -> LineState:
        try:
            champion = self._champion(line, before, sequence)
            challenger = None
            if self._shadow and champion is not None and newest.get(line) not in {None, champion.version}:
                challenger = self._load(resolve(self._workspace, line, newest[line]))
            return LineState(sequence, champion, challenger)
        except (NovadError, OSError) as error:
            _log.error("%s: the newest decision cannot be followed: %s", line, error)
            return replace(before, problem=str(error), retry_at=time.monotonic() + _RETRY_SECONDS)

    def _champion(self, line: str, before: LineState, sequence: int) -> Served | None:
        if sequence == before.sequence:
            return before.champion
        model = resolve(self._workspace, line)
        return self._load(model) if model.alias == "champion" else None

    def _load(self, model: ResolvedModel) -> Served:
        """Raises:
        IntegrityError: the files are not those that were checked a moment ago.
        """
        from novad.vision import Detector

        detector = Detector.load(model.folder)
        if detector.digest != model.detector_digest:
            raise IntegrityError(f"{model.line}: the detector was exchanged while it was loaded")
        side = detector.image_size
        list(detector.score([np.full((side, side, 3), 127, np.uint8)]))
        settings = line_settings(self._workspace.params, model.line)
        return Served(
            line=model.line,
            version=model.version,
            digest=detector.digest,
            approver=model.approver,
            max_pixels=settings.validation.max_pixels,
            detector=detector,
        )
