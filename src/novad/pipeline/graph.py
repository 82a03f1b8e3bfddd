"""DVC's own view of the pipeline: which stages a line has, in which order, and which are stale."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from novad.config import Workspace, line_settings
from novad.errors import ConfigError, ServiceError
from novad.tracking.lineage import Stages, dvc_digests

__all__ = ["PipelineStage", "line_stages", "open_repository", "recorded_digests", "stale_stages"]


@dataclass(frozen=True)
class PipelineStage:
    """One DVC stage of one line.

    Attributes:
        address: as DVC names it, ``memory_bank@brushed-metal``.
        line: product line.
        upstream: addresses of the stages of this line that come before it.
    """

    address: str
    line: str
    upstream: tuple[str, ...]

    @property
    def name(self) -> str:
        """Stage name without the line."""
        return self.address.split("@")[0]


def line_stages(workspace: Workspace, lines: list[str]) -> list[PipelineStage]:
    """Stages of some lines in topological order, read from DVC's graph.

    Raises:
        ConfigError: a line has no stage, or a setting that DVC watches is not in ``params.yaml``.
    """
    with open_repository(workspace) as repository:
        return _stages(workspace, repository, lines)


def stale_stages(workspace: Workspace, lines: list[str]) -> list[str]:
    """Addresses of the lines' stages whose inputs, settings or outputs differ from the last run's.

    Raises:
        ConfigError: a line has no stage, or a setting that DVC watches is not in ``params.yaml``.
    """
    with open_repository(workspace) as repository:
        stages = [stage.address for stage in _stages(workspace, repository, lines)]
        # DVC reads and tells addresses relative to the current folder, which need not be the workspace.
        told = repository.status(targets=[f"{workspace.root / 'dvc.yaml'}:{address}" for address in stages])
    stale = {str(key).rpartition(":")[2] for key in told}
    return [address for address in stages if address in stale]


def _stages(workspace: Workspace, repository: Any, lines: list[str]) -> list[PipelineStage]:
    import networkx

    graph = repository.index.graph
    # DVC draws an edge from a stage to what it depends on.
    ordered = list(reversed(list(networkx.topological_sort(graph))))
    found = [
        PipelineStage(stage.name, line, _upstream(graph, stage, line))
        for stage in ordered
        if (line := _line_of(stage)) in lines
    ]
    for line in lines:
        if not any(stage.line == line for stage in found):
            raise ConfigError(f"{workspace.root / 'dvc.yaml'}: no stage for the line '{line}'")
    _check_settings(workspace, [stage for stage in ordered if _line_of(stage) in lines])
    return found


def _check_settings(workspace: Workspace, stages: list[Any]) -> None:
    """DVC can watch only what is written down, so a default has to be written too."""
    from dvc.dependency import ParamsDependency

    missing = {
        key
        for stage in stages
        for watched in stage.deps
        if isinstance(watched, ParamsDependency)
        for key in set(watched.params) - set(watched.read_params())
    }
    missing -= {key for key in missing if key.rpartition(".")[0] in missing}
    if missing:
        raise ConfigError(
            "\n".join(f"{workspace.params}: {key}: {_default(workspace, key)}" for key in sorted(missing))
        )


def _default(workspace: Workspace, key: str) -> str:
    """What to write for a missing ``lines.LINE.SECTION[.KEY]``."""
    _, line, *names = key.split(".")
    value: Any = line_settings(workspace.params, line).model_dump(mode="json", by_alias=True)
    for name in names:
        value = value[name]
    return f"missing; the default is {json.dumps(value)}"


def _line_of(stage: Any) -> str:
    """Line of a stage of ``dvc.yaml``; empty for tracked data, which has no name."""
    return str(getattr(stage, "name", None) or "").partition("@")[2]


def _upstream(graph: Any, stage: Any, line: str) -> tuple[str, ...]:
    return tuple(sorted(other.name for other in graph.successors(stage) if _line_of(other) == line))


def recorded_digests(workspace: Workspace, line: str) -> Stages:
    """What DVC recorded of a line's stages, while nobody writes it: other lines may be in training.

    Raises:
        ConfigError: see ``open_repository``; or what is recorded is not readable.
        ServiceError: DVC failed.
    """
    with open_repository(workspace):
        return dvc_digests(workspace, line)


@contextmanager
def open_repository(workspace: Workspace) -> Iterator[Any]:
    """DVC's repository, locked so that nobody writes ``dvc.lock`` meanwhile; its errors become ours.

    Raises:
        ConfigError: the workspace is not DVC's, or a file of its pipeline is wrong.
        ServiceError: DVC failed.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.parsing import ResolveError
    from dvc.repo import Repo, lock_repo
    from dvc.utils.serialize import ParseError
    from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(str(workspace.root), _wait_for_lock=True) as repository, lock_repo(repository):
            yield repository
    except NotDvcRepoError:
        raise ConfigError(f"{workspace.root}: not a DVC workspace; run `novad demo` or `dvc init`") from None
    except (ParseError, ResolveError, YAMLSyntaxError, YAMLValidationError) as error:
        raise ConfigError(f"{workspace.root}: DVC: {error}") from error
    except (DvcException, OSError) as error:  # No room on the disk comes through DVC as it is.
        raise ServiceError(f"{workspace.root}: DVC: {error}") from error
