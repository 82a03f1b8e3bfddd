"""A fake line with a champion that was calibrated on known normals, and decisions on parts as one likes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.config import Workspace
from novad.tracking import LoggedDecision, log_decisions, promote, publish
from tracking_fixtures import logged_decision

__all__ = ["BEGUN", "FAIL", "NORMALS", "OWN", "REVIEW", "log_parts", "make_champion", "parts"]

NORMALS, REVIEW, FAIL = 60, 0.9, 1.3
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
OWN = "0" * 64
_SCALES = {"familiarity": {"median": 5.0, "spread": 2.0}, "novelty": {"median": 1.0, "spread": 0.5}}


def make_champion(workspace: Workspace, line: str = "metal") -> None:
    """Give a trained fake line calibration normals with standard Gaussian scores, publish and promote it."""
    rng = np.random.default_rng(7)
    paths = [f"good/{number}.png" for number in range(NORMALS)]
    raw = {
        kind: scale["median"] + scale["spread"] * rng.normal(size=NORMALS) for kind, scale in _SCALES.items()
    }
    scores = pd.DataFrame({"path": paths, "sha256": "1" * 64, "split": "calibration", "label": 0, **raw})
    scores.loc[NORMALS] = {
        **scores.iloc[0].to_dict(),
        "path": "bad/0.png",
        "split": "tuning",
        "label": 1,
        "familiarity": 99,
    }
    scores.to_parquet(workspace.artifacts(line, "calibrate_explainer") / "scores.parquet")
    thresholds = {"review": REVIEW, "fail": FAIL}
    fusion = {"weight": 0.5, "scales": _SCALES, "thresholds": thresholds}
    (workspace.artifacts(line, "tune_fusion") / "fusion.json").write_text(json.dumps(fusion))
    manifest = pd.DataFrame(
        {
            "path": [*paths, "bad/0.png"],
            "sha256": [OWN] * (NORMALS + 1),
            **_lit(NORMALS + 1, rng),
        }
    )
    manifest.to_parquet(workspace.artifacts(line, "validate") / "manifest.parquet")
    publish(workspace, line)
    promote(workspace, line, 1, "ada", "first")


def parts(count: int, seed: int = 0, **changed: object) -> dict[str, NDArray[np.float64]]:
    """Figures of ``count`` parts like the calibration normals, minute by minute, but for ``changed``."""
    rng = np.random.default_rng(seed)
    told = {kind: rng.normal(size=count) for kind in _SCALES}
    told["hybrid"] = (told["familiarity"] + told["novelty"]) / 2
    return {
        **told,
        **_lit(count, rng),
        **{name: np.asarray(each, np.float64) for name, each in changed.items()},
    }


def log_parts(workspace: Workspace, figures: Mapping[str, NDArray[np.float64]], line: str = "metal") -> None:
    """Log one decision of version 1 a minute, from :data:`BEGUN` on."""
    count = len(figures["hybrid"])
    rows = [{name: float(each[at]) for name, each in figures.items()} for at in range(count)]
    log_decisions(workspace, [_decision(line, at, row) for at, row in enumerate(rows)])


def _decision(line: str, at: int, figures: Mapping[str, float]) -> LoggedDecision:
    hybrid = figures["hybrid"]
    return logged_decision(
        line=line,
        prediction_id=str(UUID(int=at)),
        at=(BEGUN + timedelta(minutes=at)).isoformat(timespec="microseconds"),
        image_sha256=f"{at + 1:064x}",
        decision="FAIL" if hybrid > FAIL else "REVIEW" if hybrid > REVIEW else "PASS",
        **figures,
    )


def _lit(count: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    return {
        "brightness": rng.normal(0.6, 0.02, count),
        "contrast": rng.normal(0.08, 0.003, count),
        "sharpness": rng.normal(0.05, 0.004, count),
    }
