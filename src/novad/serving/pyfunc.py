"""A trained line as an MLflow model: a table of images in, a table of scores and decisions out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from novad.config.environment import scoring_device
from novad.errors import ImageError, IntegrityError
from novad.serving.payload import image_bytes
from novad.tracking.model import DETECTOR_FOLDER, INPUT_COLUMN, OUTPUT_COLUMNS

__all__ = ["BadInput", "NovadModel"]


class BadInput(MlflowException):
    """A request that cannot be scored: answered with status 400 and this message alone.

    MLflow's server puts the whole input in front of the messages of its own errors; it may be megabytes
    of somebody's images, so this message cannot be extended.
    """

    def __init__(self, message: str) -> None:
        self._text = message
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._text

    @message.setter
    def message(self, _value: str) -> None:
        return


class NovadModel(PythonModel):
    """Scores a column ``image`` (base64 text, or bytes of an image file) with a line's detector."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the detector whose folder the model carries.

        Raises:
            IntegrityError: its files are not those that were published.
        """
        # Torch is loaded with the first detector, not with this module: publishing needs only the class.
        from novad.vision import Detector

        folder = Path(context.artifacts[DETECTOR_FOLDER])
        settings = dict(context.model_config or {})
        self._max_pixels = int(settings["max_pixels"])
        self._detector = Detector.load(folder, scoring_device())
        if self._detector.digest != settings["detector_digest"]:
            raise IntegrityError(
                f"{settings['line']}: the detector in {folder} is not the one that was published; "
                "the model is not used"
            )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row of scores per image, in the order given.

        Raises:
            BadInput: no column ``image``, or an image that cannot be used; the row is named.
        """
        if INPUT_COLUMN not in getattr(model_input, "columns", ()):
            raise BadInput(f"the input must be a table with the column {INPUT_COLUMN!r}")
        # Decoded as the detector asks for them, so that a long table does not lie in memory as pixels.
        images = self._decoded(model_input[INPUT_COLUMN].tolist())
        rows = [_row(result, self._detector.digest) for result in self._detector.score(images)]
        return pd.DataFrame(rows, columns=list(OUTPUT_COLUMNS))

    def _decoded(self, values: list[object]) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
        from novad.images.decode import decode_bytes

        for number, value in enumerate(values):
            name = f"row {number}"
            try:
                yield decode_bytes(image_bytes(value, name), name, self._max_pixels)
            except ImageError as error:
                raise BadInput(str(error)) from None


def _row(result: Any, digest: str) -> dict[str, object]:
    return {
        "familiarity": float(result.familiarity),
        "novelty": float(result.novelty),
        "hybrid": float(result.hybrid),
        "p_value": float(result.p_value),
        "decision": str(result.decision),
        "nearest_image": str(result.nearest.image),
        "nearest_sha256": str(result.nearest.sha256),
        "nearest_distance": float(result.nearest.distance),
        "digest": digest,
    }
