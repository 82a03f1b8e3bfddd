"""What ``--backbone`` may name, and the file and settings that it stands for."""

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from pydantic import ValidationError

from novad.config import BackboneSettings, Workspace, wrong_option
from novad.config.settings import BUNDLED_ARCHITECTURE, BUNDLED_CHECKPOINT
from novad.errors import ConfigError

__all__ = ["Checkpoint", "bundled", "choose"]

_WEIGHTS = "weights"
_HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Checkpoint:
    """A backbone that a line may use.

    Attributes:
        settings: for ``params.yaml``.
        source: file outside the workspace that must be copied to ``settings.checkpoint``, or None.
    """

    settings: BackboneSettings
    source: Path | None = None

    @property
    def exact(self) -> bool:
        """Whether it is a B-cos network, which explains itself completely."""
        return self.settings.architecture.startswith((BUNDLED_ARCHITECTURE, "bcos:"))

    def keep(self, workspace: Workspace) -> None:
        """Copy the file into the workspace, so that the line does not hang on one elsewhere."""
        if self.source is None:
            return
        kept = workspace.path(self.settings.checkpoint)
        kept.parent.mkdir(exist_ok=True)
        partial = kept.with_name(f".{kept.name}.partial")
        shutil.copyfile(self.source, partial)
        partial.replace(kept)


def bundled(workspace: Workspace, image_size: int | str, tile: int = 0) -> Checkpoint:
    """The network that comes with novad.

    Raises:
        ConfigError: its file is missing, or the image size or tile is out of range.
    """
    return Checkpoint(_described(workspace.path(BUNDLED_CHECKPOINT), BUNDLED_CHECKPOINT, image_size, tile))


def choose(workspace: Workspace, spec: str, image_size: int | str, tile: int = 0) -> Checkpoint:
    """The backbone that ``spec`` names: ``bundled``, ``timm:NAME``, ``bcos:NAME`` or the path of a file.

    The two with a colon download, once, into ``weights/``; a ``.pth`` file of the B-cos zoo is kept there as
    safetensors. A relative path is relative to the current folder. The weights are loaded once, so that a
    file that does not fit, or cannot be tiled, is refused now and not in training.

    Raises:
        ConfigError: no such file or network, weights that do not fit, or a network that cannot be tiled.
        ServiceError: the hub cannot be reached.
    """
    if spec == "bundled":
        return bundled(workspace, image_size, tile)
    path = _local_file(spec, workspace.root / _WEIGHTS)
    if path.is_relative_to(workspace.root):
        chosen = Checkpoint(_described(path, path.relative_to(workspace.root).as_posix(), image_size, tile))
    else:
        chosen = _from_elsewhere(workspace, path, image_size, tile)
    _try_out(path, chosen.settings)
    return chosen


def _local_file(spec: str, weights: Path) -> Path:
    """The safetensors file behind ``spec``, made in ``weights`` where it is not one yet."""
    from novad.vision.hub import download, download_zoo, import_zoo

    if spec.startswith("timm:"):
        _do_not_wait_for_hub()
        return download(spec.removeprefix("timm:"), weights)
    if spec.startswith("bcos:"):
        return download_zoo(spec.removeprefix("bcos:"), weights)
    path = Path(spec).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(
            f"--backbone: {path}: no such checkpoint; it takes bundled, timm:NAME, bcos:NAME, a .safetensors "
            "file, or a .pth file of the B-cos zoo"
        )
    return import_zoo(path, weights) if path.suffix == ".pth" else path


def _do_not_wait_for_hub() -> None:
    """Let a hub that cannot be reached fail at once: its client would try again for most of a minute.

    What the client has in its own cache is found either way.
    """
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if address.hostname is None or address.scheme in getproxies():
        return
    try:
        socket.create_connection((address.hostname, address.port or 443), _HUB_SECONDS).close()
    except OSError:
        # Read when the client is imported, which is why this comes before.
        os.environ["HF_HUB_OFFLINE"] = "1"


def _from_elsewhere(workspace: Workspace, path: Path, image_size: int | str, tile: int) -> Checkpoint:
    """Settings that name the copy to be made; a different file of the same name stays as it is."""
    from novad.vision.backbones import file_sha256

    settings = _described(path, f"{_WEIGHTS}/{path.name}", image_size, tile)
    kept = workspace.path(settings.checkpoint)
    if kept.exists() and file_sha256(kept) != settings.sha256:
        name = f"{_WEIGHTS}/{path.stem}-{settings.sha256[:12]}{path.suffix}"
        settings = settings.model_copy(update={"checkpoint": name})
        kept = workspace.path(name)
    return Checkpoint(settings, None if kept.exists() else path)


def _described(path: Path, told: str, image_size: int | str, tile: int) -> BackboneSettings:
    from novad.vision.backbones import describe_checkpoint

    architecture, sha256 = describe_checkpoint(path)
    try:
        return BackboneSettings(
            architecture=architecture, checkpoint=told, sha256=sha256, image_size=image_size, tile=tile
        )
    except ValidationError as error:
        raise wrong_option(error) from None


def _try_out(path: Path, settings: BackboneSettings) -> None:
    from novad.vision.backbones import load_backbone

    load_backbone(settings.architecture, path, settings.sha256, settings.layers, settings.tile)
