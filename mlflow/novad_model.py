"""Entry point that MLflow runs to build the model of a line (models from code: nothing is pickled)."""

from contextlib import suppress
from pathlib import Path

from mlflow.models import set_model

from novad.serving.pyfunc import NovadModel

# Python keeps this text compiled in `__pycache__`, where the next start would run it in place of the text.
# So it goes: whatever an audit finds there, somebody else has put there.
with suppress(OSError):
    Path(__spec__.cached).unlink()

set_model(NovadModel())
