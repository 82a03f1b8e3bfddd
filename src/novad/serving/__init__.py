"""The detector as a model that MLflow can load and serve."""
