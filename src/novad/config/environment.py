"""The environment of this process, changed for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["environment_kept"]


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
