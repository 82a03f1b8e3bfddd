"""What a line's data would be with its verified images: where each would lie, and which are held back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from novad.config import LineSettings, Workspace, line_settings
from novad.errors import ConfigError, ImageError
from novad.images import Sample, build_manifest, discover
from novad.images.decode import suffix
from novad.images.layouts import accepted_sample, accepted_stem
from novad.images.leaving_out import without
from novad.images.manifest import describe_images
from novad.images.splits import alike_groups, alike_pairs
from novad.pipeline.tracked_data import own_data
from novad.pipeline.verified_images import VerifiedImage, image_bytes, verified_images
from novad.stages.validate import divided, held_to_gate
from novad.tracking import acceptances

__all__ = ["NextDataset", "divide_next", "next_dataset"]

_ID_CHARACTERS = 8


@dataclass(frozen=True)
class NextDataset:
    """The data of a line as they would be; nothing is changed yet."""

    folder: Path
    tracked_by: Path
    """DVC's file about the folder."""
    ready: tuple[VerifiedImage, ...]
    held_back: tuple[VerifiedImage, ...]
    manifest: pd.DataFrame
    """Of what is there and what is ready, sorted by path, with ``source`` and ``split``."""


def next_dataset(workspace: Workspace, line: str, only: Sequence[str] = ()) -> NextDataset:
    """The data with every verified image that may join them.

    An image is held back when its file is gone, when the data say otherwise of the same file, and when it
    would bring nearly the same picture to two sides of a division or move an image that is there.

    Args:
        only: prediction ids, or digests or their beginnings; empty for all.
    Raises:
        ConfigError: an unknown line, a folder that does not follow its layout, or nothing waits under a name
            of ``only``.
        RefusedError: images cannot join the data of this line; see ``own_data`` and ``accepted_sample``.
        IntegrityError: the event log was changed.
    """
    settings = line_settings(workspace.params, line)
    folder, tracked_by = own_data(workspace, line)
    accepted_sample(settings.layout, "", None, good=True)
    max_pixels = settings.validation.max_pixels
    present = build_manifest(folder, discover(folder, settings.layout), max_pixels)
    if settings.validation.leave_out:
        # An image that the line is trained without must not keep others from joining it.
        present = without(present, held_to_gate(present, settings, None)[1].left_out)
    waiting = _chosen(line, _waiting(workspace, line, present), only)
    placed: dict[str, VerifiedImage] = {}
    fresh = describe_images(_place(workspace, waiting, settings.layout, placed), max_pixels)
    manifest, reasons = divide_next(present, fresh, settings)
    for sha256, reason in reasons.items():
        placed[sha256] = placed[sha256].keep_back(reason)
    return NextDataset(
        folder,
        tracked_by,
        tuple(each for each in placed.values() if each.held_back is None),
        tuple(each for each in placed.values() if each.held_back is not None),
        manifest,
    )


def _waiting(workspace: Workspace, line: str, present: pd.DataFrame) -> Iterator[VerifiedImage]:
    """Verified images that the data lack, or of which they say otherwise."""
    accepted = {each.sha256 for each in acceptances(workspace, line)}
    there: dict[str, list[tuple[str, bool]]] = {}
    for digest, path, label in zip(present["sha256"], present["path"], present["label"], strict=True):
        there.setdefault(digest, []).append((path, label == 0))
    for image in verified_images(workspace, line):
        known = there.get(image.sha256, [])
        otherwise = [path for path, good in known if good != image.good]
        if otherwise:
            yield image.keep_back(f"the same file lies in the data as {otherwise[0]}: take it out of there")
        elif not known and image.sha256 not in accepted:
            yield image


def _chosen(line: str, waiting: Iterator[VerifiedImage], only: Sequence[str]) -> list[VerifiedImage]:
    images = list(waiting)
    if not only:
        return images
    chosen = set()
    for name in only:
        named = [each.sha256 for each in images if _is_called(each, name.lower())]
        if not named:
            raise ConfigError(f"--only: {name}: no verified image of {line} waits under this name")
        chosen |= set(named)
    return [each for each in images if each.sha256 in chosen]


def _is_called(image: VerifiedImage, name: str) -> bool:
    return name in image.prediction_ids or (len(name) >= _ID_CHARACTERS and image.sha256.startswith(name))


def _place(
    workspace: Workspace, waiting: list[VerifiedImage], layout: str, placed: dict[str, VerifiedImage]
) -> Iterator[tuple[Sample, bytes]]:
    """Every image that is at hand, as the layout will find it; ``placed`` gains all, by digest."""
    for image in waiting:
        data = None if image.held_back else image_bytes(workspace, image)
        if data is None:
            placed[image.sha256] = image.keep_back("its file is gone, or is another one by now")
            continue
        try:
            name = accepted_stem(image.sha256) + suffix(data, image.sources[-1])
        except ImageError as error:
            placed[image.sha256] = image.keep_back(str(error))
            continue
        sample = accepted_sample(layout, name, image.defect_type, good=image.good)
        placed[image.sha256] = replace(image, path=sample.path)
        yield sample, data


def divide_next(
    present: pd.DataFrame, fresh: pd.DataFrame, settings: LineSettings
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The divided manifest of both, and why some of ``fresh`` cannot be in it, by digest."""
    bits = settings.validation.near_duplicate_bits
    before = divided(present, settings).set_index("path")["split"]
    reasons: dict[str, str] = {}
    while True:
        joining = fresh[~fresh["sha256"].isin(list(reasons))]
        both = pd.concat([present, joining]) if len(joining) else present
        manifest = divided(both.sort_values("path", ignore_index=True), settings)
        conflicts = _parted(manifest, before, bits) | _moving(manifest, before, bits)
        if not conflicts:
            return manifest, reasons
        reasons |= conflicts


def _parted(manifest: pd.DataFrame, before: pd.Series, bits: int) -> dict[str, str]:
    """New images with nearly the same picture on another side."""
    paths, splits, digests = (manifest[name].tolist() for name in ("path", "split", "sha256"))
    found = {}
    for pair in alike_pairs(manifest, bits):
        for one, other in (pair, pair[::-1]):
            if splits[one] != splits[other] and paths[one] not in before.index:
                found[digests[one]] = f"nearly the same picture as {paths[other]} in {splits[other]}"
    return found


def _moving(manifest: pd.DataFrame, before: pd.Series, bits: int) -> dict[str, str]:
    """New images because of which one that is there would change sides."""
    known = manifest["path"].isin(before.index)
    moved = known & (manifest["split"] != manifest["path"].map(before)) & manifest["split"].notna()
    found = {}
    for group in alike_groups(manifest, bits) if moved.any() else []:
        rows = manifest.iloc[group]
        if moved.iloc[group].any():
            path = rows["path"][moved.iloc[group]].iloc[0]
            for digest in rows["sha256"][~known.iloc[group]]:
                found[digest] = f"nearly the same picture as {path}, which would change from {before[path]}"
    return found
