"""Scores images with the detector in this folder: no MLflow, Prefect, DVC or Great Expectations is needed.

`novad export` copies this file into every bundle, where it is the command line:

    python score.py part.png some/folder    # one JSON line per image: PASS, REVIEW or FAIL
    python score.py --check                 # the golden images score here as they did at the export

Every file of a folder counts, hidden ones excepted. What cannot be read as an image is named; the end is 2.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novad.errors import ImageError, IntegrityError, NovadError, RefusedError, exit_code
from novad.evaluation.parity import KINDS, score_differences
from novad.images.files import image_files, judge_files

if TYPE_CHECKING:
    from novad.vision import Detection, Detector

__all__ = ["MANIFEST", "SEAL", "file_sha256", "installed", "main", "seal"]

MANIFEST, SEAL = "edge.json", "edge.sha256"


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run the command line of the bundle in ``folder``; 0 done, 1 refused, 2 wrong use or image."""
    parser = argparse.ArgumentParser(
        prog="score.py", description="Score images with the detector in this folder."
    )
    parser.add_argument("images", nargs="*", type=Path, help="images, or folders of images")
    parser.add_argument("--check", action="store_true", help="compare the golden images with their scores")
    told = parser.parse_args(arguments)
    if told.check == bool(told.images):
        parser.error("give either images or --check")
    try:
        manifest = _verified(folder)
        return _check(folder, manifest) if told.check else _score(folder, manifest, told.images)
    except NovadError as error:
        _tell(str(error))
        return exit_code(error)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from None


def seal(folder: Path) -> bytes:
    """What ``edge.sha256`` must say; `sha256sum -c` reads it too."""
    return f"{file_sha256(folder / MANIFEST)}  {MANIFEST}\n".encode("ascii")


def installed(package: str) -> str | None:
    """Version of a package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest, once every file of the bundle was found to be the exported one."""
    try:
        sealed = (folder / SEAL).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{folder / SEAL}: cannot be read: {error.strerror}") from None
    if sealed != seal(folder):
        raise IntegrityError(
            f"{folder / MANIFEST}: its sha256 is not what {SEAL} says; one of the two was changed"
        )
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    for name, sha256 in manifest["files"].items():
        if (found := file_sha256(folder / name)) != sha256:
            raise IntegrityError(f"{folder / name}: sha256 is {found}, recorded {sha256}")
    return manifest


def _detector(folder: Path, manifest: dict[str, Any]) -> "Detector":
    """The detector, deciding by the thresholds that were in force at the export."""
    from novad.vision import Detector

    told = manifest["thresholds"]
    return Detector.load(folder / "detector").with_thresholds(told["fail"], told["review"], told["alpha"])


def _score(folder: Path, manifest: dict[str, Any], images: Sequence[Path]) -> int:
    paths = image_files(images)
    detector = _detector(folder, manifest)
    unreadable: list[dict[str, str]] = []
    for path, sha256, _, detection in judge_files(detector.score, paths, manifest["max_pixels"], unreadable):
        row = {
            "path": str(path),
            "sha256": sha256,
            "decision": detection.decision,
            **{kind: round(getattr(detection, kind), 6) for kind in KINDS},
            "p_value": round(detection.p_value, 6),
            "line": manifest["line"],
            "version": manifest["version"],
            "digest": detector.digest,
        }
        print(json.dumps(row, ensure_ascii=False), flush=True)
    for each in unreadable:
        print(json.dumps(each, ensure_ascii=False))
        _tell(each["error"])
    return ImageError.code if unreadable else 0


def _check(folder: Path, manifest: dict[str, Any]) -> int:
    """Score the golden images anew, and compare every score with the recorded one."""
    golden, tolerance = manifest["golden"], manifest["tolerance"]
    detector, paths = _detector(folder, manifest), [folder / each["file"] for each in golden]
    unreadable: list[dict[str, str]] = []
    judged = list(judge_files(detector.score, paths, manifest["max_pixels"], unreadable))
    if unreadable:
        raise RefusedError(f"a golden image cannot be read here: {unreadable[0]['error']}")
    compared = [
        each
        for recorded, (_, _, _, detection) in zip(golden, judged, strict=True)
        for each in _differences(recorded, detection)
    ]
    differing = [each for each in compared if not each["difference"] <= tolerance]
    others = _other_packages(manifest["packages"])
    document = {
        "golden": len(golden),
        "tolerance": tolerance,
        "largest_difference": max((each["difference"] for each in compared), default=None),
        "differing": differing,
        "other_packages": others,
    }
    print(json.dumps(document, indent=2))
    for each in differing:
        _tell(
            f"{each['image']}: {each['score']} is {each['found']:.6g}, recorded {each['recorded']:.6g}: "
            f"a difference of {each['difference']:.3g}, more than {tolerance:g}"
        )
    for name, told in others.items():
        _tell(f"{name} is {told['found']} here and was {told['recorded']} at the export")
    if not golden:
        _tell("this bundle has no golden images: its files were checked, its scores were not")
    return RefusedError.code if differing else 0


def _differences(recorded: dict[str, Any], detection: "Detection") -> Iterator[dict[str, Any]]:
    """One row per score."""
    for kind, difference in score_differences(recorded, detection).items():
        yield {
            "image": recorded["file"],
            "score": kind,
            "recorded": recorded[kind],
            "found": getattr(detection, kind),
            "difference": difference,
        }


def _other_packages(recorded: dict[str, str | None]) -> dict[str, dict[str, str | None]]:
    """Packages that are installed in another version than at the export."""
    present = {name: installed(name) for name in recorded}
    return {
        name: {"recorded": told, "found": present[name]}
        for name, told in recorded.items()
        if present[name] != told
    }


def _tell(message: str) -> None:
    print(f"score.py: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, sys.argv[1:]))
