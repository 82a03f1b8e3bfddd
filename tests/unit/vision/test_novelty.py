"""Novelty statistics and their normal distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from novad.errors import CalibrationError, ConfigError
from novad.vision.backbones import BcosBackbone
from novad.vision.candidates import CandidateGrid, candidate_scores, fit_normal_statistics
from novad.vision.explainers import BcosExplainer, Explanation
from novad.vision.models import NoveltyModel
from novad.vision.novelty import (
    Candidate,
    StatisticMoments,
    deviation,
    deviation_scores,
    map_step,
    statistic_maps,
)
from novad.vision.pooling import extreme_means, smooth, top_means
from novad.vision.selection import candidate_table, choose

NAMES = ("contribution", "weight_norm")


def maps(images: int = 30, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    place = torch.linspace(-2, 2, 16)[None, None, :, None]
    return (
        torch.randn(images, 2, 16, 12, generator=generator) * torch.tensor([1.0, 3.0])[None, :, None, None]
        + place
    )


def explanation(seed: int = 0) -> Explanation:
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(1, 3, 8, 8, generator=generator)
    encoded = torch.cat([colours, 1 - colours], 1)
    weight = torch.randn(1, 6, 8, 8, generator=generator)
    return Explanation((weight * encoded).sum(1), torch.ones(1), encoded, weight)


def test_streamed_moments_equal_those_of_the_whole() -> None:
    stream = StatisticMoments()
    for part in torch.split(maps(), 7):
        stream.add(part)
    normal = stream.finish(location_smoothing=0.0)
    whole = maps().double()
    assert torch.allclose(normal.mean, whole.mean(0).float(), atol=1e-5)
    assert torch.allclose(normal.centre, whole.mean(dim=(0, 2, 3)).float(), atol=1e-5)
    assert torch.allclose(
        normal.scale, whole.transpose(0, 1).flatten(1).std(1, correction=0).float(), atol=1e-4
    )
    floor = 0.05 * normal.scale.double().square()[:, None, None]
    spread = whole.var(0, correction=0).clamp_min(floor).sqrt()
    assert torch.allclose(normal.spread, spread.float(), atol=1e-4)


def test_deviation_counts_standard_deviations_on_the_side_asked_for() -> None:
    stream = StatisticMoments()
    stream.add(maps())
    normal = stream.finish(location_smoothing=0.0)
    query = maps(3, seed=8)
    expected = (query[:, 1] - normal.centre[1]) / normal.scale[1]
    high = deviation(query, NAMES, normal, "weight_norm", False, "high")
    assert torch.allclose(high, expected, atol=1e-5)
    assert torch.equal(deviation(query, NAMES, normal, "weight_norm", False, "low"), -high)
    assert torch.equal(deviation(query, NAMES, normal, "weight_norm", False, "both"), high.abs())
    located = deviation(query, NAMES, normal, "weight_norm", True, "high")
    assert torch.allclose(located, (query[:, 1] - normal.mean[1]) / normal.spread[1], atol=1e-5)


@pytest.mark.parametrize("located", [False, True])
def test_joint_deviation_is_the_mahalanobis_distance(located: bool) -> None:
    stream = StatisticMoments()
    stream.add(maps(200))
    normal = stream.finish(location_smoothing=0.0)
    query = maps(1, seed=8)
    found = deviation(query, NAMES, normal, "joint", located, "high")[0]
    samples = maps(200).double()
    centred = samples - (samples.mean(0) if located else samples.mean(dim=(0, 2, 3))[:, None, None])
    covariance = np.cov(centred.transpose(0, 1).flatten(1).numpy(), bias=True)
    covariance += 1e-3 * np.diag(np.diag(covariance))
    at = (query[0] - (normal.mean if located else normal.centre[:, None, None]))[:, 5, 7].double().numpy()
    assert float(found[5, 7]) == pytest.approx(float(np.sqrt(at @ np.linalg.inv(covariance) @ at)), rel=1e-3)


def test_statistics_are_what_their_names_say() -> None:
    told = explanation()
    weight, encoded = told.weight, told.encoded
    assert weight is not None
    found = statistic_maps(told, ("contribution", "weight_norm", "alignment", "colour_residual"), 1)[
        0, :, 3, 4
    ]
    w, x = weight[0, :, 3, 4], encoded[0, :, 3, 4]
    assert float(found[0]) == pytest.approx(float(w @ x), rel=1e-5)
    assert float(found[1]) == pytest.approx(float(torch.log(w.norm() + 1e-6)), rel=1e-5)
    assert float(found[2]) == pytest.approx(float(w @ x / (w.norm() * x.norm())), rel=1e-5)
    positive = w.clamp_min(0)
    total = positive[:3] + positive[3:]
    decoded = torch.where(total > 0, positive[:3] / total.clamp_min(1e-12), torch.tensor(0.5))
    assert float(found[3]) == pytest.approx(float((decoded - x[:3]).abs().mean()), rel=1e-5)


def test_a_perfectly_decoded_colour_leaves_no_residual() -> None:
    colours = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    encoded = torch.cat([colours, 1 - colours], 1)
    told = Explanation(torch.zeros(1, 4, 4), torch.ones(1), encoded, 2.5 * encoded)
    assert float(statistic_maps(told, ("colour_residual",), 1).abs().max()) < 1e-6


def test_statistics_that_an_explanation_lacks_are_refused() -> None:
    bare = Explanation(torch.zeros(1, 4, 4), torch.ones(1), torch.zeros(1, 3, 4, 4))
    with pytest.raises(CalibrationError, match="no weights"):
        statistic_maps(bare, ("weight_norm",), 1)
    with pytest.raises(CalibrationError, match="no novelty statistic 'mood'"):
        statistic_maps(explanation(), ("mood",), 1)


def test_one_normal_image_is_too_few() -> None:
    stream = StatisticMoments()
    stream.add(maps(1))
    with pytest.raises(CalibrationError, match="at least 2"):
        stream.finish()


def test_smoothing_keeps_a_constant_and_spreads_a_point() -> None:
    flat = torch.full((1, 2, 20, 20), 3.0)
    assert torch.allclose(smooth(flat, 2.0), flat, atol=1e-5)
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    blurred = smooth(point, 1.5)
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float(blurred.max()) == pytest.approx(1 / (2 * np.pi * 1.5**2), rel=0.02)


def test_top_means_equal_sorting() -> None:
    values = torch.randn(4, 10, 9, generator=torch.Generator().manual_seed(0))
    found = top_means(values, [0.001, 0.1, 1.0])
    ordered = values.flatten(1).sort(dim=1, descending=True).values
    for column, count in enumerate((1, 9, 90)):
        assert torch.allclose(found[:, column], ordered[:, :count].mean(1), atol=1e-5)


@pytest.mark.parametrize(("shape", "sigma"), [((9, 14), 1.0), ((40, 33), 2.0), ((5, 60), 4.0)])
def test_smoothing_is_a_gaussian_filter_with_reflected_borders(shape: tuple[int, int], sigma: float) -> None:
    values = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(5))
    radius = min(round(3 * sigma), min(shape) - 1)
    expected = gaussian_filter(values.double().numpy(), sigma, mode="mirror", axes=(2, 3), radius=radius)
    assert np.allclose(smooth(values, sigma).numpy(), expected, atol=1e-5)


def test_a_blur_that_was_first_asked_for_inference_lets_gradients_pass() -> None:
    values = torch.rand(1, 1, 11, 13, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        smooth(values, 1.7)
    wanted = values.clone().requires_grad_()
    smooth(wanted, 1.7)[0, 0, 5, 6].backward()
    assert wanted.grad is not None
    assert float(wanted.grad.sum()) == pytest.approx(1.0, abs=1e-5)


def test_lowest_means_are_the_highest_of_the_other_side() -> None:
    values, shares = torch.randn(3, 8, 7, generator=torch.Generator().manual_seed(1)), [0.01, 0.2, 1.0]
    highest, lowest = extreme_means(values, shares)
    assert torch.equal(highest, top_means(values, shares))
    assert torch.equal(lowest, top_means(-values, shares))


def test_maps_of_large_images_stay_near_128_wide() -> None:
    assert [map_step(size) for size in (64, 224, 256, 640, 1024)] == [2, 2, 2, 5, 8]
    assert [map_step(size) for size in ((256, 1600), (1600, 256), (64, 256))] == [5, 5, 2]


def test_the_chosen_candidate_scores_alike_alone_and_in_the_grid(random_backbone: BcosBackbone) -> None:
    explainer = BcosExplainer(random_backbone)
    grid = CandidateGrid.of(explainer, ("layer1", "layer2"), (), (0.0, 1.0), (0.01, 0.1))
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    fits = fit_normal_statistics(grid, [(explainer, batch) for batch in torch.split(images, 2)])
    scores, features = candidate_scores(explainer, grid, fits, images)
    candidates = [candidate for target in grid.targets for candidate in grid.candidates(target)]
    assert scores.shape == (4, len(candidates))
    assert set(features) == set(random_backbone.layers)
    for at in range(0, len(candidates), 17):
        candidate = candidates[at]
        normal = {candidate.smoothing: fits[candidate.target, candidate.smoothing]}
        model = NoveltyModel(explainer, candidate, (candidate,), None, normal)
        found = model.explain(images)
        alone = model.score(found.deviations)
        assert torch.equal(alone, top_means(found.maps, [candidate.top_share])[:, 0])
        assert np.allclose(scores[:, at], alone.numpy(), rtol=1e-4, atol=1e-4)


@given(
    st.lists(
        st.builds(
            Candidate,
            target=st.just("layer1"), statistic=st.sampled_from((*NAMES, "joint")),
            smoothing=st.sampled_from((0.0, 1.5)), located=st.booleans(),
            side=st.sampled_from(("high", "low", "both")), top_share=st.sampled_from((0.01, 0.2, 1.0)),
        ).filter(lambda each: each.statistic != "joint" or each.side == "high"),
        max_size=12,
    )
)  # fmt: skip
def test_candidates_score_together_as_each_does_alone(candidates: list[Candidate]) -> None:
    """Whatever they have in common, in the order that they come in."""
    normal = {}
    for smoothing in (0.0, 1.5):
        moments = StatisticMoments()
        moments.add(smooth(maps(), smoothing))
        normal[smoothing] = moments.finish()
    asked = maps(3, seed=5)
    found = deviation_scores(asked, NAMES, normal, candidates)
    assert found.shape == (3, len(candidates))
    for at, each in enumerate(candidates):
        seen, usual = smooth(asked, each.smoothing), normal[each.smoothing]
        alone = deviation(seen, NAMES, usual, each.statistic, each.located, each.side)
        assert torch.allclose(found[:, at], top_means(alone, [each.top_share])[:, 0], atol=1e-5)


def test_a_grid_refuses_what_the_explainer_does_not_offer(random_backbone: BcosBackbone) -> None:
    explainer = BcosExplainer(random_backbone)
    with pytest.raises(ConfigError, match=r"calibrate_explainer\.targets: no layer9"):
        CandidateGrid.of(explainer, ("layer9",), (), (0.0,), (0.01,))
    with pytest.raises(ConfigError, match=r"calibrate_explainer\.statistics: no mood"):
        CandidateGrid.of(explainer, (), ("mood",), (0.0,), (0.01,))


def test_a_candidate_that_is_surely_better_is_chosen(random_backbone: BcosBackbone) -> None:
    grid = CandidateGrid.of(BcosExplainer(random_backbone), ("layer1",), ("contribution",), (0.0,), (0.01,))
    candidates = grid.candidates("layer1")
    rng = np.random.default_rng(0)
    anomalous = np.arange(60) >= 40
    novelty = rng.normal(size=(60, len(candidates)))
    novelty[anomalous, 3] += 3
    table = candidate_table(
        candidates,
        rng.normal(size=60),
        novelty,
        np.arange(60) < 20,
        anomalous,
        np.ones(60, bool),
        0.05,
        1.0,
    )
    assert choose(candidates, candidates[0], novelty, anomalous) == candidates[3]
    assert table[3]["auroc"] == max(row["auroc"] for row in table)


def test_luck_among_many_candidates_does_not_replace_the_reference(random_backbone: BcosBackbone) -> None:
    grid = CandidateGrid.of(BcosExplainer(random_backbone), (), (), (0.0, 2.0), (0.002, 0.05))
    candidates = [candidate for target in grid.targets for candidate in grid.candidates(target)]
    rng = np.random.default_rng(4)
    anomalous = np.arange(60) >= 40
    kept = 0
    for _ in range(20):
        shared = rng.normal(size=(60, 1))
        novelty = shared + 0.5 * rng.normal(size=(60, len(candidates)))
        luckiest = choose(candidates, candidates[5], novelty, anomalous, confidence=0.0)
        kept += choose(candidates, candidates[5], novelty, anomalous) == candidates[5]
        assert luckiest != candidates[5]
    assert kept >= 10


def test_a_gain_is_measured_in_delongs_standard_errors() -> None:
    rng = np.random.default_rng(0)
    anomalous = np.arange(50) >= 30
    novelty = rng.normal(size=(50, 2))
    novelty[anomalous, 1] += 1
    names = [Candidate("layer1", name, 0.0, False, "high", 0.01) for name in ("contribution", "alignment")]
    good, bad = novelty[~anomalous], novelty[anomalous]
    wins = (bad[:, None, :] > good[None, :, :]).astype(float)
    difference = wins[..., 1] - wins[..., 0]
    error = np.sqrt(difference.mean(1).var(ddof=1) / 20 + difference.mean(0).var(ddof=1) / 30)
    z = difference.mean() / error
    assert choose(names, names[0], novelty, anomalous, confidence=0.99 * z) == names[1]
    assert choose(names, names[0], novelty, anomalous, confidence=1.01 * z) == names[0]


def test_the_reference_is_the_nearest_that_the_grid_offers(random_backbone: BcosBackbone) -> None:
    explainer = BcosExplainer(random_backbone)
    whole = CandidateGrid.of(explainer, (), (), (0.0, 2.0, 4.0), (0.002, 0.01))
    assert whole.reference(explainer) == Candidate("layer1", "weight_norm", 2.0, True, "high", 0.002)
    narrow = CandidateGrid.of(explainer, ("layer3",), ("alignment",), (4.0,), (0.05,))
    assert narrow.reference(explainer) == Candidate("layer3", "alignment", 4.0, True, "high", 0.05)
