"""Kept images: by digest, within bounds, the oldest gone first, and never a reason for a request to fail."""

import hashlib
import logging
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from novad.serving.image_store import ImageStore


def _image(letter: str, size: int = 100) -> tuple[str, bytes]:
    data = letter.encode() * size
    return hashlib.sha256(data).hexdigest(), data


def _keep(store: ImageStore, folder: Path, letter: str, size: int = 100, at: int = 0) -> str:
    """Keep an image, as if at second ``at``."""
    sha256, data = _image(letter, size)
    store.keep({sha256: data})
    if (folder / sha256).exists():
        os.utime(folder / sha256, (at, at))
    return sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "serve" / "images"


def test_an_image_is_read_as_it_was_kept(folder: Path) -> None:
    store = ImageStore(folder, 10**6)
    sha256, data = _image("a")
    assert store.read(sha256) is None
    store.keep({sha256: data})
    assert ImageStore(folder, 10**6).read(sha256) == data
    assert [file.name for file in folder.iterdir()] == [sha256]


def test_the_oldest_go_when_there_is_no_more_room(folder: Path) -> None:
    store = ImageStore(folder, 300)
    kept = [_keep(store, folder, letter, at=second) for second, letter in enumerate("abcd")]
    assert [store.read(each) is not None for each in kept] == [False, True, True, True]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 300


def test_an_image_that_is_judged_again_counts_as_new(folder: Path) -> None:
    store = ImageStore(folder, 200)
    first, second = _keep(store, folder, "a", at=1), _keep(store, folder, "b", at=2)
    store.keep(dict([_image("a")]))
    _keep(store, folder, "c", at=10**10)
    assert (store.read(first) is not None, store.read(second)) == (True, None)


def test_a_folder_is_looked_through_once_for_as_many_images_as_it_holds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers wait for it, and it takes a second where there are many files."""
    for number in range(10):
        _keep(ImageStore(folder, 10**6), folder, f"old {number:02}", size=1, at=number)
    store = ImageStore(folder, sum(file.stat().st_size for file in folder.iterdir()))
    looks = [Mock(wraps=os.scandir), Mock(wraps=os.listdir)]
    for name, look in zip(("scandir", "listdir"), looks, strict=True):
        monkeypatch.setattr(os, name, look)
    kept = []
    for number in range(30):
        kept.append(_keep(store, folder, f"new {number:02}", size=1, at=100 + number))
        assert store.read(kept[-1])
    for number in range(25, 30):
        _keep(store, folder, f"new {number:02}", size=1, at=100 + number)
    assert sum(look.call_count for look in looks) <= 4
    assert [store.read(each) is not None for each in kept] == [False] * 20 + [True] * 10


def test_an_image_that_is_judged_again_after_a_look_is_not_taken_for_old(folder: Path) -> None:
    store = ImageStore(folder, 300)
    first, second, third = (_keep(store, folder, letter, at=at) for at, letter in enumerate("abc", start=1))
    _keep(store, folder, "d", at=4)  # looked through: b, c and d are known from the oldest on
    store.keep(dict([_image("b")]))
    (folder / third).unlink()
    for letter in "ef":
        _keep(store, folder, letter, at=10**10)
    assert [store.read(each) is not None for each in (first, second, third)] == [False, True, False]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 300


def test_an_image_larger_than_all_the_room_is_not_kept(folder: Path) -> None:
    store = ImageStore(folder, 50)
    assert store.read(_keep(store, folder, "a")) is None


def test_what_a_killed_process_left_counts_and_goes(folder: Path) -> None:
    store = ImageStore(folder, 150)
    folder.mkdir(parents=True)
    left = folder / ".left"
    left.write_bytes(bytes(100))
    os.utime(left, (1, 1))
    kept = _keep(store, folder, "a")
    assert (left.exists(), store.read(kept) is not None) == (False, True)


def test_a_file_that_was_changed_is_no_image(folder: Path) -> None:
    store = ImageStore(folder, 10**6)
    sha256 = _keep(store, folder, "a")
    (folder / sha256).write_bytes(b"another")
    assert store.read(sha256) is None


def test_what_cannot_be_kept_is_told_to_the_log_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        ImageStore(folder, 10**6).keep(dict([_image("a")]))
    assert "images cannot be kept" in caplog.text
