"""What the stages of a line read alike: its settings, its images by split, its networks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.config import BackboneSettings, LineSettings, Workspace, line_settings
from novad.images import decode_image, decode_mask, read_manifest
from novad.images.splits import alike_groups
from novad.stages.runner import read_json

if TYPE_CHECKING:
    from novad.vision.backbones import Backbone

__all__ = ["Line", "evenly", "layers_read", "spread"]


@dataclass(frozen=True)
class Line:
    """One product line's settings and validated images.

    Attributes:
        workspace: where everything lies.
        name: of the line.
        settings: from ``params.yaml``.
        manifest: one row per image, from the validate stage, without the thumbnails that only it reads.
    """

    workspace: Workspace
    name: str
    settings: LineSettings
    manifest: pd.DataFrame

    @classmethod
    def open(cls, workspace: Workspace, name: str) -> "Line":
        """Read settings and manifest.

        Raises:
            ConfigError: settings wrong, or the validate stage has not run.
        """
        settings = line_settings(workspace.params, name)
        manifest = read_manifest(workspace.artifacts(name, "validate") / "manifest.parquet", thumbnails=False)
        return cls(workspace, name, settings, manifest)

    def rows(self, *splits: str) -> pd.DataFrame:
        """Manifest rows of some splits, in the manifest's order."""
        return self.manifest[self.manifest["split"].isin(splits)].reset_index(drop=True)

    def bank_rows(self) -> pd.DataFrame:
        """Manifest rows of the images that the memory bank was built from, as its origins number them.

        Raises:
            ConfigError: the memory_bank stage has not run.
        """
        known = {path for path, _ in read_json(self.output("memory_bank", "bank.json"))["images"]}
        rows = self.rows("bank")
        return rows[rows["path"].isin(known)].reset_index(drop=True)

    def parts(self, rows: pd.DataFrame) -> NDArray[np.str_]:
        """(n,) name of the part that each row shows: what is nearly the same picture shows one."""
        manifest = read_manifest(self.output("validate", "manifest.parquet"))
        seen = manifest[manifest["sha256"].isin(rows["sha256"])].reset_index(drop=True)
        digests, names = seen["sha256"].to_numpy(str), dict[str, str]()
        for group in alike_groups(seen, self.settings.validation.near_duplicate_bits):
            names |= dict.fromkeys(digests[group].tolist(), str(min(digests[group])))
        return np.array([names[digest] for digest in rows["sha256"]], np.str_)

    def images(self, rows: pd.DataFrame) -> Iterator[Any]:
        """Decoded images of ``rows``, one at a time: (H, W, 3) uint8 or uint16."""
        root = self.workspace.path(self.settings.data)
        for path in rows["path"]:
            yield decode_image(root / path, self.settings.validation.max_pixels)

    def mask(self, row: Any) -> NDArray[np.bool_] | None:
        """(H, W) mask of the defect in the image of a manifest row; None where there is none."""
        if row.label == 0 or not isinstance(row.mask_path, str):
            return None
        return decode_mask(self.path(row.mask_path), self.settings.validation.max_pixels)

    def path(self, image: str) -> Path:
        """File of an image or mask that the manifest names."""
        return self.workspace.path(self.settings.data) / image

    def backbone(self, settings: BackboneSettings, layers: Sequence[str] = ()) -> "Backbone":
        """Load a network by its settings, digest checked, to read ``layers`` or those of the settings."""
        from novad.vision.backbones import load_backbone

        checkpoint = self.workspace.path(settings.checkpoint)
        return load_backbone(
            settings.architecture, checkpoint, settings.sha256, layers or settings.layers, settings.tile
        )

    def output(self, stage: str, name: str) -> Path:
        """A file that another stage left."""
        return self.workspace.artifacts(self.name, stage) / name


def layers_read(bank: Mapping[str, Any]) -> list[str]:
    """Every layer that the bank of ``bank.json`` and its companions compare."""
    return list(dict.fromkeys([*bank["layers"], *bank["companions"]]))


def spread(length: int, count: int) -> NDArray[np.int64]:
    """``count`` of ``length`` positions, evenly spread: file names often follow the calendar."""
    return np.asarray(np.arange(count) * length // max(count, 1), np.int64)


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many of the rows, evenly spread."""
    return rows.iloc[spread(len(rows), min(most, len(rows)))]
