"""Flows are files of the workspace: the package loads them by their path and imports nothing above it."""

import importlib.util
import sys
from types import ModuleType

from novad.config import Workspace
from novad.errors import ConfigError

__all__ = ["load_flow"]


def load_flow(workspace: Workspace, name: str) -> ModuleType:
    """``flows/NAME.py`` as a module.

    Raises:
        ConfigError: the workspace has no such file.
    """
    path = workspace.path(f"flows/{name}.py")
    spec = importlib.util.spec_from_file_location(f"novad_flow_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path}: this flow is missing")
    module = importlib.util.module_from_spec(spec)
    # Prefect looks up the types of a flow's parameters in the module that it names.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
