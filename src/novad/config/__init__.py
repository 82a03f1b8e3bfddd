"""Product-line settings: typed, read once from ``params.yaml``, passed as values."""

from novad.config.faults import faults, wrong_option
from novad.config.params import add_line, ensure_lines, line_settings, load_lines
from novad.config.settings import (
    BackboneSettings,
    CalibrateExplainerSettings,
    EvaluateSettings,
    ExplainerSettings,
    LineSettings,
    MemoryBankSettings,
    RetrainSettings,
    ScheduleSettings,
    TuneFusionSettings,
    ValidateSettings,
)
from novad.config.workspace import Workspace

__all__ = [
    "BackboneSettings",
    "CalibrateExplainerSettings",
    "EvaluateSettings",
    "ExplainerSettings",
    "LineSettings",
    "MemoryBankSettings",
    "RetrainSettings",
    "ScheduleSettings",
    "TuneFusionSettings",
    "ValidateSettings",
    "Workspace",
    "add_line",
    "ensure_lines",
    "faults",
    "line_settings",
    "load_lines",
    "wrong_option",
]
