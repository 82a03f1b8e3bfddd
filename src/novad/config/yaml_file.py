"""Reading a YAML file that people may have edited."""

from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from novad.errors import ConfigError

__all__ = ["read_yaml"]


def read_yaml(path: Path, kind: Literal["rt", "safe"] = "safe") -> Any:
    """What stands in ``path``.

    Args:
        path: the file, in UTF-8.
        kind: ``safe`` for plain values, ``rt`` for what keeps comments when it is written again.
    Raises:
        ConfigError: it is no YAML, or holds a date or number that there cannot be; names the file.
        FileNotFoundError: there is no such file.
    """
    try:
        return YAML(typ=kind).load(path.read_text("utf-8"))
    except (YAMLError, ValueError) as error:
        # Of the 31st of November the loader's own dates say ValueError, as text that is no UTF-8 does.
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
