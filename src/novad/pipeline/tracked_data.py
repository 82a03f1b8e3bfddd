"""The folder of images that a line owns, and DVC's record of it."""

from pathlib import Path

from novad.config import Workspace, line_settings, load_lines
from novad.config.yaml_file import read_yaml
from novad.errors import ConfigError, RefusedError
from novad.pipeline.graph import open_repository

__all__ = [
    "data_digest",
    "lines_tracked_by",
    "own_data",
    "require_fetched",
    "require_recorded",
    "track",
    "tracking_file",
]

_NAMES_TOLD = 5


def tracking_file(workspace: Workspace, folder: Path) -> Path | None:
    """DVC's file about ``folder``, or about the nearest one that holds it in the workspace; None without."""
    if not folder.is_relative_to(workspace.root):
        return None
    above = (folder, *folder.parents)
    found = (each.with_name(f"{each.name}.dvc") for each in above if each.is_relative_to(workspace.root))
    return next((path for path in found if path.is_file()), None)


def lines_tracked_by(workspace: Workspace, tracked_by: Path) -> list[str]:
    """Every line whose images are recorded in one file of DVC: to record one is to record all."""
    return [
        line
        for line, settings in load_lines(workspace.params).items()
        if tracking_file(workspace, workspace.path(settings.data)) == tracked_by
    ]


def data_digest(tracked_by: Path | None) -> str | None:
    """The digest of all images that DVC recorded in a file of :func:`tracking_file`.

    Raises:
        ConfigError: the file is not as DVC wrote it; names it.
    """
    if tracked_by is None:
        return None
    try:
        return str(read_yaml(tracked_by)["outs"][0]["md5"])
    except (TypeError, LookupError):
        raise ConfigError(f"{tracked_by}: outs: names no digest; it is not as DVC wrote it") from None


def own_data(workspace: Workspace, line: str) -> tuple[Path, Path]:
    """The data folder of ``line`` and DVC's file about it, where images may be added.

    Raises:
        ConfigError: an unknown line, or no such folder.
        RefusedError: the folder lies outside the workspace, is another line's too, or DVC does not track it.
    """
    data = line_settings(workspace.params, line).data
    folder = workspace.path(data)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: the images of {line} are missing; `dvc checkout` brings them back")
    real = folder.resolve()
    if not real.is_relative_to(workspace.root.resolve()):
        raise RefusedError(
            f"{folder}: lies outside the workspace, where it is not {line}'s alone; `novad line add` copies "
            "images into the workspace"
        )
    for other, settings in load_lines(workspace.params).items():
        elsewhere = workspace.path(settings.data).resolve()
        if other != line and (elsewhere.is_relative_to(real) or real.is_relative_to(elsewhere)):
            raise RefusedError(f"{folder}: holds images of line {other} too; give {line} a folder of its own")
    tracked_by = tracking_file(workspace, folder)
    if tracked_by is None:
        raise RefusedError(f"{folder}: DVC does not track it; `dvc add {data}` does")
    return folder, tracked_by


def require_recorded(workspace: Workspace, tracked_by: Path) -> None:
    """Refuse data that were changed by hand, so that the next version holds nothing that nobody asked for.

    Raises:
        RefusedError: the images are not those that DVC recorded.
        ServiceError: DVC failed.
    """
    with open_repository(workspace) as repository:
        changed = repository.status(targets=[str(tracked_by)])
    if changed:
        data = tracked_by.with_suffix("").relative_to(workspace.root)
        raise RefusedError(
            f"{workspace.root / data}: holds changes that DVC did not record; `dvc add {data}` makes them a "
            f"version, `dvc checkout {data}.dvc` takes them back"
        )


def require_fetched(workspace: Workspace, line: str) -> None:
    """Refuse other images than DVC recorded where those are not all on this machine.

    So it is when a remote lacks some of them: DVC then leaves the version before in the folder, or nothing.
    Images that somebody changed here pass: DVC has those that it recorded, too.

    Raises:
        ConfigError: names images that must be fetched.
        ServiceError: DVC failed.
    """
    tracked_by = tracking_file(workspace, workspace.path(line_settings(workspace.params, line).data))
    if tracked_by is None:
        return
    with open_repository(workspace) as repository:
        [stage] = repository.stage.load_file(str(tracked_by))
        [output] = stage.outs
        if not output.workspace_status() or not output.changed_cache():
            return
        recorded = output.get_obj() or ()
        names = ["/".join(key) for key, _, found in recorded if not output.cache.exists(found.value)]
    data = tracked_by.with_suffix("")
    told = tracked_by.relative_to(workspace.root)
    raise ConfigError(
        f"{data}: not the images that {told} records, of which {_some(names)} not on this machine; `dvc pull "
        f"{told}` fetches them, `dvc add {told.with_suffix('')}` records what is there instead"
    )


def _some(names: list[str]) -> str:
    """Names as the subject of a sentence; without names DVC does not even know them here."""
    if not names:
        return "the list is"
    more = [f"{len(names) - _NAMES_TOLD} more"] if len(names) > _NAMES_TOLD else []
    return ", ".join([*names[:_NAMES_TOLD], *more]) + (" are" if len(names) > 1 else " is")


def track(workspace: Workspace, folder: Path) -> None:
    """Let DVC record ``folder`` as it is.

    Raises:
        ServiceError: DVC failed.
    """
    with open_repository(workspace) as repository:
        repository.add([str(folder)])
