"""What a registered version's run keeps, handed out only while it is what was published."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novad.config import Workspace, line_settings
from novad.errors import ConfigError, IntegrityError
from novad.images.decode import read_known
from novad.tracking.digests import combined, metrics_digest
from novad.tracking.evidence import find_version, run_folder
from novad.tracking.store import open_client

__all__ = ["METRICS", "SCORES", "PublishedRun"]

METRICS = "evaluate/metrics.json"
SCORES = "evaluate/scores.parquet"
_MANIFEST = "validate/manifest.parquet"


@dataclass(frozen=True)
class PublishedRun:
    """The files of one version's run, with the digests that it was registered with."""

    workspace: Workspace
    line: str
    version: int | None
    """None while it is being published."""
    folder: Path
    digests: dict[str, str]
    """Sha256 by path below the run."""

    @classmethod
    def open(cls, workspace: Workspace, line: str, version: int) -> "PublishedRun":
        """Find the run and check its list of files.

        Raises:
            ConfigError: no such version.
            IntegrityError: the list is not the one that was published.
            ServiceError: the store cannot be reached, or the files are gone.
        """
        client = open_client(workspace)
        found = find_version(client, line, version)
        folder = run_folder(workspace, client, found.run_id or "")
        try:
            digests = json.loads((folder / "manifest.json").read_bytes())
            intact = combined(digests) == found.tags.get("novad.output_digest")
        except (OSError, ValueError):
            intact = False
        if not intact:
            raise IntegrityError(f"{line} version {version}: manifest.json is not the published one")
        return cls(workspace, line, version, folder, digests)

    def __str__(self) -> str:
        return self.line if self.version is None else f"{self.line} version {self.version}"

    def names(self, below: str) -> list[str]:
        """Paths of the files below a folder of the run, sorted."""
        return sorted(name for name in self.digests if name.startswith(f"{below}/"))

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            ConfigError: the run keeps no file of this name.
            IntegrityError: it is gone or is not the one that was published.
        """
        if name not in self.digests:
            raise ConfigError(f"{self}: no file {name} was published")
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            data = b""
        if self._digest(name, data) != self.digests[name]:
            raise IntegrityError(f"{self}: {name} is not the published one")
        return data

    def document(self, name: str) -> Any:
        """Content of a JSON file; see ``read``."""
        return json.loads(self.read(name))

    def table(
        self,
        name: str,
        columns: list[str] | None = None,
        filters: list[tuple[str, str, str]] | None = None,
    ) -> Any:
        """A parquet file as a pyarrow table; see ``read`` and ``pyarrow.parquet.read_table``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        # A copy in Arrow's memory: its threads may let go of a file when the interpreter ends, and one that
        # lets go of bytes of Python's then brings the process down (apache/arrow issue 34314).
        stream = pa.BufferOutputStream()
        stream.write(self.read(name))
        return pq.read_table(pa.BufferReader(stream.getvalue()), columns=columns, filters=filters)

    def image(self, sha256: str) -> bytes | None:
        """An image that this version was made or judged with, if its file is still where it was.

        None when the version knew no such image, or the file is gone or another one now.

        Raises:
            IntegrityError: the record of images is not the one that was published.
        """
        for row in self.table(_MANIFEST, ["path"], [("sha256", "=", sha256)]).to_pylist():
            try:
                data = self.workspace.path(line_settings(self.workspace.params, self.line).data)
            except ConfigError:
                continue
            if (content := read_known(data / row["path"], sha256)) is not None:
                return content
        return None

    def _digest(self, name: str, data: bytes) -> str | None:
        if name != METRICS:
            return hashlib.sha256(data).hexdigest()
        try:
            return metrics_digest(self.folder / name)
        except IntegrityError:
            return None
