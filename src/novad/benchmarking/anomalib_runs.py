"""Running anomalib's methods by the interpreter of another environment, each in a process of its own."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novad.errors import ConfigError
from novad.orphans import end_with_parent
from novad.stages.line import Line
from novad.stages.runner import read_json, write_json

__all__ = ["METHODS", "Anomalib", "EfficientAdFiles", "OtherRun", "find_anomalib", "run_method"]

METHODS = ("patchcore", "padim", "dfm", "efficientad")
HOW_TO = (
    "make an environment (`uv venv ENV`, `uv pip install --python ENV/bin/python 'anomalib>=2.7,<3'`) and "
    "name its interpreter: --anomalib ENV/bin/python"
)
SCRIPT = Path(__file__).with_name("anomalib_methods.py")
CORESET_SHARE = 0.01
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_ASK = "import importlib.metadata as m; print(m.version('anomalib')); import torch, timm"


@dataclass(frozen=True)
class EfficientAdFiles:
    """What EfficientAD learns from beside the images; anomalib would download both.

    Attributes:
        teacher: ``pretrained_teacher_small.pth`` of anomalib's release.
        imagenette: folder of folders of natural images.
        steps: of the training; the paper takes 70,000.
    """

    teacher: Path
    imagenette: Path
    steps: int


@dataclass(frozen=True)
class Anomalib:
    """An environment that has anomalib, and how long a method may take in it."""

    interpreter: Path
    version: str
    timeout: float
    efficientad: EfficientAdFiles | None = None


@dataclass(frozen=True)
class OtherRun:
    """What a method found on the judged images, or why there is nothing.

    Attributes:
        method: its name.
        reason: None where it was measured.
        scores: (n,) in the order of the judged images.
        maps: (n, S, S) where they were asked for, read from disk as needed.
        cost: ``fit_seconds``, ``ms_per_image``, ``peak_rss_mb`` and what the script told besides.
    """

    method: str
    reason: str | None = None
    scores: NDArray[np.float64] | None = None
    maps: NDArray[np.float32] | None = None
    cost: Mapping[str, Any] | None = None


def find_anomalib(interpreter: Path, timeout: float, efficientad: EfficientAdFiles | None = None) -> Anomalib:
    """Ask an interpreter for its anomalib.

    Raises:
        ConfigError: there is no such program, or it has no anomalib.
    """
    # Not resolved: the link of a virtual environment is what makes it one.
    interpreter = interpreter.expanduser().absolute()
    if not interpreter.is_file():
        raise ConfigError(f"--anomalib: {interpreter}: no such interpreter; {HOW_TO}")
    try:
        done = subprocess.run(
            [interpreter, "-I", "-c", _ASK], capture_output=True, text=True, check=False, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"--anomalib: {interpreter}: cannot be run as Python: {error}") from None
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"--anomalib: {interpreter}: has no anomalib that works ({told}); {HOW_TO}")
    return Anomalib(interpreter, done.stdout.strip(), timeout, efficientad)


def run_method(
    anomalib: Anomalib | None, method: str, line: Line, weights: Mapping[str, Any] | None, folder: Path
) -> OtherRun:
    """Let one method learn from all training normals of a line and judge its test split.

    Args:
        anomalib: None: the reason says how to get it.
        method: one of ``METHODS``.
        line: whose images and splits.
        weights: ``architecture`` and ``layers`` as timm calls them, and the ``checkpoint``; None where the
            line's network is none of timm's.
        folder: for what the two processes tell each other; must not exist.
    """
    reason = _not_run(anomalib, method, weights)
    if reason or anomalib is None:
        return OtherRun(method, reason)
    folder.mkdir()
    judged = line.rows("test")["path"].tolist()
    request = {
        "method": method,
        "train": _files(line, line.rows("bank", "calibration")["path"].tolist()),
        "judged": _files(line, judged),
        "size": line.settings.backbone.input_size,
        "seed": line.settings.seed,
        "maps": bool(line.rows("test")["mask_path"].notna().any()),
        "coreset_share": CORESET_SHARE,
        "weights": weights,
        "efficientad": _told(anomalib.efficientad),
        "out": str(folder),
    }
    write_json(folder / "request.json", request)
    reason = _run(anomalib, folder)
    return OtherRun(method, reason) if reason else _read(method, folder, judged, bool(request["maps"]))


def _not_run(anomalib: Anomalib | None, method: str, weights: Mapping[str, Any] | None) -> str | None:
    if anomalib is None:
        return f"not run: {HOW_TO}"
    if method == "efficientad":
        if anomalib.efficientad is not None:
            return None
        return (
            "not run: it learns from a teacher's weights and natural images, which anomalib downloads; name "
            "local ones by --efficientad-teacher and --imagenette"
        )
    if weights is None:
        return "not run: the line's network is none of timm's; name a checkpoint of one by --anomalib-weights"
    return None


def _run(anomalib: Anomalib, folder: Path) -> str | None:
    """Why the method has no result; None when it has."""
    log = folder / "log.txt"
    try:
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                [anomalib.interpreter, "-I", SCRIPT, folder / "request.json"],
                cwd=folder, env={**os.environ, **_OFFLINE}, stdout=stream, stderr=stream, check=False,
                timeout=anomalib.timeout, preexec_fn=end_with_parent,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not finish in {anomalib.timeout:.0f} s; --timeout allows more"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"failed: ended by signal {-done.returncode} (9 is mostly for want of memory)"
    told = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    return f"failed: {told[-1]}"


def _read(method: str, folder: Path, judged: Sequence[str], with_maps: bool) -> OtherRun:
    scores = np.asarray(np.load(folder / "scores.npz")["scores"], np.float64)
    if len(scores) != len(judged):
        return OtherRun(method, f"failed: it gave {len(scores)} scores for {len(judged)} images")
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        return OtherRun(method, f"failed: {judged[broken[0]]}: its score is not finite ({len(broken)} such)")
    maps = np.load(folder / "maps.npy", mmap_mode="r") if with_maps else None
    return OtherRun(method, None, scores, maps, read_json(folder / "result.json"))


def _files(line: Line, paths: Sequence[str]) -> list[str]:
    return [str(line.path(path)) for path in paths]


def _told(files: EfficientAdFiles | None) -> dict[str, Any] | None:
    if files is None:
        return None
    return {"teacher": str(files.teacher), "imagenette": str(files.imagenette), "steps": files.steps}
