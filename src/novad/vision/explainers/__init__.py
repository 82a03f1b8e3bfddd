"""Explainers behind one interface: exact ones of B-cos networks, post hoc ones from Captum."""

from novad.vision.explainers.bcos import BcosExplainer
from novad.vision.explainers.build import EXPLAINERS, build_explainer
from novad.vision.explainers.explanation import Explainer, Explanation
from novad.vision.explainers.memory import MEMORY, Memory

__all__ = [
    "EXPLAINERS",
    "MEMORY",
    "BcosExplainer",
    "Explainer",
    "Explanation",
    "Memory",
    "build_explainer",
]
