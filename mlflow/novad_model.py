"""Entry point that MLflow runs to build the model of a line (models from code: nothing is pickled)."""

from mlflow.models import set_model

from novad.serving.pyfunc import NovadModel

set_model(NovadModel())
