"""What every test may rely on."""

import sys
from collections.abc import Iterator

import hypothesis
import pytest

from novad.garbage import spare_search

# As the command does: libraries are loaded in a fifth less time.
spare_search()

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("novad", deadline=None)
hypothesis.settings.load_profile("novad")

pytest_plugins = ["image_folders", "tiny_pipeline", "tracking_fixtures", "verified_line"]


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """Given back as they were: sums depend on how many share them, and other tests compare bytes."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
