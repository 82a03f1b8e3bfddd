"""Where a detector scores: the processor, or a GPU."""

import torch

from novad.errors import ConfigError

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here; on a GPU, sum in single precision all through.

    Convolutions there round to ten bits by default (TF32): scores would differ from those that thresholds
    were settled with.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` and the like.
    Raises:
        ConfigError: no such device; the message tells torch's reason.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device '{device}': torch cannot compute there: {reason}") from None
    if found.type == "meta":
        raise ConfigError(f"device '{device}': nothing is computed there")
    if found.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
