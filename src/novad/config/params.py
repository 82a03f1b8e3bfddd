"""Reading and extending ``params.yaml`` without losing its comments."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from novad.config.faults import faults
from novad.config.settings import LINE_NAME, LineSettings
from novad.config.whole_file import write_whole
from novad.config.yaml_file import read_yaml
from novad.errors import ConfigError

__all__ = ["add_line", "ensure_lines", "line_settings", "load_lines"]


def load_lines(params: Path) -> dict[str, LineSettings]:
    """Settings of every line in ``params``.

    Raises:
        ConfigError: names the file and the key that is missing or wrong.
    """
    lines = _lines(_read(params), params)
    return {_checked_name(name, params): _parse(params, name, raw) for name, raw in lines.items()}


def line_settings(params: Path, line: str) -> LineSettings:
    """Settings of one line.

    Raises:
        ConfigError: the line is unknown (the message lists those that exist), or its settings are wrong.
    """
    lines = _lines(_read(params), params)
    if line not in lines:
        known = ", ".join(sorted(lines)) or "none yet"
        raise ConfigError(f"{params}: lines.{line}: no such product line (known: {known})")
    return _parse(params, line, lines[line])


def add_line(params: Path, name: str, settings: LineSettings) -> None:
    """Write a new line into ``params``, keeping what is there; the file is replaced in one step.

    Raises:
        ConfigError: bad name, a line of that name exists, or ``lines`` is no mapping.
    """
    _checked_name(name, params)
    document = _read(params)
    lines = _lines(document, params)
    if name in lines:
        raise ConfigError(f"{params}: lines.{name}: this line exists already")
    lines[name] = settings.model_dump(mode="json", by_alias=True)
    document["lines"] = lines
    _replace(params, document)


def ensure_lines(params: Path) -> None:
    """Write ``lines: {}`` where ``lines`` has no value, as after its last line is deleted: DVC reads no null.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    document = _read(params)
    if document.get("lines") is None:
        document["lines"] = {}
        _replace(params, document)


def _checked_name(name: Any, params: Path) -> str:
    if not isinstance(name, str) or not re.fullmatch(LINE_NAME, name):
        raise ConfigError(
            f"{params}: lines.{name}: a line name is 1 to 63 lower-case letters, digits or '-', "
            "beginning with a letter or digit"
        )
    return name


def _read(params: Path) -> dict[str, Any]:
    try:
        document = read_yaml(params, "rt") or {}
    except FileNotFoundError:
        raise ConfigError(f"{params}: no such file") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{params}: must be a mapping with the key 'lines'")
    return document


def _lines(document: dict[str, Any], params: Path) -> dict[Any, Any]:
    """Settings by name of line as they are written; none where there is nothing yet."""
    lines = document.get("lines") or {}
    if not isinstance(lines, dict):
        raise ConfigError(f"{params}: lines: must map line names to settings")
    return lines


def _parse(params: Path, line: str, raw: Any) -> LineSettings:
    try:
        return LineSettings.model_validate(raw)
    except ValidationError as error:
        told = "; ".join(f"lines.{line}.{'.'.join(where)}: {why}" for where, why in faults(error))
        raise ConfigError(f"{params}: {told}") from None


def _replace(path: Path, document: dict[str, Any]) -> None:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(document, text)
    write_whole(path, text.getvalue().encode())
