"""Flows are files of the workspace: the package loads them by their path and imports nothing above it."""

import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from novad.config import Workspace
from novad.errors import ConfigError

__all__ = ["flow_file", "load_flow"]


def flow_file(workspace: Workspace, name: str) -> Path:
    """``flows/NAME.py``.

    Raises:
        ConfigError: the workspace has no such file.
    """
    path = workspace.path(f"flows/{name}.py")
    if not path.is_file():
        raise ConfigError(f"{path}: this flow is missing")
    return path


def load_flow(workspace: Workspace, name: str) -> ModuleType:
    """``flows/NAME.py`` as a module, see ``flow_file``."""
    module_name = f"novad_flow_{name}"
    loader = SourceFileLoader(module_name, str(flow_file(workspace, name)))
    module = ModuleType(module_name)
    module.__file__ = loader.path
    # Prefect looks up the types of a flow's parameters in the module that it names.
    sys.modules[module_name] = module
    loader.exec_module(module)
    return module
