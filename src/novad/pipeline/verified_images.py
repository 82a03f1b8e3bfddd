"""The verified queue: images of which people said what they show, and which the line's data lack."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from novad.config import Workspace
from novad.images.decode import read_known
from novad.images.layouts import is_normal
from novad.serving.image_store import ImageStore, image_folder
from novad.tracking import LoggedDecision, OperatorVerdict, line_verdicts

__all__ = ["VerifiedImage", "image_bytes", "verified_images"]

Kind = Literal["false alarm", "escape", "confirmed defect"]
_TYPE_BYTES = 200


@dataclass(frozen=True)
class VerifiedImage:
    """One image, and what people agree on about it."""

    sha256: str
    kind: Kind
    defect_type: str | None
    """None for a good part, and where nobody said."""
    prediction_ids: tuple[str, ...]
    """Of the decisions with a verdict, that of the newest verdict last."""
    sources: tuple[str, ...]
    """What those decisions called the image, in the same order."""
    actor: str
    """Of the newest verdict, as are ``reason`` and ``at``."""
    reason: str
    at: str
    path: str | None = None
    """Where it would lie below the line's data folder; None while it is held back for another reason."""
    held_back: str | None = None
    """Why it cannot be accepted; None when it can."""

    @property
    def good(self) -> bool:
        return self.kind == "false alarm"

    def keep_back(self, why: str) -> "VerifiedImage":
        return replace(self, held_back=self.held_back or why)


def verified_images(workspace: Workspace, line: str) -> list[VerifiedImage]:
    """Images of ``line`` with a verdict that tells it something new, the oldest verdict first.

    Good parts that passed are left out. The newest verdict on each decision counts; where decisions on one
    image are left with different words, the image is held back.

    Raises:
        ServiceError: the database cannot be reached.
    """
    by_image: dict[str, list[tuple[LoggedDecision, OperatorVerdict]]] = {}
    for decision, verdict in line_verdicts(workspace, line):
        by_image.setdefault(decision.image_sha256, []).append((decision, verdict))
    found = (_agreed(sha256, said) for sha256, said in by_image.items())
    return sorted((each for each in found if each is not None), key=lambda each: each.at)


def image_bytes(workspace: Workspace, image: VerifiedImage) -> bytes | None:
    """The image's file as it was judged; None when it is gone or another one by now.

    It is looked for among those that the scoring service kept, then under the names that the decisions gave
    it. A name may be anybody's word, but only a file of the judged digest is ever taken.
    """
    kept = ImageStore(image_folder(workspace), 0).read(image.sha256)
    if kept is not None:
        return kept
    for source in reversed(image.sources):
        for path in (Path(source), workspace.root / source):
            if (data := read_known(path, image.sha256)) is not None:
                return data
    return None


def _agreed(sha256: str, said: list[tuple[LoggedDecision, OperatorVerdict]]) -> VerifiedImage | None:
    passed = [decision.decision == "PASS" for decision, _ in said]
    newest = said[-1][1]
    if all(verdict.verdict == "good" for _, verdict in said) and all(passed):
        return None
    types = {verdict.defect_type for _, verdict in said if verdict.defect_type is not None}
    image = VerifiedImage(
        sha256=sha256,
        kind=_kind(newest, any(passed)),
        defect_type=min(types) if newest.verdict == "defect" and types else None,
        prediction_ids=tuple(decision.prediction_id for decision, _ in said),
        sources=tuple(decision.source for decision, _ in said),
        actor=newest.actor,
        reason=newest.reason,
        at=newest.at,
    )
    if len({verdict.verdict for _, verdict in said}) > 1 or len(types) > 1:
        return image.keep_back(f"verdicts differ: {_words(verdict for _, verdict in said)}")
    if image.defect_type is not None and not _names_a_folder(image.defect_type):
        return image.keep_back(f"the defect type {image.defect_type!r} cannot name a folder")
    return image


def _kind(verdict: OperatorVerdict, passed: bool) -> Kind:
    if verdict.verdict == "good":
        return "false alarm"
    return "escape" if passed else "confirmed defect"


def _words(verdicts: Iterable[OperatorVerdict]) -> str:
    return ", ".join(
        f"{each.defect_type or each.verdict} ({each.actor}, prediction {each.prediction_id})"
        for each in verdicts
    )


def _names_a_folder(defect_type: str) -> bool:
    """Whether a defect type is one folder, which a layout sees and takes for a defect's."""
    return (
        not defect_type.startswith(".")
        and not {"/", "\\", "\0"} & set(defect_type)
        and not is_normal(defect_type)
        and len(defect_type.encode()) <= _TYPE_BYTES
    )
