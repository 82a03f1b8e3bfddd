"""A registered version as an edge bundle, which appears whole and checked or not at all."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from novad import __version__
from novad.config import LineSettings, Workspace, line_settings
from novad.edge import score
from novad.edge.score import MANIFEST, SEAL, file_sha256, installed, seal
from novad.errors import ConfigError, RefusedError
from novad.evaluation.parity import KINDS, TOLERANCE
from novad.images.files import judge_files
from novad.tracking import ResolvedModel, champion_event, resolve
from novad.tracking.golden import GoldenImage, golden_images

if TYPE_CHECKING:
    from novad.tracking import Event
    from novad.vision import Detector

__all__ = ["Exported", "export"]

# What scoring may load, by the detector's networks and explainer.
_PACKAGES = (
    "bcos",
    "captum",
    "faiss-cpu",
    "numpy",
    "pillow",
    "safetensors",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)


@dataclass(frozen=True)
class Exported:
    """What a bundle holds, and what its own check said in a process of its own."""

    line: str
    version: int
    champion: bool
    """Whether the version is the champion, with the threshold that was set for it."""
    folder: str
    bundle_digest: str
    """Sha256 of ``edge.json``, which names every other file by its own."""
    detector_digest: str
    thresholds: dict[str, Any]
    check: dict[str, Any]


def export(
    workspace: Workspace, line: str, folder: Path, version: int | None = None, golden: int = 8
) -> Exported:
    """Write the bundle of ``line`` into ``folder``, once its scores proved the same in a clean process.

    Args:
        folder: does not exist, or is empty.
        version: None for the champion.
        golden: how many test images are copied into the bundle at most.
    Raises:
        ConfigError: wrong settings, a folder that is taken, no such version, or no test image is left.
        RefusedError: no champion, or the check failed; nothing is left behind.
        IntegrityError: the event log, the alias or a file of the model was changed.
        ServiceError: the store cannot be reached.
    """
    settings = line_settings(workspace.params, line)
    folder = _free(folder)
    model = _chosen(workspace, line, version)
    images = _golden_images(workspace, settings, model, golden)
    with _appearing(workspace, folder) as partial:
        manifest = _write(partial, model, settings, images)
        digest = file_sha256(partial / MANIFEST)
        check = _check(line, partial)
    return Exported(
        line=line,
        version=model.version,
        champion=model.decision is not None,
        folder=str(folder),
        bundle_digest=digest,
        detector_digest=model.detector_digest,
        thresholds=manifest["thresholds"],
        check=check,
    )


def _free(folder: Path) -> Path:
    """The absolute path of a folder that can still become the bundle."""
    target = folder.resolve()
    if not target.parent.is_dir():
        raise ConfigError(f"--output: {target.parent}: no such folder")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"--output: {target} exists and is not an empty folder")
    return target


def _chosen(workspace: Workspace, line: str, version: int | None) -> ResolvedModel:
    """The champion with the threshold in force, also where its number was named; else the named version."""
    champion = champion_event(workspace, line)
    if champion is not None and version in (None, champion.version):
        return resolve(workspace, line)
    if version is None:
        raise RefusedError(f"{line} has no champion to export; promote a version, or name one by --version")
    return resolve(workspace, line, version)


def _golden_images(
    workspace: Workspace, settings: LineSettings, model: ResolvedModel, wanted: int
) -> list[GoldenImage]:
    if wanted == 0:
        return []
    found = golden_images(workspace, model.line, model.version, wanted)
    if not found:
        raise ConfigError(
            f"{workspace.path(settings.data)}: all test images of {model.line} version {model.version} are "
            "gone or changed; --golden 0 exports without a comparison of scores"
        )
    return found


@contextmanager
def _appearing(workspace: Workspace, folder: Path) -> Iterator[Path]:
    """A fresh folder that becomes ``folder`` when the block ends without an error.

    A process killed inside leaves only a hidden folder, which the next export to the same place removes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    locks = workspace.state / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "export.lock"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(
    folder: Path, model: ResolvedModel, settings: LineSettings, images: Sequence[GoldenImage]
) -> dict[str, Any]:
    """Fill ``folder``; returns the manifest."""
    shutil.copytree(model.folder, folder / "detector", copy_function=shutil.copyfile)
    shutil.copyfile(score.__file__, folder / "score.py")
    detector = model.load()
    recorded = _golden(detector, settings.validation.max_pixels, images, folder / "golden")
    told = detector.thresholds
    manifest = {
        "format": 1,
        "line": model.line,
        "version": model.version,
        "detector_digest": model.detector_digest,
        "promotion": _event(model.decision),
        "thresholds": {
            "fail": told.fail,
            "review": told.review,
            "alpha": told.alpha,
            "decision": _event(model.threshold),
        },
        "max_pixels": settings.validation.max_pixels,
        "golden": recorded,
        "tolerance": TOLERANCE,
        "novad": __version__,
        "packages": {name: installed(name) for name in _PACKAGES},
        "files": {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")
    (folder / SEAL).write_bytes(seal(folder))
    return manifest


def _golden(
    detector: "Detector", max_pixels: int, images: Sequence[GoldenImage], folder: Path
) -> list[dict[str, Any]]:
    """Copy the golden images, and note what the detector says about each copy."""
    if not images:
        return []
    folder.mkdir()
    copies = [folder / f"{number}{image.file.suffix}" for number, image in enumerate(images, start=1)]
    for copy, image in zip(copies, images, strict=True):
        shutil.copyfile(image.file, copy)
    unreadable: list[dict[str, str]] = []
    judged = list(judge_files(detector.score, copies, max_pixels, unreadable))
    if unreadable:
        raise ConfigError(f"a test image cannot be read: {unreadable[0]['error']}")
    return [
        {
            "file": f"{folder.name}/{copy.name}",
            "source": image.path,
            **{kind: getattr(detection, kind) for kind in KINDS},
        }
        for image, (copy, _, _, detection) in zip(images, judged, strict=True)
    ]


def _event(event: "Event | None") -> dict[str, Any] | None:
    """Who decided, why and when, and the digest by which the event log knows it."""
    if event is None:
        return None
    return {
        "approver": event.actor,
        "reason": event.reason,
        "at": event.at,
        "sequence": event.sequence,
        "digest": event.digest,
    }


def _check(line: str, folder: Path) -> dict[str, Any]:
    """What the bundle's own check says in a process of its own."""
    ended = subprocess.run(
        [sys.executable, str(folder / "score.py"), "--check"], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RefusedError(
            f"{line}: nothing was exported: the bundle does not score in a clean process as it does here: "
            f"{ended.stderr.strip()}"
        )
    document: dict[str, Any] = json.loads(ended.stdout)
    return document
