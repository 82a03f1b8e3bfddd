"""Learned evidence: what it learns from, what it may not learn from, and how it is told apart from luck."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from novad.config import BackboneSettings, LineSettings
from novad.config.settings import CalibrateExplainerSettings, ExplainerSettings
from novad.stages.learning import DRAWS, Lessons, cross_fitted, folds, learn_evidence, score_held_out
from novad.stages.map_weight import map_weight, pixel_auroc
from novad.stages.options import Examples, Scored, best_option, evidence_option, offered_options
from novad.vision.appearance import appearance_candidate
from novad.vision.calibration import fit_normal_scale
from novad.vision.evidence import evidence_candidates, squashed
from novad.vision.novelty import Candidate

WIDTH = 12


def lessons(seed: int, gain: float, normals: int = 40, anomalies: int = 30) -> Lessons:
    """Normal deviations are Gaussian; anomalies differ by ``gain`` in the second column."""
    rng = np.random.default_rng(seed)
    anomalous = np.arange(normals // 2 + anomalies) >= normals // 2
    tuning = rng.normal(size=(len(anomalous), WIDTH)).astype(np.float32)
    tuning[anomalous, 1] += gain
    names = np.array([f"{number:04x}" for number in rng.permutation(len(anomalous))])
    normal, calibration = rng.normal(size=(2, normals, WIDTH)).astype(np.float32)
    return Lessons(normal, tuning, anomalous, names, calibration)


def test_the_deviation_that_tells_anomalies_gets_the_weight() -> None:
    evidence = learn_evidence(lessons(0, gain=2.0), strength=100.0)
    assert int(evidence.weight.abs().argmax()) == 1
    assert evidence.weight[1] > 0


def test_weights_are_those_of_a_balanced_ridge_logistic_regression() -> None:
    told = lessons(1, gain=1.0)
    evidence = learn_evidence(told, strength=30.0)
    normal = np.concatenate([told.normal, told.tuning[~told.anomalous]])
    scales = [fit_normal_scale(column) for column in normal.T]
    images = np.concatenate([normal, told.tuning[told.anomalous]])
    seen = np.stack([4 * np.tanh(scale(images[:, at]) / 4) for at, scale in enumerate(scales)], 1)
    model = LogisticRegression(C=30.0 / WIDTH, class_weight="balanced", max_iter=5000, tol=1e-8)
    model.fit(seen, np.arange(len(images)) >= len(normal))
    assert np.allclose(evidence.weight.numpy(), model.coef_[0], atol=0.02)


def test_mirrored_images_teach_like_further_ones_of_their_label() -> None:
    told, noise = lessons(3, gain=1.0), np.random.default_rng(4)
    turned = (told.tuning + noise.normal(size=told.tuning.shape, scale=0.3)).astype(np.float32)
    twice = replace(
        told,
        tuning=np.concatenate([told.tuning, turned]),
        anomalous=np.tile(told.anomalous, 2),
        order=np.tile(told.order, 2),
    )
    mirrored, plain = (learn_evidence(each, 100.0) for each in (replace(told, mirrored=(turned,)), told))
    assert torch.allclose(mirrored.weight, learn_evidence(twice, 100.0).weight, atol=0.02)
    assert not torch.allclose(mirrored.weight, plain.weight, atol=0.02)


def test_what_is_held_out_does_not_teach_in_the_mirror_either() -> None:
    told = lessons(5, gain=1.0)
    for held_out in folds(told, 0):
        spoilt = told.tuning.copy()
        spoilt[held_out] = 1000.0
        whole, other = (
            score_held_out(replace(told, mirrored=(each,)), 100.0, held_out) for each in (told.tuning, spoilt)
        )
        np.testing.assert_array_equal(whole, other)


def test_scores_of_calibration_normals_have_median_zero_and_unit_spread() -> None:
    told = lessons(2, gain=1.0)
    scores = learn_evidence(told, 100.0)(torch.from_numpy(told.calibration)).numpy()
    assert np.median(scores) == pytest.approx(0, abs=1e-5)
    assert np.quantile(scores, 0.9) == pytest.approx(1.2816, abs=1e-3)


def test_calibration_normals_teach_nothing_but_the_scale() -> None:
    told = lessons(3, gain=1.0)
    moved = Lessons(told.normal, told.tuning, told.anomalous, told.order, told.calibration + 5)
    assert torch.equal(learn_evidence(told, 100.0).weight, learn_evidence(moved, 100.0).weight)


def test_every_draw_of_the_folds_holds_each_image_out_once() -> None:
    told = lessons(4, gain=1.0)
    for draw in range(DRAWS):
        parts = np.stack(list(folds(told, draw)))
        assert (parts.sum(0) == 1).all()
        sizes = parts[:, told.anomalous].sum(1)
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(np.stack(list(folds(told, 0))), np.stack(list(folds(told, 1))))


@pytest.mark.parametrize("pictures", [2, 3])
def test_pictures_of_one_part_do_not_teach_about_each_other(pictures: int) -> None:
    """Nothing but the part tells good from bad here, so that whoever learned from one knows the others."""
    told = lessons(4, gain=0.0)
    again = np.arange(len(told.order)) // pictures * pictures
    told = replace(told, tuning=told.tuning[again], anomalous=told.anomalous[again])
    together = replace(told, order=told.order[again])
    assert all(np.array_equal(np.isin(again, again[part]), part) for part in folds(together, 1))
    labels = torch.from_numpy(told.anomalous)
    seen, unseen = (
        pixel_auroc(torch.from_numpy(cross_fitted(each, 1e4)), labels) for each in (told, together)
    )
    assert seen > unseen + 0.15


def test_where_one_part_is_all_there_is_its_pictures_are_held_out_one_by_one() -> None:
    told = lessons(4, gain=1.0)
    one = replace(told, order=np.where(told.anomalous, "one", told.order))
    for part in folds(one, 0):
        assert 0 < part[told.anomalous].sum() < told.anomalous.sum()


def test_an_image_is_scored_by_evidence_that_never_saw_it() -> None:
    """Changing one image moves its own score, and none of those held out together with it."""
    told = lessons(4, gain=1.0)
    held_out = next(iter(folds(told, 0)))
    at = int(np.flatnonzero(held_out)[0])
    changed = told.tuning.copy()
    changed[at] += 3
    moved = Lessons(told.normal, changed, told.anomalous, told.order, told.calibration)
    same = score_held_out(told, 100.0, held_out) == score_held_out(moved, 100.0, held_out)
    assert not same[0]
    assert same[1:].all()
    mean = np.zeros(len(told.anomalous))
    for draw in range(DRAWS):
        for part in folds(told, draw):
            mean[part] += score_held_out(told, 100.0, part) / DRAWS
    assert np.allclose(cross_fitted(told, 100.0), mean)


def test_without_a_difference_cross_fitted_evidence_is_no_better_than_a_coin() -> None:
    """What an image is judged by was learned without it, so pure noise cannot look like skill."""
    skill = []
    for seed in range(12):
        told = lessons(seed, gain=0.0)
        scores = cross_fitted(told, 100.0)
        skill.append(pixel_auroc(torch.from_numpy(scores), torch.from_numpy(told.anomalous)))
    assert abs(float(np.mean(skill)) - 0.5) < 0.08
    fitted = learn_evidence(told, 100.0)(torch.from_numpy(told.tuning))
    assert pixel_auroc(fitted, torch.from_numpy(told.anomalous)) > 0.65


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_scores_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    told = lessons(5, gain=1.0)
    order = np.random.default_rng(seed).permutation(len(told.anomalous))
    shuffled = Lessons(
        told.normal, told.tuning[order], told.anomalous[order], told.order[order], told.calibration
    )
    assert np.allclose(cross_fitted(told, 100.0)[order], cross_fitted(shuffled, 100.0), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_a_wild_deviation_is_bounded_and_small_ones_stay_in_units(value: float, scale: float) -> None:
    bent = float(squashed(torch.tensor([[value]]), torch.zeros(1), torch.tensor([scale])))
    assert abs(bent) <= 4
    tiny = float(squashed(torch.tensor([[0.01 * scale]]), torch.zeros(1), torch.tensor([scale])))
    assert tiny == pytest.approx(0.01, rel=1e-3)


def test_evidence_weighs_each_side_of_each_single_statistic() -> None:
    candidates = [
        Candidate("layer1", statistic, 0.0, True, side, 0.01)
        for statistic, side in (("a", "high"), ("a", "low"), ("a", "both"), ("joint", "high"))
    ]
    assert evidence_candidates(candidates) == [0, 1]


def test_the_hybrid_map_never_shows_defects_worse_than_its_better_half() -> None:
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 4:8, 4:8] = True
    noise = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.3, 1.0):
        known, unknown = masks * share + noise[0], masks * (1 - share) + noise[1]
        weight = map_weight(known, unknown, masks)
        fused = pixel_auroc((1 - weight) * known + weight * unknown, masks)
        assert fused >= max(pixel_auroc(known, masks), pixel_auroc(unknown, masks))
    assert map_weight(masks.float(), noise[1], masks) < 0.5


def _line(**changes: Any) -> LineSettings:
    backbone = BackboneSettings(sha256="0" * 64)
    return LineSettings(
        data="data",
        layout="mvtec",
        backbone=backbone,
        explainer=ExplainerSettings(backbone=backbone),
        calibrate_explainer=CalibrateExplainerSettings(**changes),
    )


def _rows() -> pd.DataFrame:
    """Thirty calibration normals, thirty tuning normals, thirty anomalies."""
    labels, split = np.repeat([0, 0, 1], 30), np.repeat(["calibration", "tuning", "tuning"], 30)
    names = [f"{at:04x}" for at in range(90)]
    return pd.DataFrame({"label": labels, "split": split, "sha256": names, "part": names})


@pytest.mark.parametrize("residuals", [True, False])
def test_evidence_weighs_memory_residuals_unless_the_line_says_no(residuals: bool) -> None:
    rng = np.random.default_rng(0)
    candidates = [Candidate("layer1", "norm", 0.0, True, side, 0.01) for side in ("high", "low", "both")]
    left = rng.normal(size=(90, 5)).astype(np.float32)
    left[60:, 3] += 3  # only the memory tells these anomalies
    scored = Scored(_rows(), candidates, rng.normal(size=90), rng.normal(size=(90, 3)).astype("f4"), left)
    normal = Examples(*(rng.normal(size=(40, width)).astype(np.float32) for width in (3, 5)))
    option = evidence_option(_line(residuals=residuals), scored, normal, "layer1")
    assert option.residuals is residuals
    assert option.evidence is not None
    assert len(option.evidence.weight) == 2 + 5 * residuals
    assert (option.figures["auroc"] > 0.95) is residuals
    if residuals:
        assert int(option.evidence.weight.argmax()) == 2 + 3


def _looks(telling: int, strength: float) -> tuple[Scored, Examples, Candidate]:
    """One statistic of an explanation on both sides, and appearance; column ``telling`` shifts anomalies."""
    rng = np.random.default_rng(1)
    reference = Candidate("layer1", "norm", 0.0, True, "high", 0.01)
    candidates = [reference, replace(reference, side="low"), appearance_candidate(0.01)]
    novelty = rng.normal(size=(90, 3)).astype("f4")
    novelty[60:, telling] += strength
    left = rng.normal(size=(90, 40)).astype("f4")
    normal = Examples(rng.normal(size=(40, 3)).astype("f4"), rng.normal(size=(40, 40)).astype("f4"))
    return Scored(_rows(), candidates, rng.normal(size=90), novelty, left), normal, reference


@pytest.mark.parametrize(("telling", "strength", "chosen"), [(2, 1.5, 2), (0, 0.0, 2), (0, 3.0, 0)])
def test_with_few_anomalies_appearance_speaks_unless_the_explanation_is_surely_better(
    telling: int, strength: float, chosen: int
) -> None:
    scored, _, reference = _looks(telling, strength)
    options = offered_options(_line(), scored, reference, None)
    best = best_option(options, scored)
    assert best.judged == (scored.candidates[chosen],)
    assert best.evidence is None


@pytest.mark.parametrize(("deeper", "chosen"), [(0.0, "evidence of layer1"), (3.0, "evidence of layer2")])
def test_the_finest_layer_is_explained_unless_another_is_surely_better(deeper: float, chosen: str) -> None:
    """What both layers show alike is told by the one with the shortest way back."""
    rng = np.random.default_rng(2)
    finest = Candidate("layer1", "norm", 0.0, True, "high", 0.01)
    targets = [finest, *(replace(finest, target=each) for each in ("layer2", "layer1+layer2"))]
    candidates = [*targets, appearance_candidate(0.01)]
    novelty = rng.normal(size=(90, 4)).astype("f4")
    novelty[60:, 0] += 0.5
    novelty[:, 1:3] = novelty[:, [0]]
    novelty[60:, 1] += deeper
    scored = Scored(_rows(), candidates, rng.normal(size=90), novelty, rng.normal(size=(90, 5)).astype("f4"))
    normal = Examples(rng.normal(size=(40, 4)).astype("f4"), rng.normal(size=(40, 5)).astype("f4"))
    options = offered_options(_line(), scored, finest, normal)
    assert [option.name for option in options if option.evidence] == [
        "evidence of layer1",
        "evidence of layer2",
        "evidence of layer1+layer2",
        "evidence without an explanation",
    ]
    assert best_option(options, scored).name == chosen


def test_where_evidence_was_learned_no_single_deviation_takes_its_place() -> None:
    """Not even one that separates all with familiarity, which by itself says nothing."""
    scored, normal, reference = _looks(0, 0.0)
    single, looks, finest, memory = offered_options(_line(), scored, reference, normal)
    single = replace(single, hybrid=scored.anomalous.astype(float))
    assert best_option([single, looks, finest, memory], scored) is finest
    memory = replace(memory, hybrid=scored.anomalous.astype(float))
    assert best_option([single, looks, finest, memory], scored) is memory


def test_evidence_reads_appearance_last_and_without_a_penalty() -> None:
    scored, normal, reference = _looks(2, 1.5)
    options = offered_options(_line(), scored, reference, normal)
    assert [option.name for option in options] == [
        "norm of layer1", "joint of appearance", "evidence of layer1", "evidence without an explanation"
    ]  # fmt: skip
    assert options[-1].judged == (scored.candidates[-1],)
    evidence = options[-2].evidence
    assert options[-2].judged == tuple(scored.candidates)
    assert evidence is not None
    assert int(evidence.weight.abs().argmax()) == 2

    tuning = ~scored.calibration
    told = Lessons(
        np.concatenate([normal.novelty, normal.residuals], axis=1),
        np.concatenate([scored.novelty, scored.residuals], axis=1)[tuning],
        scored.anomalous[tuning],
        scored.rows["sha256"].to_numpy(str)[tuning],
        np.concatenate([scored.novelty, scored.residuals], axis=1)[scored.calibration],
    )
    # With a penalty that allows nothing else, what is free still speaks.
    bound, free = (learn_evidence(replace(told, free=each), 1e-4).weight for each in ((), (2,)))
    assert float(free[2]) > 20 * float(bound[2])
    assert float(free.abs().sum() - free[2].abs()) < 0.25 * float(free[2])
