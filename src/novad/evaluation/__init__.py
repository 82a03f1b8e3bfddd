"""Figures, intervals, explanation quality and pictures of a detector's results."""
