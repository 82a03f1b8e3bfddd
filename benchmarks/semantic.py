"""One class against the others in both semantic modes, on the handwritten digits of scikit-learn."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.inputs import Request, bundled_settings
from benchmarks.report import Report
from novad.benchmarking.temporary_line import train_temporary_line
from novad.config import LineSettings
from novad.config.settings import BUNDLED_ARCHITECTURE
from novad.evaluation.summary import KINDS
from novad.stages.runner import read_json

__all__ = ["digit_line", "measure", "write_digits"]

MODES = ("semantic_near", "semantic_far")
NORMAL_DIGITS = (0, 3, 8)
SIDE = 96
TRAIN, TEST_GOOD, PER_CLASS = 110, 60, 10


def measure(_: Request) -> Report:
    """Train a temporary line per normal digit and mode; figures are of its test split alone."""
    rows = [_row(normal, mode) for normal in NORMAL_DIGITS for mode in MODES]
    facts = {
        "images": "scikit-learn's 8 x 8 digits, enlarged",
        "side": SIDE,
        "backbone": BUNDLED_ARCHITECTURE,
        "normals in train": TRAIN,
        "anomalies": "the nine other digits",
    }
    return Report("One digit against the others", facts, rows)


def write_digits(folder: Path, normal: int, train: int, test_good: int, per_class: int) -> None:
    """The digits in MVTec AD layout, ``normal`` being good and every other digit a defect type of its own."""
    pictures, labels = load_digits(return_X_y=True)
    for digit in range(10):
        chosen = pictures[labels == digit].reshape(-1, 8, 8)
        if digit == normal:
            _write(folder / "train/good", chosen[:train])
            _write(folder / "test/good", chosen[train : train + test_good])
        else:
            _write(folder / f"test/digit_{digit}", chosen[:per_class])


def _write(folder: Path, pictures: NDArray[np.float64]) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        grey = Image.fromarray(np.minimum(picture * 16, 255).astype(np.uint8))
        grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")


def _row(normal: int, mode: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        data, workspace = Path(made) / "digits", Path(made) / "workspace"
        workspace.mkdir()
        write_digits(data, normal, TRAIN, TEST_GOOD, PER_CLASS)
        line = train_temporary_line(workspace, digit_line(data, mode), lambda _: None)
        figures = read_json(line.output("evaluate", "metrics.json"))["scores"]
        layers = read_json(line.output("memory_bank", "bank.json"))["layers"]
    row: dict[str, Any] = {"normal": normal, "mode": mode, "layers": " ".join(layers)}
    for kind in KINDS:
        low, high = figures[kind]["ci95"]["image_auroc"]
        row[f"{kind} AUROC"] = f"{figures[kind]['image_auroc']:.3f} ({low:.3f} to {high:.3f})"
        row[f"{kind} missed at 5 % FPR"] = round(figures[kind]["fnr_at_fpr_05"], 3)
    return row


def digit_line(data: Path, mode: str) -> LineSettings:
    """Settings of a line of digits: the bundled network at the size of the enlarged images."""
    network = bundled_settings(SIDE)
    return LineSettings.model_validate(
        {
            "data": str(data),
            "layout": "mvtec",
            "anomaly_type": mode,
            "backbone": network,
            "explainer": {"backbone": network},
        }
    )
