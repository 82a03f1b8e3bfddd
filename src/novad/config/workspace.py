"""Where a project's settings, data and outputs lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from novad.errors import ConfigError

__all__ = ["Workspace"]


@dataclass(frozen=True)
class Workspace:
    """A folder with ``params.yaml`` and ``dvc.yaml``; every other path follows from it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """The workspace named by ``NOVAD_WORKSPACE``, else the nearest folder upward of ``start``.

        Raises:
            ConfigError: no folder with ``params.yaml`` and ``dvc.yaml``.
        """
        named = os.environ.get("NOVAD_WORKSPACE")
        begin = Path(named or start or Path.cwd()).absolute()
        for folder in (begin,) if named else (begin, *begin.parents):
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise ConfigError(
            f"{begin}: no novad workspace here (params.yaml and dvc.yaml); "
            "run from the project folder or set NOVAD_WORKSPACE"
        )

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def state(self) -> Path:
        """Databases, locks and logs of the embedded services; not versioned."""
        return self.root / ".novad"

    def path(self, relative: str) -> Path:
        """A path of ``params.yaml``, relative to the workspace unless absolute."""
        return self.root / relative

    def artifacts(self, line: str, stage: str) -> Path:
        """Output folder of one stage of one line."""
        return self.root / "artifacts" / line / stage
