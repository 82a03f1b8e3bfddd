"""Does monitoring stay quiet on a quiet line, and tell when the light of another began to fail?"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.images import decode_bytes
from novad.images.demo import DEMO_LINES
from novad.images.demo.png import encode_png
from novad.images.demo.texture import Dice, to_pixels
from novad.images.fingerprint import grey_statistics
from novad.tracking.decisions import LoggedDecision, decide_now
from novad.tracking.digests import file_digest
from novad.tracking.monitor import FALSE_ALARM_RATE, drift_of
from novad.tracking.reference import Reference, read_reference
from novad.vision import Detector

__all__ = ["dimmed", "judged", "made_part", "measure"]

_DETECTOR = "evaluate/detector"
PARTS, REPLAYS = 400, 50
# The light fails slowly from the middle of the stream on, to this share of itself at the end.
LEFT_AT_THE_END = 0.85
# Of the parts of the third stream.
DEFECTIVE = 0.05

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def measure(request: Request) -> Report:
    """Fresh images of every demo line that was trained, judged by its detector.

    Raises:
        MissingInput: no demo line was trained.
    """
    lines = [name for name in DEMO_LINES if (request.artifacts / name / _DETECTOR).is_dir()]
    if not lines:
        raise MissingInput(f"no trained demo line in {request.artifacts}; run `make demo`")
    return Report(
        "Drift of demo lines",
        {
            "parts": PARTS,
            "replays": REPLAYS,
            "alarms allowed": FALSE_ALARM_RATE,
            "light at the end": LEFT_AT_THE_END,
            "defective": DEFECTIVE,
        },
        [_row(request.artifacts / name, name) for name in lines],
    )


def _row(artifacts: Path, line: str) -> dict[str, Any]:
    detector, reference = Detector.load(artifacts / _DETECTOR), read_reference(artifacts, 1)
    judge, begins = partial(judged, detector), PARTS // 2
    light = np.linspace(1, LEFT_AT_THE_END, PARTS - begins)
    parts = [made_part(line, None, index) for index in range(PARTS)]
    good, defects = judge(parts), judge(_defects(line))
    fading = judge([dimmed(part, share) for part, share in zip(parts[begins:], light, strict=True)])
    mixed = [*defects, *good[len(defects) :]]
    quiet = [drift_of(_shuffled(good, seed), reference) for seed in range(REPLAYS)]
    defective = [drift_of(_shuffled(mixed, seed), reference) for seed in range(REPLAYS)]
    failing = [[*_shuffled(good[:begins], seed), *fading] for seed in range(REPLAYS)]
    alarms = [_alarm_at(each, reference) for each in failing]
    since = [drift_of(each, reference).since for each in failing]
    errors = [(each - begins) / PARTS for each in since if each is not None]
    late = [each - begins for each in alarms if each is not None]
    return {
        "line": line,
        "normals": len(reference.normals["hybrid"]),
        "alarms on quiet replays": sum(each.alarm for each in quiet),
        "most evidence then": max(each.evidence for each in quiet),
        "alarms with defects": sum(each.alarm for each in defective),
        "alarms as light fails": len(late),
        "parts until then": float(np.median(late)) if late else None,
        "light then": float(light[int(np.median(late))]) if late else None,
        "since when: median error": float(np.median(errors)) if errors else None,
        "worst": max(errors, key=abs) if errors else None,
    }


def made_part(line: str, defect: str | None, index: int) -> Pixels:
    """An image that no training has seen: the name seeds it."""
    values, _ = DEMO_LINES[line][0](Dice(f"{line}/in service/{defect}/{index}"), defect)
    return decode_bytes(encode_png(to_pixels(values)), line, values.size)


def _defects(line: str) -> list[Pixels]:
    kinds = DEMO_LINES[line][1]
    return [made_part(line, kinds[index % len(kinds)], index) for index in range(int(PARTS * DEFECTIVE))]


def dimmed(pixels: Pixels, share: float) -> Pixels:
    """The same part in so much of the light."""
    return np.rint(pixels * share).astype(np.uint8)


def judged(
    detector: Detector, images: Sequence[Pixels], files: Sequence[Path] = (), version: int = 1
) -> list[LoggedDecision]:
    """Decisions on images, by the files that hold them where there are such."""
    digests = [file_digest(file) for file in files] or [""] * len(images)
    sources = [str(file) for file in files] or [""] * len(images)
    return [
        decide_now(
            detection,
            grey_statistics(pixels),
            line=detector.line,
            version=version,
            detector_digest=detector.digest,
            image_sha256=digest,
            source=source,
            latency_ms=0.0,
        )
        for pixels, detection, digest, source in zip(
            images, detector.score(images), digests, sources, strict=True
        )
    ]


def _shuffled(decisions: list[LoggedDecision], seed: int) -> list[LoggedDecision]:
    """In another order and under other ids, which break ties."""
    order = np.random.default_rng(seed).permutation(len(decisions))
    return [replace(decisions[at], prediction_id=f"{seed}/{at}") for at in order]


def _alarm_at(decisions: list[LoggedDecision], reference: Reference) -> int | None:
    """Parts after which whoever looks first sees an alarm."""
    if not drift_of(decisions, reference).alarm:
        return None
    low, high = 0, len(decisions)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if drift_of(decisions[:middle], reference).alarm else (middle + 1, high)
    return low
