"""The pyfunc model around a detector: columns, order, one bad image, and a detector that was exchanged."""

import base64
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

import novad.vision
from novad.errors import IntegrityError
from novad.serving.pyfunc import BadInput, NovadModel
from novad.tracking.model import OUTPUT_COLUMNS


class FakeDetector:
    """Scores an image by its mean brightness."""

    digest = "d" * 64

    @classmethod
    def load(cls, folder: Path, device: str) -> "FakeDetector":
        assert (folder, device) == (Path("somewhere"), "cpu")
        return cls()

    def score(self, images: Iterable[np.ndarray[Any, Any]]) -> Iterator[SimpleNamespace]:
        for image in images:
            mean = float(image.mean())
            nearest = SimpleNamespace(image="good/1.png", sha256="a" * 64, row=1, column=2, distance=0.5)
            yield SimpleNamespace(
                familiarity=mean,
                novelty=mean + 1,
                hybrid=mean + 2,
                p_value=0.25,
                decision="FAIL" if mean > 100 else "PASS",
                nearest=nearest,
            )


def _context(**changes: object) -> PythonModelContext:
    settings = {"line": "metal", "detector_digest": "d" * 64, "max_pixels": 1000, **changes}
    return PythonModelContext({"detector": "somewhere"}, settings)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> NovadModel:
    monkeypatch.setattr(novad.vision, "Detector", FakeDetector)
    loaded = NovadModel()
    loaded.load_context(_context())
    return loaded


def _png(brightness: int, side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (side, side), brightness).save(stream, "PNG")
    return stream.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_rows_are_scored_in_order_from_text_and_from_bytes(model: NovadModel) -> None:
    table = model.predict(None, pd.DataFrame({"image": [_text(_png(200)), _png(10)]}))
    assert list(table.columns) == list(OUTPUT_COLUMNS)
    assert table["familiarity"].tolist() == [200.0, 10.0]
    assert table["decision"].tolist() == ["FAIL", "PASS"]
    assert table["nearest_distance"].tolist() == [0.5, 0.5]
    assert set(table["digest"]) == {"d" * 64}


def test_an_empty_table_gives_an_empty_table(model: NovadModel) -> None:
    table = model.predict(None, pd.DataFrame({"image": []}))
    assert len(table) == 0
    assert list(table.columns) == list(OUTPUT_COLUMNS)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("%%%", "not base64"),
        ("", "empty"),
        (_text(b"GIF89a-but-not-really"), "row 1"),
        (_text(_png(9)[:-20]), "row 1"),
        (_text(_png(9, side=64)), "row 1"),
        (None, "must be base64 text or bytes"),
    ],
)
def test_one_bad_image_refuses_the_table_and_names_its_row(model: NovadModel, bad: object, what: str) -> None:
    with pytest.raises(BadInput, match="row 1") as caught:
        model.predict(None, pd.DataFrame({"image": [_text(_png(9)), bad]}))
    assert what in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_table_without_images_is_refused(model: NovadModel) -> None:
    with pytest.raises(BadInput, match="'image'"):
        model.predict(None, pd.DataFrame({"picture": ["x"]}))


def test_the_message_of_a_refusal_cannot_be_extended_with_the_input() -> None:
    error = BadInput("row 3: the text is not base64")
    error.message = "Failed to predict data 'megabytes'"
    assert error.message == "row 3: the text is not base64"
    assert error.get_http_status_code() == 400
    assert "megabytes" not in error.serialize_as_json()


def test_a_detector_other_than_the_published_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novad.vision, "Detector", FakeDetector)
    with pytest.raises(IntegrityError, match="metal: the detector"):
        NovadModel().load_context(_context(detector_digest="e" * 64))
