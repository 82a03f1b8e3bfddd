"""Weights that others trained, as local checkpoints; a download only when a user asks for it by name."""

import pickle
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.vision.backbones import file_sha256
from novad.vision.bcos_zoo import PREFIX, named_after, zoo_network, zoo_networks

__all__ = ["download", "download_zoo", "import_zoo"]

_SECONDS = 10.0


def download(name: str, folder: Path) -> Path:
    """Fetch pretrained weights of a timm network and keep them as a local checkpoint.

    Args:
        name: timm's, with an optional tag: ``resnet18.a1_in1k``.
        folder: where ``NAME.safetensors`` goes; an existing file is used as it is.
    Raises:
        ConfigError: timm does not know the name.
        ServiceError: the hub cannot be reached; the message names the alternative.
    """
    import timm

    target = folder / f"{name}.safetensors"
    if target.is_file():
        return target
    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"timm:{name}: timm knows no such network")
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise ServiceError(
            f"timm:{name}: the weights could not be downloaded ({type(error).__name__}); without a network "
            "connection, give a local file: --backbone PATH.safetensors"
        ) from error
    cfg: dict[str, Any] = vars(network)["pretrained_cfg"]
    metadata: dict[str, str] = {
        "timm": name.split(".")[0],
        "num_classes": str(network.num_classes),
        "mean": " ".join(map(str, cfg["mean"])),
        "std": " ".join(map(str, cfg["std"])),
    }
    return _keep(network.state_dict(), target, metadata)


def download_zoo(name: str, folder: Path) -> Path:
    """Fetch the weights of a network of the B-cos zoo and keep them as a local checkpoint.

    Args:
        name: ``resnet_50``; underscores may be left out.
        folder: as in ``import_zoo``; a checkpoint that is there already is used as it is.
    Raises:
        ConfigError: the zoo has no such network.
        IntegrityError: what came is not what the zoo's name of the file says.
        ServiceError: it cannot be reached; the message names the alternative.
    """
    network = zoo_network(name)
    file = network.url.rsplit("/", 1)[1]
    for kept in folder.glob(f"{Path(file).stem}*.safetensors"):
        return kept
    with tempfile.TemporaryDirectory() as fresh:
        path = Path(fresh) / file
        try:
            # The address is the package's own, not a user's.
            with urllib.request.urlopen(network.url, timeout=_SECONDS) as answer:  # noqa: S310
                path.write_bytes(answer.read())
        except OSError as error:
            raise ServiceError(
                f"{PREFIX}{network.name}: {network.url} could not be downloaded ({error}); without a network "
                f"connection, give a local file: --backbone PATH/{file}"
            ) from error
        return import_zoo(path, folder)


def import_zoo(path: Path, folder: Path) -> Path:
    """Keep a weight file of the B-cos zoo as a checkpoint that tells network and digest of its source.

    Args:
        path: ``.pth`` file named after its network; nothing but tensors is read from it.
        folder: where ``NAME-DIGEST.safetensors`` goes.
    Raises:
        ConfigError: the name says no network, or the file does not hold its weights.
        IntegrityError: the name tells a digest, and the file has another.
    """
    name, sha256 = named_after(path), file_sha256(path)
    if name is None:
        raise ConfigError(
            f"{path}: nothing says which architecture this is; name the file after its network in the B-cos "
            f"zoo, as in resnet_50.pth; there are {', '.join(each.name for each in zoo_networks())}"
        )
    told = re.fullmatch(r".*-([0-9a-f]{10,64})\.pth", path.name)
    if told and not sha256.startswith(told[1]):
        raise IntegrityError(f"{path}: its name says sha256 {told[1]}, the file has {sha256}")
    weights = _tensors(path)
    try:
        zoo_network(name).build().load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ConfigError(f"{path}: the weights do not fit {PREFIX}{name}: {str(error)[:400]}") from None
    target = folder / f"{name}-{sha256[:12]}.safetensors"
    return _keep(weights, target, {"bcos": PREFIX + name, "source_sha256": sha256})


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{path}: cannot be read as weights and nothing else: {str(error).partition(chr(10))[0][:200]}"
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise ConfigError(f"{path}: is not a dictionary of tensors by name")
    return dict(weights)


def _keep(weights: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial, metadata)
    partial.replace(target)
    return target
