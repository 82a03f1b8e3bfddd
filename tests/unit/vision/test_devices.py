"""Scoring on a GPU: the same search and sums elsewhere, nothing left on the processor, a clear refusal."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from novad.errors import ConfigError
from novad.evaluation.parity import KINDS, TOLERANCE, score_differences
from novad.vision import Detector, pooling, search_index
from novad.vision.appearance import appearance_candidate, fit_appearance_novelty
from novad.vision.devices import check_device
from novad.vision.evidence import Evidence
from novad.vision.models import NoveltyModel, raw_scores
from novad.vision.novelty import Candidate
from novad.vision.patch_evidence import Discriminant, PatchEvidence, patch_candidate
from novad.vision.pooling import _extreme_means_where_they_lie, extreme_means
from novad.vision.preprocess import to_batch
from novad.vision.residuals import FIGURES
from novad.vision.search_index import DeviceIndex, VectorIndex, build_index

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("neighbours", [1, 5])
@pytest.mark.parametrize("at_once", [1, 700, 1 << 26])
def test_a_gpus_search_finds_what_the_processors_does(
    at_once: int, neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "DISTANCES_AT_ONCE", at_once)
    vectors, queries = _numbers(300, 12), _numbers(41, 12, seed=1)
    found, exact = (
        index.search(queries, neighbours) for index in (DeviceIndex(vectors), build_index(vectors))
    )
    assert isinstance(build_index(vectors), VectorIndex)
    assert np.allclose(found[0], exact[0], rtol=1e-5, atol=1e-5)
    assert np.array_equal(found[1], exact[1])


def test_a_gpus_sort_gives_the_means_of_the_processors() -> None:
    maps = _numbers(3, 11, 13)
    for here, there in zip(
        extreme_means(maps, [0.001, 0.1, 1.0]),
        _extreme_means_where_they_lie(maps.flatten(1), [0.001, 0.1, 1.0]),
        strict=True,
    ):
        assert torch.allclose(here, there, atol=1e-6)


def test_every_step_of_scoring_stays_on_the_device(saved: Path, pictures: Any) -> None:
    """On tensors that have shapes and a device and no values: torch refuses what lies on two devices."""
    detector = _reading_everything(Detector.load(saved), pictures)
    detector.familiarity.bank.displacement = torch.zeros(2)
    with _no_values(), _no_gradients():
        there = _moved(detector)
        images = torch.empty(2, 3, *detector.image_size, device="cuda")
        for novelty in _novelties(there.novelty, there.familiarity.bank.vectors.shape[1]):
            found = raw_scores(there.familiarity, novelty, images)
            first = found.familiarity
            tensors = [
                first.scores,
                first.distances,
                first.maps,
                first.nearest,
                found.novelty,
                found.novelty_maps,
            ]
            assert {str(each.device) for each in tensors} == {"cuda:0"}
        with pytest.raises(RuntimeError, match="device"):
            raw_scores(there.familiarity, replace(there.novelty, normal=detector.novelty.normal), images)


def _novelties(everything: NoveltyModel, directions: int) -> list[NoveltyModel]:
    """Of all deviations; with a learned map; of appearance alone; of one, without others' statistics."""
    appearance, one = everything.judged[-1], everything.judged[0]
    count = 2 + 8 + directions
    patches = PatchEvidence(
        *_numbers(2, count).abs().to("cuda"), Discriminant(_numbers(6 * count).to("cuda"), 0.25, 2.0)
    )
    return [
        everything,
        replace(everything, shown=appearance),
        replace(everything, shown=patch_candidate(0.1), patches=patches),
        replace(everything, shown=appearance, judged=(appearance,), evidence=None, residuals=False),
        replace(everything, shown=one, judged=(one,), evidence=None, residuals=False, appearance=None),
    ]


def _reading_everything(detector: Detector, pictures: Any) -> Detector:
    """Its novelty weighs every kind of deviation, the memory's residuals and appearance, blurred."""
    familiarity, novelty = detector.familiarity, detector.novelty
    bank, [usual] = familiarity.bank, novelty.normal.values()
    bank.appearance = _numbers(len(bank.vectors), 8).abs()
    images = to_batch(pictures, detector.image_size)
    with torch.inference_mode():
        differences = familiarity.differences(images, familiarity.score(familiarity.backbone(images)))
    assert differences is not None
    judged = tuple(
        Candidate("layer2", statistic, 2.0, located, side, 0.05)
        for statistic in ("weight_norm", "colour_residual", "joint")
        for located in (True, False)
        for side in (("high",) if statistic == "joint" else ("high", "low", "both"))
    )
    width = len(judged) + 1 + FIGURES * (bank.vectors.shape[1] + 8)
    weighed = replace(
        novelty,
        shown=judged[0],
        judged=(*judged, appearance_candidate(0.1)),
        evidence=Evidence(*(_numbers(3, width).abs() + 0.5), 0.25, 2.0),
        normal={2.0: usual},
        residuals=True,
        appearance=fit_appearance_novelty(differences),
    )
    return Detector(
        "metal", detector.image_size, replace(familiarity, smoothing=1.0), weighed, detector.fusion
    )


@contextmanager
def _no_values() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    pooling._blur.cache_clear()  # of blurs without values


@contextmanager
def _no_gradients() -> Iterator[None]:
    """The way back asks the driver of a real GPU; here it gives a gradient of the right shape and place."""

    def like_inputs(_outputs: Any, inputs: Tensor, cotangents: list[Tensor], **_: Any) -> tuple[Tensor]:
        assert {each.device for each in cotangents} == {inputs.device}
        return (torch.empty_like(inputs),)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.autograd, "grad", like_inputs)
        yield


class _NoIndex:
    """A search that finds the first vector, for queries on the device alone."""

    lists = (0, 0)

    def search(self, queries: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        assert queries.device.type == "cuda"
        shape = (len(queries), neighbours)
        return torch.ones(shape, device="cuda"), torch.zeros(shape, dtype=torch.long, device="cuda")


def _moved(detector: Detector) -> Detector:
    """A copy whose every tensor lies on the device."""
    moved: dict[int, Tensor] = {}

    def there(tensor: Tensor, _memo: dict[int, Any]) -> Tensor:
        if id(tensor) not in moved:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
            own = isinstance(tensor, nn.Parameter)
            moved[id(tensor)] = nn.Parameter(empty, requires_grad=False) if own else empty
        return moved[id(tensor)]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Tensor, "__deepcopy__", there)
        patched.setattr(nn.Parameter, "__deepcopy__", there)
        patched.setattr(detector.familiarity.bank, "_index", _NoIndex())
        return copy.deepcopy(detector)


@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:999", ""])
def test_a_device_that_is_not_there_is_refused_by_name(device: str, saved: Path) -> None:
    with pytest.raises(ConfigError, match=f"^device '{device}': "):
        Detector.load(saved, device)
    check_device("cpu")


def test_a_detector_scores_on_the_processor_unless_told_otherwise(saved: Path) -> None:
    assert Detector.load(saved).device == Detector.load(saved, "cpu").device == torch.device("cpu")


def test_nothing_on_a_gpu_rounds_to_ten_bits() -> None:
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = True
        with _no_values():
            check_device("cuda")
        assert [part.allow_tf32 for part in parts] == [False, False]
    finally:
        for part, allowed in zip(parts, before, strict=True):
            part.allow_tf32 = allowed


@needs_gpu
def test_a_gpu_scores_as_the_processor_does(saved: Path, pictures: Any) -> None:
    here, there = Detector.load(saved), Detector.load(saved, "cuda")
    assert there.device.type == "cuda"
    for one, other in zip(here.score(pictures), there.score(pictures), strict=True):
        recorded = {kind: getattr(one, kind) for kind in KINDS}
        assert all(each <= TOLERANCE for each in score_differences(recorded, other).values())
        assert np.allclose(one.hybrid_map, other.hybrid_map, atol=1e-2)
