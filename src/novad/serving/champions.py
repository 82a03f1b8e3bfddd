"""The champions that a service holds in memory, and their exchange when the event log moves on."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import numpy as np

from novad.config import Workspace, line_settings
from novad.config.environment import scoring_device
from novad.errors import RefusedError
from novad.evaluation.parity import TOLERANCE, score_differences
from novad.images.files import judge_files
from novad.tracking import Event as TrackedEvent
from novad.tracking import ResolvedModel, publications, resolve
from novad.tracking.events import champion_of, heads, intact_events, threshold_event
from novad.tracking.golden import golden_images

if TYPE_CHECKING:
    from novad.vision import Detector

__all__ = ["Champions", "LineState", "Served"]

_log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
# Checking a model again means reading all of it.
_RETRY_SECONDS = 30.0
_GOLDEN_IMAGES = 4


@dataclass(frozen=True)
class Served:
    """A version in memory: verified, loaded, warm, and known to score as it did when it was evaluated."""

    line: str
    version: int
    digest: str
    approver: str | None
    max_pixels: int
    replayed: int
    """Golden images that scored as recorded; 0 where none is at hand any more."""
    detector: "Detector"


@dataclass(frozen=True)
class Problem:
    """Why a version could not be loaded, and when to try again, by the monotonic clock."""

    told: str
    retry_at: float


@dataclass(frozen=True)
class LineState:
    """What a service knows of a line; replaced as a whole, so that a batch sees one state."""

    seen: tuple[int, int | None] = (0, None)
    """Newest event and newest version that were looked at."""
    decisive: tuple[int, int] = (0, 0)
    """The events that made the champion and its threshold, as they were acted on; 0 for none."""
    champion: Served | None = None
    champion_problem: Problem | None = None
    """Why the newest decision could not be followed; the champion before it stays."""
    challenger: Served | None = None
    """Scores in the shadow, where that was asked for."""
    challenger_problem: Problem | None = None
    """Why the newest version does not score in the shadow."""

    @property
    def problem(self) -> str | None:
        """What could not be followed."""
        return "; ".join(each.told for each in self._problems) or None

    def due(self, retry: bool) -> bool:
        """Whether something that failed is to be tried again."""
        return any(_due(each, retry) for each in self._problems)

    @property
    def _problems(self) -> list[Problem]:
        return [each for each in (self.champion_problem, self.challenger_problem) if each is not None]


class Champions:
    """The champion of every line, kept up with the event log.

    A new champion is resolved (which checks every digest), loaded, warmed up and asked for the scores of its
    golden images, beside the one that judges; then the state of its line is replaced. A batch reads the state
    once.

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
            ConfigError: ``NOVAD_DEVICE`` names no device of this machine.
            ServiceError: the event log cannot be read.
        """
        from novad.vision.devices import check_device

        check_device(scoring_device())
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self, retry: bool = False) -> None:
        """Follow the event log now.

        Args:
            retry: try at once again what failed, too.
        Raises:
            ServiceError: the event log cannot be read.
        """
        with self._refreshing:
            newest = self._newest_versions()
            for line, sequence in heads(self._workspace).items():
                before, seen = self.state(line), (sequence, newest.get(line))
                if seen != before.seen or before.due(retry):
                    state = self._with_champion(line, replace(before, seen=seen), retry)
                    state = self._with_challenger(line, state, retry or seen[1] != before.seen[1])
                    self._states = {**self._states, line: state}

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self.refresh()
            except Exception as error:  # The champions in memory go on; the next look may succeed.
                _log.warning("the event log cannot be followed: %s", error)

    def _newest_versions(self) -> Mapping[str, int]:
        return {each.line: each.version for each in publications(self._workspace)} if self._shadow else {}

    def _with_champion(self, line: str, state: LineState, retry: bool) -> LineState:
        """Whatever fails here leaves the champion in memory, and other lines, alone."""
        try:
            decisive = _decisive(intact_events(self._workspace, line))
            if decisive == state.decisive and not _due(state.champion_problem, retry):
                return state
            state = replace(state, decisive=decisive)
            return replace(state, champion=self._load_champion(line), champion_problem=None)
        except Exception as error:
            return replace(state, champion_problem=_problem(line, error))

    def _with_challenger(self, line: str, state: LineState, retry: bool) -> LineState:
        """Whatever fails here leaves the champion alone."""
        champion, version = state.champion, state.seen[1]
        if champion is None or version in {None, champion.version}:
            return replace(state, challenger=None, challenger_problem=None)
        if state.challenger is not None and state.challenger.version == version:
            return state
        if state.challenger_problem is not None and not _due(state.challenger_problem, retry):
            return state
        try:
            challenger = self._load(resolve(self._workspace, line, version))
            return replace(state, challenger=challenger, challenger_problem=None)
        except Exception as error:
            return replace(state, challenger=None, challenger_problem=_problem(line, error))

    def _load_champion(self, line: str) -> Served | None:
        model = resolve(self._workspace, line)
        return self._load(model) if model.alias == "champion" else None

    def _load(self, model: ResolvedModel) -> Served:
        """Raises:
        IntegrityError: the files are not those that were checked a moment ago.
        RefusedError: it scores golden images otherwise than it did when it was evaluated.
        """
        detector = model.load()
        list(detector.score([np.full((*detector.image_size, 3), 127, np.uint8)]))
        max_pixels = line_settings(self._workspace.params, model.line).validation.max_pixels
        return Served(
            line=model.line,
            version=model.version,
            digest=detector.digest,
            approver=model.approver,
            max_pixels=max_pixels,
            replayed=_replay(self._workspace, model, detector, max_pixels),
            detector=detector,
        )


def _decisive(chain: Sequence[TrackedEvent]) -> tuple[int, int]:
    """The events that made champion and threshold, by number; what else is on record loads no champion."""
    made, changed = champion_of(chain), threshold_event(chain)
    return made.sequence if made else 0, changed.sequence if changed else 0


def _due(problem: Problem | None, retry: bool) -> bool:
    return problem is not None and (retry or time.monotonic() >= problem.retry_at)


def _problem(line: str, error: Exception) -> Problem:
    _log.error("%s: cannot be followed: %s", line, error)
    return Problem(str(error), time.monotonic() + _RETRY_SECONDS)


def _replay(workspace: Workspace, model: ResolvedModel, detector: "Detector", max_pixels: int) -> int:
    """How many golden images scored here as they did when the version was evaluated.

    Raises:
        RefusedError: one did not, or cannot be read; the image is named.
    """
    golden = golden_images(workspace, model.line, model.version, _GOLDEN_IMAGES)
    of_version = f"{model.line} version {model.version}"
    if not golden:
        _log.warning("%s: no golden image was replayed: all its test images are gone or changed", of_version)
    unreadable: list[dict[str, str]] = []
    judged = list(judge_files(detector.score, [each.file for each in golden], max_pixels, unreadable))
    if unreadable:
        raise RefusedError(f"{of_version}: a golden image cannot be read: {unreadable[0]['error']}")
    for image, (_, _, _, found) in zip(golden, judged, strict=True):
        for kind, difference in score_differences(image.scores, found).items():
            if not difference <= TOLERANCE:
                raise RefusedError(
                    f"{of_version} scores otherwise than when it was evaluated: {image.path}: {kind} is "
                    f"{getattr(found, kind):.6g}, recorded {image.scores[kind]:.6g}"
                )
    return len(golden)
