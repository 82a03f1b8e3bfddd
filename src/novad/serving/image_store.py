"""Judged images, kept for reviewers where that was asked for: by digest, and never more than was allowed."""

import hashlib
import logging
import os
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

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
        # A folder of many files takes a second to look through, while answers wait: that is done once, and
        # again only when all that was found then is gone.
        self._held, self._counted = 0, False
        self._oldest: deque[_File] = deque()

    def keep(self, images: Mapping[str, bytes]) -> None:
        """Keep image files, given by their digests."""
        try:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not self._counted:
                    self._look()
                for sha256, data in images.items():
                    self._held += self._write(self._folder / sha256, data)
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

    def _write(self, path: Path, data: bytes) -> int:
        """Number of bytes that the folder gained."""
        if path.exists():
            os.utime(path)
            return 0
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return len(data)

    def _make_room(self) -> None:
        while self._held > self._max_bytes:
            if not self._oldest:
                self._look()
            if not self._oldest:
                return
            file = self._oldest.popleft()
            if _removed(file):
                self._held -= file.size

    def _look(self) -> None:
        """Count what is there; hidden files too: a killed process leaves them."""
        with os.scandir(self._folder) as entries:
            found = [(Path(entry.path), entry.stat()) for entry in entries]
        files = [_File(path, status.st_mtime_ns, status.st_size) for path, status in found]
        self._oldest = deque(sorted(files, key=lambda file: file.written))
        self._held = sum(file.size for file in files)
        self._counted = True


class _File(NamedTuple):
    """A file as it was when the folder was looked at."""

    path: Path
    written: int
    size: int


def _removed(file: _File) -> bool:
    """Remove a file, unless it was judged again since it was found: then it is new."""
    try:
        if file.path.stat().st_mtime_ns != file.written:
            return False
    except FileNotFoundError:
        return True
    file.path.unlink(missing_ok=True)
    return True
