"""Novelty-aware anomaly detection for visual inspection, with its governance."""

__version__ = "0.1.0"
