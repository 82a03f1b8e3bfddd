"""Who chooses how a line asks, and that the false-alarm promise survives the choice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novad.config import BackboneSettings, LineSettings
from novad.config.settings import ExplainerSettings
from novad.stages.choosing import ENOUGH, choosers, chosen_by
from novad.stages.options import Scored, best_option, offered_options
from novad.vision.appearance import appearance_candidate
from novad.vision.calibration import conformal_threshold
from novad.vision.novelty import Candidate
from novad.vision.selection import surely_better


def _rows(calibration: int, tuning: int, anomalies: int, split: str = "tuning") -> pd.DataFrame:
    counts = calibration, tuning, anomalies
    return pd.DataFrame(
        {
            "label": np.repeat([0, 0, 1], counts),
            "split": np.repeat(["calibration", "tuning", split], counts),
            "sha256": [f"{at:04x}" for at in range(sum(counts))],
            "part": [f"{at:04x}" for at in range(sum(counts))],
        }
    )


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50))
def test_calibration_normals_choose_only_where_others_are_few(
    calibration: int, tuning: int, anomalies: int
) -> None:
    rows = _rows(calibration, tuning, anomalies)
    asked = choosers(rows)
    assert asked[rows["split"] == "tuning"].all()
    assert asked[rows["split"] == "calibration"].all() == (tuning < ENOUGH)
    told = chosen_by(rows)
    assert told["normals"] == tuning + calibration * (tuning < ENOUGH)
    assert told["anomalies"] == anomalies
    assert ("calibration" in str(told["normals_of"])) == (tuning < ENOUGH)


def test_synthetic_anomalies_choose_and_are_told() -> None:
    rows = _rows(5, ENOUGH, 7, split="synthetic")
    assert int(choosers(rows).sum()) == ENOUGH + 7
    assert chosen_by(rows) == {
        "split": "synthetic", "normals": ENOUGH, "normals_of": ["tuning"], "anomalies": 7
    }  # fmt: skip


def test_the_promise_survives_a_choice_among_readings() -> None:
    """Chosen by the normals that then set the threshold, good parts fail more often than was promised."""
    rows, random, options = _rows(19, ENOUGH, 30), np.random.default_rng(0), 7
    normal, calibration = (
        (rows[name] == at).to_numpy() for name, at in (("label", 0), ("split", "calibration"))
    )
    alarms: dict[str, list[float]] = {"tuning": [], "calibration": []}
    for _ in range(1500):
        scores = random.normal(size=(len(rows), options)) + np.where(normal, 0, 1.5)[:, None]
        fresh = random.normal(size=(400, options))
        for name, asked in (("tuning", choosers(rows)), ("calibration", ~normal | calibration)):
            chosen = surely_better(scores[asked], 0, ~normal[asked], 1.0)
            alarms[name].append(
                np.mean(fresh[:, chosen] > conformal_threshold(scores[calibration, chosen], 0.05))
            )
    assert np.mean(alarms["tuning"]) <= 0.05 + 0.004
    assert np.mean(alarms["calibration"]) > 0.06


@pytest.mark.parametrize("tuning", [ENOUGH, ENOUGH - 1])
def test_what_calibration_normals_score_decides_nothing_beside_enough_others(tuning: int) -> None:
    """The few highest of them, which the scale does not read, set the threshold and nothing else."""
    rows, random = _rows(40, tuning, 30), np.random.default_rng(5)
    reference = Candidate("layer1", "norm", 0.0, True, "high", 0.01)
    novelty = random.normal(size=(len(rows), 2)).astype("f4")
    novelty[rows["label"] == 1] += 1.5
    nothing = np.zeros((len(rows), 0), "f4")
    scored = Scored(
        rows, [reference, appearance_candidate(0.01)], random.normal(size=len(rows)), novelty, nothing
    )
    wild = novelty.copy()
    wild[np.argsort(novelty[:40, 1])[-3:], 1] += 20
    backbone = BackboneSettings(sha256="0" * 64)
    line = LineSettings(
        data="data", layout="mvtec", backbone=backbone, explainer=ExplainerSettings(backbone=backbone)
    )
    figures = []
    for seen in (novelty, wild):
        told = replace(scored, novelty=seen)
        options = offered_options(line, told, reference, None)
        figures.append((best_option(options, told).name, [option.figures for option in options]))
    assert (figures[0] == figures[1]) == (tuning >= ENOUGH)
