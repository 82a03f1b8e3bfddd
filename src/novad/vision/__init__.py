"""The core: what a network finds familiar, what its explanation leaves novel, and both in one decision."""

from novad.vision.detection import Detection, NearestNormal, Thresholds
from novad.vision.detector import Detector

__all__ = ["Detection", "Detector", "NearestNormal", "Thresholds"]
