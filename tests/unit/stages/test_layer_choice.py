"""Which layers familiarity compares: by the settings, by kind and size, by what labelled anomalies show."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from novad.config import LineSettings, Workspace
from novad.stages import layer_choice
from novad.stages.deviations import image_tensors, load_models
from novad.stages.guarded_bank import fit_bank
from novad.stages.layer_choice import (
    SURE,
    Reading,
    best_reading,
    candidate_layers,
    choose_layers,
    companions,
    start_layers,
)
from novad.stages.line import Line
from novad.vision import Detector
from novad.vision.appearance import appearance
from novad.vision.familiarity import familiarity_scores, feature_grids
from novad.vision.models import FamiliarityModel
from novad.vision.selection import surely_better
from novad.vision.suspicion import GuardedBank
from small_line import LINE, STAGES, bundled_line_settings, split_images, untrained_line

SIZE = 64
BCOS = SimpleNamespace(available={"layer1": 4, "layer2": 8, "layer3": 16}, layers=("layer2",))
RESNET = SimpleNamespace(
    available={"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}, layers=("layer2", "layer3")
)


def line_settings(image_size: int = SIZE, **changed: Any) -> LineSettings:
    return bundled_line_settings(image_size, **changed)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, pd.DataFrame]:
    """Grey normals, and anomalies with a fine checker in one corner."""
    rng = np.random.default_rng(0)

    def draw(anomalous: bool) -> np.ndarray:
        pixels = rng.normal(128, 6, (SIZE, SIZE))
        if anomalous:
            row, column = rng.integers(0, SIZE - 4, 2)
            pixels[row : row + 4, column : column + 4] += 20 * (np.indices((4, 4)).sum(0) % 2)
        return pixels.clip(0, 255).astype(np.uint8)

    counts = (("bank", 0, 12), ("calibration", 0, 16), ("tuning", 0, 8), ("tuning", 1, 24))
    return split_images(tmp_path_factory.mktemp("fine"), counts, draw)


def open_line(images: tuple[Workspace, pd.DataFrame], **changed: Any) -> Line:
    workspace, manifest = images
    return Line(workspace, "fine", line_settings(**changed), manifest)


@pytest.mark.parametrize(
    ("network", "kind", "size", "layers"),
    [
        (BCOS, "sensory", 224, ("layer2",)),
        (RESNET, "sensory", 224, ("layer2", "layer3")),
        (RESNET, "sensory", 640, ("layer2",)),
        (RESNET, "semantic_near", 224, ("layer3",)),
        (RESNET, "semantic_far", 224, ("layer4",)),
        (BCOS, "semantic_far", 224, ("layer3",)),
    ],
)
def test_the_start_follows_kind_and_size(network: Any, kind: str, size: int, layers: tuple[str, ...]) -> None:
    assert start_layers(network, line_settings(anomaly_type=kind, image_size=size)) == layers


def test_candidates_are_single_layers_and_neighbours_with_the_start_first() -> None:
    found = candidate_layers(RESNET.available, "sensory", ("layer2", "layer3"))
    assert found[0] == ("layer2", "layer3")
    assert set(found) == {
        ("layer1",), ("layer2",), ("layer3",), ("layer1", "layer2"), ("layer2", "layer3"),
    }  # fmt: skip
    assert ("layer1",) not in candidate_layers(RESNET.available, "semantic_far", ("layer4",))


def test_what_the_settings_say_is_kept(images: tuple[Workspace, pd.DataFrame]) -> None:
    line = open_line(images, layers=["layer3"], memory_bank={"neighbourhood": 5, "smoothing": 0.5})
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert (choice.reading, choice.table) == (Reading(("layer3",), 5, 0.5), [])


def test_only_what_the_settings_leave_open_is_compared(images: tuple[Workspace, pd.DataFrame]) -> None:
    line = open_line(images, layers=["layer3"])
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert [(row["layers"], row["neighbourhood"], row["smoothing"]) for row in choice.table] == [
        (["layer3"], 3, 1.0),
        (["layer3"], 1, 0.0),
    ]
    line = open_line(images, memory_bank={"neighbourhood": 1})
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert {(row["neighbourhood"], row["smoothing"]) for row in choice.table} == {(1, 1.0)}
    assert len(choice.table) == 5


def test_meaning_has_no_neighbourhood(images: tuple[Workspace, pd.DataFrame]) -> None:
    line = open_line(images, anomaly_type="semantic_near")
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert {row["neighbourhood"] for row in choice.table} == {3}


def test_trial_banks_leave_out_the_share_that_the_bank_will(
    images: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[GuardedBank] = []

    def fit(*arguments: Any) -> GuardedBank:
        built.append(fit_bank(*arguments))
        return built[-1]

    monkeypatch.setattr(layer_choice, "fit_bank", fit)
    line = open_line(images, memory_bank={"exclude_suspicious": 0.25})
    choose_layers(line, line.backbone(line.settings.backbone))
    assert len(built) == 2 * 5
    assert {len(each.excluded) for each in built} == {3}
    assert {int(each.bank.origins[:, 0].max()) for each in built} == {8}


@pytest.mark.parametrize("wanted", [0, 25])
def test_with_too_few_anomalies_nothing_is_compared(
    images: tuple[Workspace, pd.DataFrame], wanted: int
) -> None:
    line = open_line(images, memory_bank={"layer_anomalies": wanted})
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert (choice.reading, choice.table) == (Reading(("layer2",), 3, 1.0, ("layer1", "layer3")), [])


@pytest.mark.parametrize(
    ("network", "changed", "expected"),
    [
        (RESNET, {}, ("layer1", "layer3")),
        (RESNET, {"layers": ["layer2"]}, ()),
        (RESNET, {"memory_bank": {"neighbourhood": 1}}, ()),
        (RESNET, {"image_size": 448}, ()),
        (RESNET, {"anomaly_type": "semantic_near"}, ()),
        (SimpleNamespace(available={"layer4": 32}), {}, ()),
        (SimpleNamespace(available={"layer2": 8, "layer4": 32}), {}, ("layer2",)),
    ],
)
def test_without_labels_the_finest_and_the_coarsest_layer_are_asked_too_where_that_is_open(
    network: Any, changed: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert companions(network, line_settings(**{"image_size": 224, **changed})) == expected


def test_other_layers_win_where_anomalies_show_there(
    images: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four pixels vanish at stride 16: from there the choice goes to finer layers."""
    monkeypatch.setattr("novad.stages.layer_choice.start_layers", lambda *_: ("layer3",))
    line = open_line(images, memory_bank={"neighbourhood": 3})
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    auroc = {tuple(row["layers"]): row["auroc"] for row in choice.table}
    assert "layer3" not in choice.reading.layers
    assert auroc[choice.reading.layers] > auroc[("layer3",)] + 0.05
    assert set(auroc) == {
        ("layer1",), ("layer2",), ("layer3",), ("layer1", "layer2"), ("layer2", "layer3"),
    }  # fmt: skip


def test_features_are_not_averaged_where_defects_of_one_patch_ask_for_that(
    images: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checker of four pixels is one patch of layer1: averages blur it. How sure that is, others test."""
    monkeypatch.setattr(layer_choice, "SURE", 0.0)
    monkeypatch.setattr(layer_choice, "WORTH", 0.0)
    line = open_line(images, layers=["layer1"])
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    auroc = {row["neighbourhood"]: row["auroc"] for row in choice.table}
    assert auroc[1] > auroc[3]
    assert (choice.reading.neighbourhood, choice.reading.smoothing) == (1, 0.0)


@pytest.mark.parametrize(("found", "chosen"), [(2, 0), (20, 1)])
def test_a_sure_gain_that_is_small_is_not_worth_a_finer_grid(found: int, chosen: int) -> None:
    """Of 200 anomalies the start misses 40, as no normal scores above 1; another finds some of these."""
    start = np.concatenate([np.linspace(0, 1, 100), np.full(160, 2.0), np.full(40, 0.5)])
    other = start.copy()
    other[260 : 260 + found] = 2.0
    scores, anomalous = np.stack([start, other], axis=1), np.arange(300) >= 100
    assert surely_better(scores, 0, anomalous, SURE) == 1
    assert best_reading(scores, anomalous) == chosen


def test_labels_that_say_nothing_leave_the_start(images: tuple[Workspace, pd.DataFrame]) -> None:
    workspace, manifest = images
    same = manifest[manifest["label"] == 0]
    mirrored = same[same["split"] == "calibration"].assign(split="tuning", label=1)
    doubled = pd.concat([same, mirrored, mirrored], ignore_index=True)
    line = Line(workspace, "fine", line_settings(), doubled)
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    assert choice.reading == Reading(("layer2",), 3, 1.0)
    assert len(choice.table) == 2 * 5


def test_the_choice_reads_no_test_image(images: tuple[Workspace, pd.DataFrame]) -> None:
    """A test row whose file does not exist would stop it."""
    workspace, manifest = images
    ghost = pd.DataFrame([{"path": "not-there.png", "split": "test", "label": 1}])
    line = Line(workspace, "fine", line_settings(), pd.concat([manifest, ghost], ignore_index=True))
    assert choose_layers(line, line.backbone(line.settings.backbone)).table


def test_a_sharp_reading_goes_into_the_bank_the_models_and_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings say nothing of the neighbourhood and smooth distances by 1: what was chosen counts.

    Appearance is averaged over 3 x 3 patches all the same.
    """
    monkeypatch.setattr(layer_choice, "sharpness", lambda _: [(1, 0.0)])
    monkeypatch.setattr(layer_choice, "companions", lambda *_: ())
    workspace = untrained_line(tmp_path, train=16, test_good=4, per_defect=2)
    for stage in STAGES:
        stage.run(workspace, LINE)
    line = Line.open(workspace, LINE)
    told = json.loads(line.output("memory_bank", "bank.json").read_text())
    assert (told["neighbourhood"], told["smoothing"]) == (1, 0.0)
    detector = Detector.load(line.output("evaluate", "detector"))
    for model in (load_models(line)[0], detector.familiarity):
        assert (model.neighbourhood, model.smoothing, model.appearance_neighbourhood) == (1, 0.0, 3)
    images = torch.cat(list(image_tensors(line, line.images(line.rows("bank")))))
    bank, (_, _, rows, columns) = detector.familiarity.bank, patches_of(detector, images).shape
    at = bank.origins[:, 0]
    looks = appearance(images, (rows, columns), 3).permute(0, 2, 3, 1)
    assert torch.allclose(bank.appearance, looks[at, bank.origins[:, 1], bank.origins[:, 2]], atol=1e-6)
    raw = patches_of(detector, images)[at, :, bank.origins[:, 1], bank.origins[:, 2]]
    assert torch.allclose(bank.whitening(raw), bank.vectors, atol=0.05)


def patches_of(detector: Detector, images: torch.Tensor) -> torch.Tensor:
    """Features as the network gives them, of its only layer."""
    with torch.inference_mode():
        (features,) = detector.familiarity.backbone(images).values()
    return features


def test_a_line_without_labels_remembers_other_layers_too(tmp_path: Path) -> None:
    """Of the images that the guard leaves, and the detector asks all as the models of training do."""
    guard = {"min_vectors": 50, "exclude_suspicious": 0.2}
    workspace = untrained_line(tmp_path, train=16, test_good=4, per_defect=1, memory_bank=guard)
    for stage in STAGES:
        stage.run(workspace, LINE)
    line = Line.open(workspace, LINE)
    told = json.loads(line.output("memory_bank", "bank.json").read_text())
    assert (told["layers"], told["companions"]) == (["layer2"], ["layer1", "layer3"])
    assert told["excluded"]
    model, detector = load_models(line)[0], Detector.load(line.output("evaluate", "detector"))
    for bank in model.bank.companions:
        assert int(bank.origins[:, 0].max()) < len(told["images"])
    images = next(image_tensors(line, line.images(line.rows("test"))))
    with torch.inference_mode():
        features = model.backbone(images)
        found = [each.score(features) for each in (model, detector.familiarity)]
        grids = feature_grids({"layer2": features["layer2"]}, "sensory")
        alone = familiarity_scores(model.bank, grids, 1, model.top_share, model.smoothing)
    assert torch.equal(found[0].distances, found[1].distances)
    assert torch.equal(found[0].nearest, alone.nearest)
    assert not torch.allclose(found[0].distances, alone.distances)
    own = _own_scores(line, model)
    median, ninetieth = np.quantile(own, [0.5, 0.9])
    # The scale of three banks is their own images' by the vectors of the others: these score about nothing.
    assert abs(median) < 0.5 < ninetieth < 3


def _own_scores(line: Line, model: FamiliarityModel) -> np.ndarray:
    """Of the bank's own images, each without its own vectors."""
    images = torch.cat(list(image_tensors(line, line.images(line.bank_rows()))))
    with torch.inference_mode():
        return model.score(model.backbone(images), np.arange(len(images), dtype=np.int32)).scores.numpy()
