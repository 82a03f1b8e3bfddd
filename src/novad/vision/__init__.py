"""The core: what a network finds familiar, what its explanation leaves novel, and both in one decision.

Names are imported when they are asked for: a part of the core then costs only what that part needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novad.vision.detection import Detection, NearestNormal, Thresholds
    from novad.vision.detector import Detector

__all__ = ["Detection", "Detector", "NearestNormal", "Thresholds"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "detector" if name == "Detector" else "detection"
    return getattr(import_module(f"{__name__}.{module}"), name)
