"""Whether familiarity reads the stem: only where evidence of the memory surely gains by it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from novad.config import Workspace
from novad.stages import stem_choice
from novad.stages.layer_choice import LayerChoice, Reading, auroc, choose_layers, compared
from novad.stages.line import Line
from novad.stages.stem_choice import choose_reading, stem_readings, trial_hybrids
from novad.vision import Detector
from small_line import LINE, STAGES, bundled_line_settings, split_images, untrained_line

SIZE = 64
STEMS = [Reading(("pool",), 3, 1.0), Reading(("pool",), 1, 0.0)]


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, pd.DataFrame]:
    """Tracks laid anew on every image; an anomaly has a bite of two pixels in one of them."""
    rng = np.random.default_rng(0)
    counts = (("bank", 0, 24), ("calibration", 0, 32), ("tuning", 0, 16), ("tuning", 1, 48))
    return split_images(tmp_path_factory.mktemp("tracks"), counts, lambda bitten: laid(rng, bitten=bitten))


def laid(rng: np.random.Generator, *, bitten: bool) -> np.ndarray:
    pixels = np.full((SIZE, SIZE), 40, np.uint8)
    for _ in range(7):
        at, start = rng.integers(4, SIZE - 8, 2)
        stop = start + rng.integers(8, 40)
        if rng.random() < 0.5:
            pixels[at : at + 4, start:stop] = 200
        else:
            pixels[start:stop, at : at + 4] = 200
    if bitten:
        inside = np.argwhere(pixels[2:-4, 2:-4] == 200) + 2
        for row, column in inside[rng.integers(0, len(inside), 3)]:
            pixels[row : row + 2, column : column + 2] = 120
    return pixels


def open_line(images: tuple[Workspace, pd.DataFrame], **changed: Any) -> Line:
    workspace, manifest = images
    return Line(workspace, "tracks", bundled_line_settings(SIZE, **changed), manifest)


@pytest.fixture(autouse=True)
def each_image_shows_a_part_of_its_own(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Drawn without the fingerprints that would tell."""
    if "tracks" in request.fixturenames:
        monkeypatch.setattr(Line, "parts", lambda _, rows: rows["sha256"].to_numpy(str))


def network_of(line: Line) -> Any:
    return line.backbone(line.settings.backbone)


def test_tiny_bites_in_tracks_that_are_never_laid_alike_ask_for_the_stem(
    tracks: tuple[Workspace, pd.DataFrame],
) -> None:
    line = open_line(tracks)
    choice = choose_reading(line, network_of(line))
    assert choice.reading in STEMS
    told = {(tuple(row["layers"]), row["neighbourhood"]): row["auroc"] for row in choice.stem_table}
    layers = choose_layers(line, network_of(line)).reading
    assert set(told) == {(each.layers, each.neighbourhood) for each in (layers, *STEMS)}
    chosen = choice.reading.layers, choice.reading.neighbourhood
    assert told[chosen] == max(told.values()) > told[layers.layers, layers.neighbourhood] + 0.1
    assert "pool" not in {name for row in choice.table for name in row["layers"]}


def test_evidence_is_judged_on_images_that_it_has_not_learned_from(
    tracks: tuple[Workspace, pd.DataFrame],
) -> None:
    """Anomalies that are none: what learned them by heart would tell them apart."""
    workspace, manifest = tracks
    normal = manifest[manifest["label"] == 0]
    false = (normal["split"] == "calibration") & (normal.index % 2 == 0)
    line = Line(
        workspace,
        "tracks",
        bundled_line_settings(SIZE),
        normal.assign(label=false.astype(int), split=normal["split"].where(~false, "tuning")),
    )
    rows = compared(line)
    (hybrid,) = trial_hybrids(line, STEMS[1:], rows).T
    assert (rows["label"] == 1).sum() == 16
    assert auroc(hybrid, (rows["label"] == 1).to_numpy()) < 0.75


def test_the_stem_must_be_better_by_three_standard_errors(
    tracks: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against DeLong's standard error by brute force, with ever more anomalies found by the stem alone."""
    line = open_line(tracks)
    rows, network, layers = compared(line), network_of(line), Reading(("layer2",), 3, 1.0)
    monkeypatch.setattr(
        stem_choice, "choose_layers", lambda *_: LayerChoice(layers, [{"layers": ["layer2"]}])
    )
    anomalous = (rows["label"] == 1).to_numpy()
    scores = np.full(len(rows), 0.5)
    scores[~anomalous] = np.linspace(0, 1, (~anomalous).sum())
    errors = {}
    for found in range(2, anomalous.sum() + 1):
        raised = scores.copy()
        raised[np.flatnonzero(anomalous)[:found]] = 2.0
        before, after = (each[anomalous][:, None] > each[~anomalous] for each in (scores, raised))
        gains = after.astype(float) - before
        variance = sum(gains.mean(axis).var(ddof=1) / gains.shape[1 - axis] for axis in (0, 1))
        hybrids = np.stack([scores, raised, scores], axis=1)
        monkeypatch.setattr(stem_choice, "trial_hybrids", lambda *_, hybrids=hybrids: hybrids)
        errors[gains.mean() / np.sqrt(variance)] = choose_reading(line, network).reading in STEMS
    assert min(errors) < 2 < 4 < max(errors)
    assert all(chosen == (error > 3) for error, chosen in errors.items())


def test_the_stem_is_not_asked_for_where_settings_or_labels_say_enough(
    tracks: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(open_line(tracks))
    assert stem_readings(open_line(tracks), network) == STEMS
    assert stem_readings(open_line(tracks, memory_bank={"neighbourhood": 1}), network) == [
        Reading(("pool",), 1, 1.0)
    ]
    assert stem_readings(open_line(tracks, layers=["layer2"]), network) == []
    assert stem_readings(open_line(tracks, anomaly_type="semantic_near"), network) == []
    plain = SimpleNamespace(available={"layer1": 4}, readable={"layer1": 4})
    assert stem_readings(open_line(tracks), plain) == []  # type: ignore[arg-type]
    monkeypatch.delattr(stem_choice, "trial_hybrids")
    for changed in ({"layers": ["layer2"]}, {"memory_bank": {"layer_anomalies": 49}}):
        line = open_line(tracks, **changed)
        assert choose_reading(line, network).stem_table == []


def test_a_chosen_stem_goes_into_the_bank_and_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are given and need not be sure, for an untrained network sees nothing; all else is done."""

    def hybrids(line: Line, readings: Any, rows: pd.DataFrame) -> np.ndarray:
        chance = np.random.default_rng(0).random(len(rows))
        found = (rows["label"] == 1).to_numpy() + chance / 2
        return np.stack([chance if each.layers != ("pool",) else found for each in readings], axis=1)

    monkeypatch.setattr(stem_choice, "trial_hybrids", hybrids)
    monkeypatch.setattr(stem_choice, "SURELY", 0.0)
    workspace = untrained_line(
        tmp_path, train=16, test_good=8, per_defect=4, memory_bank={"layer_anomalies": 4, "min_vectors": 50}
    )
    for stage in STAGES:
        stage.run(workspace, LINE)
    line = Line.open(workspace, LINE)
    told = json.loads(line.output("memory_bank", "bank.json").read_text())
    assert told["layers"] == ["pool"]
    assert [row["layers"] for row in told["stem_choice"]][1:] == [["pool"], ["pool"]]
    assert [row["auroc"] for row in told["stem_choice"]][1:] == [1.0, 1.0]
    detector = Detector.load(line.output("evaluate", "detector"))
    assert detector.familiarity.backbone.layers == ("pool",)
    assert detector.familiarity.bank.vectors.shape[1] == told["dimensions"]
    assert "pool" not in detector.novelty.target


@pytest.mark.parametrize("alone", [0, 1])
def test_one_image_of_a_kind_says_nothing_of_the_stem(
    tracks: tuple[Workspace, pd.DataFrame], alone: int
) -> None:
    workspace, manifest = tracks
    judged = manifest["split"] != "bank"
    kept = ~judged | (manifest["label"] != alone)
    kept[manifest.index[judged & (manifest["label"] == alone)][0]] = True
    settings = bundled_line_settings(SIZE, memory_bank={"layer_anomalies": 1})
    line = Line(workspace, "tracks", settings, manifest[kept].reset_index(drop=True))
    choice = choose_reading(line, network_of(line))
    assert choice.table
    assert choice.stem_table == []


def test_the_stem_can_be_named(tracks: tuple[Workspace, pd.DataFrame]) -> None:
    line = open_line(tracks, layers=["pool"])
    network = network_of(line)
    assert network.layers == ("pool",)
    assert choose_reading(line, network).reading.layers == ("pool",)
