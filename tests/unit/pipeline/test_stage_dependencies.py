"""dvc.yaml tells DVC everything that a stage's result depends on; nothing is left to memory."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fake_line import REPOSITORY
from novad.config import LineSettings, load_lines
from novad.tracking.digests import STAGES

SOURCE = REPOSITORY / "src"
PIPELINE: dict[str, Any] = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]
LINE = "${key}"


def _stage(name: str) -> dict[str, Any]:
    return dict(PIPELINE[name]["do"])


@cache
def _module(dotted: str) -> Path | None:
    """File of a module of ours; None for what is no module (a name inside one, or another's package)."""
    place = SOURCE.joinpath(*dotted.split("."))
    found = (each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file())
    return next(found, None)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _closure(start: Path) -> set[Path]:
    """Every file of ours that running ``start`` may load, with the packages on the way to it."""
    found, open_ends = set[Path](), [start]
    while open_ends:
        path = open_ends.pop()
        if path in found:
            continue
        found.add(path)
        for dotted in _imported(path):
            parts = dotted.split(".")
            modules = (_module(".".join(parts[:length])) for length in range(1, len(parts) + 1))
            open_ends += [module for module in modules if module is not None]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_every_source_file_that_a_stage_loads_is_one_of_its_dependencies(stage: str) -> None:
    declared = [REPOSITORY / dep for dep in _stage(stage)["deps"] if "$" not in dep]
    loaded = _closure(SOURCE / "novad/stages" / f"{stage}.py")
    # These two hold the version and a docstring: no result hangs on them.
    empty = {SOURCE / "novad/__init__.py", SOURCE / "novad/stages/__init__.py"}
    missing = {
        path.relative_to(REPOSITORY).as_posix()
        for path in loaded - empty
        if not any(path.is_relative_to(each) for each in declared)
    }
    assert missing == set()
    assert len(loaded) > 5


@pytest.mark.parametrize("stage", STAGES)
def test_every_source_that_a_stage_depends_on_is_loaded_by_it(stage: str) -> None:
    loaded = _closure(SOURCE / "novad/stages" / f"{stage}.py")
    for dep in _stage(stage)["deps"]:
        if dep.startswith("src/"):
            assert any(path.is_relative_to(REPOSITORY / dep) for path in loaded), dep


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_of_another_stage_that_a_stage_opens_is_one_of_its_dependencies(stage: str) -> None:
    opened = set()
    for path in _closure(SOURCE / "novad/stages" / f"{stage}.py"):
        if path.parent.name == "stages":
            opened |= set(_outputs_named(path))
    deps = {dep for dep in _stage(stage)["deps"] if dep.startswith("artifacts/")}
    used = {f"artifacts/{LINE}/{other}/{name}" for other, name in opened if other != stage}
    assert used - _outputs_of_others(stage) == set()
    assert {each for each in used if not each.endswith("/cost.json")} <= deps


def _outputs_named(path: Path) -> Iterator[tuple[str, str]]:
    """Calls like ``line.output("memory_bank", "bank.json")``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "output":
            values = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(values) == 2:
                yield str(values[0]), str(values[1])


def _outputs_of_others(stage: str) -> set[str]:
    return {out for other in STAGES if other != stage for out in _stage(other)["outs"]}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_whole_sections_that_the_settings_know(stage: str) -> None:
    line = next(iter(load_lines(REPOSITORY / "params.yaml").values())).model_dump(by_alias=True)
    for watched in _stage(stage)["params"]:
        section = watched.removeprefix(f"lines.{LINE}.").split(".")
        value: Any = line
        for key in section:
            assert key in value, watched
            value = value[key]


def test_every_setting_of_a_line_is_watched_by_a_stage_or_has_no_bearing_on_results() -> None:
    watched = {param.split(".")[2] for stage in STAGES for param in _stage(stage)["params"]}
    names = {field.alias or name for name, field in LineSettings.model_fields.items()}
    # The folder is a dependency by its content; schedule and causes say when, and monitoring comes after.
    assert names - watched == {"data", "schedule", "retrain", "monitor"}
    assert all("${item.data}" in _stage(stage)["deps"] for stage in ("validate", "memory_bank", "evaluate"))


def test_no_stage_depends_on_a_record_of_time() -> None:
    for stage in STAGES:
        assert f"artifacts/{LINE}/{stage}/cost.json" in _stage(stage)["outs"]
        assert not [dep for dep in _stage(stage)["deps"] if dep.endswith("cost.json")]


def test_the_lock_file_of_the_environment_is_a_dependency_of_every_stage() -> None:
    assert all("requirements.lock" in _stage(stage)["deps"] for stage in STAGES)
