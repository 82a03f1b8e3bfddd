"""Light fades, people confirm the false alarms, the line learns from them: what does that mend and cost?"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from scipy.stats import binomtest

from benchmarks.drift import dimmed, judged, made_part
from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.config import Workspace
from novad.images.demo import DEMO_LINES
from novad.images.demo.png import encode_png
from novad.pipeline.accepting import accept_verified
from novad.pipeline.demo import prepare_workspace
from novad.pipeline.retraining import train_due
from novad.pipeline.train import LineResult, train_lines
from novad.tracking import LoggedDecision, give_verdict, log_decisions, monitor, promote, resolve
from novad.vision import Detector

__all__ = ["measure"]

# Parts in the light that the line was trained in, as it fades, and after that.
USUAL, FADING, FADED = 100, 200, 100
LEFT_AT_THE_END = 0.85
FRESH = 200
_FRESH_FROM = 100_000
_BY = "benchmark"

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def measure(request: Request) -> Report:
    """Demo lines from their first training to the version that learned, by the functions of the commands.

    Raises:
        MissingInput: no line was named.
        NovadError: a line could not be trained.
    """
    if not request.lines:
        raise MissingInput("name the demo lines to train, minutes each: --lines printed-board,woven-fabric")
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepare_workspace(Path(folder) / "plant")
        rows = [row for line in request.lines for row in _story(workspace, line)]
    conditions = {
        "parts in usual, fading, faded light": f"{USUAL}, {FADING}, {FADED}",
        "light at the end": LEFT_AT_THE_END,
        "fresh parts judged": FRESH,
    }
    return Report("False alarms before drift, under it, and after learning from it", conditions, rows)


def _story(workspace: Workspace, line: str) -> list[dict[str, Any]]:
    _train_on_drift(workspace, line)
    [first] = train_lines(workspace, [line])
    versions = {"the first": _promoted(workspace, first)}
    seen = _stream(workspace, line)
    found = monitor(workspace, line)
    told = {"line": line, "drift": ", ".join(found.drifted), "accepted": 0}
    if found.since:
        told["accepted"] = _confirm_and_accept(workspace, line, seen, found.since)
        [learned] = train_due(workspace, [line], force=False, wait=True)
        versions["what learned"] = _promoted(workspace, learned)
    return _rows(told, line, versions)


def _train_on_drift(workspace: Workspace, line: str) -> None:
    yaml = YAML()
    settings = yaml.load(workspace.params)
    settings["lines"][line]["retrain"] = {"on_drift": True}
    yaml.dump(settings, workspace.params)


def _promoted(workspace: Workspace, result: LineResult) -> Detector:
    """The detector of a training, after its promotion; the gates may refuse it."""
    if result.error is not None:
        raise result.error
    promote(workspace, result.line, result.version or 0, _BY, "as a person would")
    return resolve(workspace, result.line).load()


def _stream(workspace: Workspace, line: str) -> list[LoggedDecision]:
    """Judge and log good parts while the light fades; their decisions."""
    light = [*np.ones(USUAL), *np.linspace(1, LEFT_AT_THE_END, FADING), *np.full(FADED, LEFT_AT_THE_END)]
    folder = workspace.root / "seen" / line
    folder.mkdir(parents=True)
    images = [dimmed(made_part(line, None, index), share) for index, share in enumerate(light)]
    files = [folder / f"{index:04d}.png" for index in range(len(images))]
    for image, file in zip(images, files, strict=True):
        file.write_bytes(encode_png(image))
    decisions = judged(resolve(workspace, line).load(), images, files)
    log_decisions(workspace, decisions)
    return decisions


def _confirm_and_accept(workspace: Workspace, line: str, seen: list[LoggedDecision], since: str) -> int:
    """Say of all parts that were refused since then that they are good, and take them into the data."""
    for decision in seen:
        if decision.decision != "PASS" and decision.at >= since:
            give_verdict(workspace, decision, "good", _BY, "looked at it")
    return len(accept_verified(workspace, line, _BY, "good parts in the light of today").images)


def _rows(told: dict[str, Any], line: str, versions: dict[str, Detector]) -> list[dict[str, Any]]:
    """How each version judges fresh parts, in the light of before and of after."""
    kinds = DEMO_LINES[line][1]
    good = [made_part(line, None, _FRESH_FROM + index) for index in range(FRESH)]
    bad = [made_part(line, kinds[index % len(kinds)], _FRESH_FROM + index) for index in range(FRESH)]
    return [
        {
            **told,
            "light": f"{light:g}",
            "champion": name,
            "false alarms": _share(_passes(detector, good, light) == 0),
            "defects missed": _share(_passes(detector, bad, light)),
        }
        for light in (1.0, LEFT_AT_THE_END)
        for name, detector in versions.items()
    ]


def _passes(detector: Detector, parts: Sequence[Pixels], light: float) -> NDArray[np.bool_]:
    told = detector.score([dimmed(part, light) for part in parts])
    return np.array([detection.decision == "PASS" for detection in told])


def _share(found: NDArray[np.bool_]) -> str:
    """With its 95 % interval, after Wilson (1927)."""
    low, high = binomtest(int(found.sum()), len(found)).proportion_ci(method="wilson")
    return f"{found.mean():.3f} ({low:.3f} to {high:.3f})"
