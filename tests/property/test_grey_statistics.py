"""Grey statistics in blocks are those of the whole image, to the bit, and need no memory of its size."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from novad.images import fingerprint
from novad.images.fingerprint import GreyStatistics, grey_statistics, to_grey

images = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=2, max_dims=2, max_side=12).map(lambda size: (*size, 3)))
)


def _of_whole_image(pixels: np.ndarray) -> GreyStatistics:
    grey, full = to_grey(pixels).astype(np.int64), np.iinfo(pixels.dtype).max
    inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    variance = int((grey * grey).sum()) / grey.size - (int(grey.sum()) / grey.size) ** 2
    return GreyStatistics(
        brightness=int(grey.sum()) / grey.size / full,
        contrast=math.sqrt(max(0.0, variance)) / full,
        sharpness=math.sqrt(int((inner * inner).sum()) / inner.size) / full if min(grey.shape) > 2 else 0.0,
    )


@given(pixels=images, block=st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_blocks_of_rows_give_the_figures_of_the_whole_image(pixels: np.ndarray, block: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fingerprint, "_BLOCK_PIXELS", block)
        assert grey_statistics(pixels) == _of_whole_image(pixels)


@pytest.mark.parametrize("size", [(4000, 4000), (1, 16_000_000), (16_000_000, 1)])
def test_a_large_image_takes_a_fraction_of_its_own_memory(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    tracemalloc.start()
    try:
        grey_statistics(pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < pixels.nbytes / 3
