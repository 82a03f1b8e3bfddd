"""Judged images, kept for reviewers where that was asked for: by digest, and never more than was allowed."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

from novad.config import Workspace

__all__ = ["ImageStore", "image_folder"]

_log = logging.getLogger(__name__)


def image_folder(workspace: Workspace) -> Path:
    """Where the scoring service keeps judged images of a workspace."""
    return workspace.state / "serve" / "images"


class ImageStore:
    """Files named by their own sha256; the oldest go when there is no more room.

    An image that is judged again counts as new. What cannot be kept is told to the log and to nobody else:
    its decision stands.

    Args:
        folder: of the files; nothing else may lie there.
        max_bytes: of all of them together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._writing = Lock()

    def keep(self, images: Mapping[str, bytes]) -> None:
        """Keep image files, given by their digests."""
        try:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                for sha256, data in images.items():
                    self._write(self._folder / sha256, data)
                self._make_room()
        except OSError as error:
            _log.warning("images cannot be kept: %s", error)

    def read(self, sha256: str) -> bytes | None:
        """An image file; None when it was not kept, is gone, or is no longer what it was."""
        try:
            data = (self._folder / sha256).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _write(self, path: Path, data: bytes) -> None:
        if path.exists():
            os.utime(path)
            return
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make_room(self) -> None:
        files = sorted(self._files(), key=lambda each: each[1].st_mtime_ns)
        held = sum(status.st_size for _, status in files)
        for path, status in files:
            if held <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            held -= status.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Hidden ones too: a killed process leaves them, and they count."""
        for path in self._folder.iterdir():
            yield path, path.stat()
