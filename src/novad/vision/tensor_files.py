"""Safetensors files, read into memory of one's own."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from novad.errors import IntegrityError

__all__ = ["read_tensors"]


def read_tensors(path: Path, sha256: str | None = None, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of a safetensors file by name.

    ``safetensors.torch.load_file`` maps the file instead: whoever wrote to it later would change a detector
    that was checked, and whoever cut it short would end the process that judges by it.

    Args:
        path: the file.
        sha256: digest that the bytes must have from which the tensors are made; None for any.
        device: where they are to lie.
    Raises:
        IntegrityError: the file has another digest, or does not hold tensors.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise IntegrityError(f"{path}: sha256 is {found}, recorded {sha256}")
    try:
        return {name: tensor.to(device) for name, tensor in load(content).items()}
    except SafetensorError as error:
        raise IntegrityError(f"{path}: does not hold tensors: {error}") from None
