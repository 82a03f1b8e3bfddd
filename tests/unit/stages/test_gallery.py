"""Which test images are kept as pictures: at every threshold the misjudged ones come first."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from novad.stages.gallery import telling_images

_IMAGES = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=1, max_size=40)


def _scores(images: list[tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sha256": [f"{at:064x}" for at in range(len(images))],
            "label": [label for label, _ in images],
            "defect_type": ["dent" if at % 2 and label else "good" for at, (label, _) in enumerate(images)],
            "hybrid": [float(hybrid) for _, hybrid in images],
        }
    )


@given(_IMAGES, st.integers(0, 6), st.integers(-6, 6))
def test_at_any_threshold_as_many_misses_and_false_alarms_are_kept_as_fit(
    images: list[tuple[int, int]], most: int, threshold: int
) -> None:
    scores = _scores(images)
    kept = telling_images(scores, most)
    for label, wrong in ((1, scores["hybrid"] <= threshold), (0, scores["hybrid"] > threshold)):
        misjudged = scores[wrong & (scores["label"] == label)]
        assert len(kept.merge(misjudged)) >= min(most, len(misjudged))
    assert kept["sha256"].is_unique
    assert len(kept) <= 3 * most


def test_clear_defects_come_from_every_type() -> None:
    scores = _scores([(1, 9)] * 8)
    scores["defect_type"] = ["scratch"] * 6 + ["dent"] * 2
    scores["hybrid"] = [9.0, 8.0, 7.0, 6.0, 5.0, 1.0, 4.0, 3.0]
    kept = telling_images(scores, 2)
    assert set(kept["hybrid"]) == {1.0, 3.0, 9.0, 4.0}
