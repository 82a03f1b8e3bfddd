"""Weights from timm's hub, only when a user asks for them by name."""

from pathlib import Path
from typing import Any

from novad.errors import ConfigError, ServiceError

__all__ = ["download"]


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
    from safetensors.torch import save_file

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
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial, metadata)
    partial.replace(target)
    return target
