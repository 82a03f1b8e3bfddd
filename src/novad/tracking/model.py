"""The MLflow model of a line: code by reference, weights as safetensors, and no pickle anywhere."""

import json
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking.digests import combined, folder_digests

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

__all__ = [
    "DETECTOR_FOLDER",
    "INPUT_COLUMN",
    "OUTPUT_COLUMNS",
    "detector_digest",
    "kept_files",
    "model_digest",
    "save_model",
]

INPUT_COLUMN = "image"
OUTPUT_COLUMNS = {
    "familiarity": "double",
    "novelty": "double",
    "hybrid": "double",
    "p_value": "double",
    "decision": "string",
    "nearest_image": "string",
    "nearest_sha256": "string",
    "nearest_distance": "double",
    "digest": "string",
}

DETECTOR_FOLDER = "detector"
_CODE = "mlflow/novad_model.py"
# MLflow hands a model from code over in a global variable, and warning filters are global too.
_process_wide = Lock()
# What scoring loads; the novad package itself is installed from its own source, not from an index.
_REQUIREMENTS = (
    "mlflow",
    "bcos",
    "captum",
    "faiss-cpu",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)
# What a detector is made of; both are read without running anything that they contain.
_SAFE = (".json", ".safetensors")
# MLflow writes this beside a model when somebody downloads it.
_WRITTEN_LATER = "registered_model_meta"


def save_model(
    workspace: Workspace, line: str, max_pixels: int, target: Path, description: "Model | None" = None
) -> None:
    """Write the MLflow model of a trained line into the new folder ``target``.

    Args:
        max_pixels: images of more pixels are refused when scoring.
        description: MLflow's own record of the model, filled with signature and flavour.
    Raises:
        ConfigError: the models-from-code file or the detector is missing.
        IntegrityError: a file that could hold a pickle is among the detector's, or one is damaged.
    """
    from mlflow import pyfunc

    code = workspace.path(_CODE)
    detector = workspace.artifacts(line, "evaluate") / DETECTOR_FOLDER
    for needed in (code, detector / "detector.json"):
        if not needed.is_file():
            raise ConfigError(f"{needed}: no such file; the model cannot be put together without it")
    for name in folder_digests(detector):
        if Path(name).suffix not in _SAFE:
            raise IntegrityError(f"{detector / name}: only {' and '.join(_SAFE)} files are published")
    with _process_wide, warnings.catch_warnings():
        # An input example would make MLflow load torch and score it here; the signature is given instead.
        warnings.filterwarnings("ignore", message=".*input example", category=UserWarning)
        pyfunc.save_model(
            path=str(target),
            mlflow_model=description,
            python_model=str(code),
            artifacts={DETECTOR_FOLDER: str(detector)},
            signature=_signature(),
            pip_requirements=_requirements(),
            model_config={
                "line": line,
                "detector_digest": detector_digest(detector),
                "max_pixels": max_pixels,
            },
        )


def detector_digest(folder: Path) -> str:
    """Hex sha256 of a detector's manifest, after every file was checked against it: ``Detector.digest``.

    Raises:
        IntegrityError: a file is missing, not recorded, or not the one recorded.
    """
    manifest = folder / "detector.json"
    try:
        recorded = dict(json.loads(manifest.read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{manifest}: not a detector: {error}") from None
    present = folder_digests(folder)
    digest = present.pop("detector.json")
    for name in sorted(set(present) | set(recorded)):
        if present.get(name) != recorded.get(name):
            raise IntegrityError(f"{folder / name}: not the file that {manifest.name} records")
    return digest


def model_digest(folder: Path) -> str:
    """Hex sha256 over the names and bytes of every file of a logged model, detector and code included."""
    return combined(kept_files(folder))


def kept_files(folder: Path, prefix: str = "") -> dict[str, str]:
    """Sha256 of every file of a logged model or run by its path, without what is written beside it later."""
    return {
        f"{prefix}/{name}" if prefix else name: digest
        for name, digest in folder_digests(folder).items()
        if name != _WRITTEN_LATER
    }


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    # Not `binary`: MLflow would decode base64 itself, and accept text that is none.
    anything = AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(
        inputs=Schema([ColSpec(anything, INPUT_COLUMN)]),
        outputs=Schema([ColSpec(kind, name) for name, kind in OUTPUT_COLUMNS.items()]),
    )


def _requirements() -> list[str]:
    """Pinned versions of this environment, so that MLflow does not load the model to guess them."""
    pinned = []
    for name in _REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pinned
