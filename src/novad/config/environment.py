"""The environment of this process: what it says of the machine, and how it is changed for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["environment_kept", "scoring_device"]


def scoring_device() -> str:
    """Where detectors score on this machine, by ``NOVAD_DEVICE``; the processor where nothing is said."""
    return os.environ.get("NOVAD_DEVICE", "").strip() or "cpu"


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """Put the variables back as they are now when the block ends, whatever it made of them."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
