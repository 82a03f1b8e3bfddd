"""Data that reached the remote in part: nothing is trained on other images, and a whole push mends it."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

from novad.config import Workspace
from novad.errors import ConfigError
from novad.pipeline.tracked_data import data_digest
from novad.pipeline.train import train_lines, validate_line
from state_digest import file_digests
from tiny_pipeline import MakeTiny

DATA = "data/metal"


@pytest.fixture
def sender(make_tiny: MakeTiny, tmp_path: Path) -> Workspace:
    """A workspace with a remote as `mlflow/README.md` says."""
    workspace = make_tiny("metal")
    with (workspace.root / ".dvc/config").open("a") as config:
        config.write(
            f"    remote = plant\n['remote \"plant\"']\n    url = {tmp_path / 'remote'}\n    verify = true\n"
        )
    return workspace


@pytest.fixture
def receiver(sender: Workspace, tmp_path: Path) -> Workspace:
    """The same on another machine, without images."""
    shutil.copytree(sender.root, tmp_path / "other", symlinks=True)
    (tmp_path / "other" / DATA).rmdir()
    return Workspace(tmp_path / "other")


def _send(sender: Workspace, receiver: Workspace) -> None:
    """The next version of three images, all of them pushed."""
    for number in range(3):
        (sender.root / DATA / f"{number}.png").write_bytes(os.urandom(1000))
    _dvc(sender, lambda repository: repository.add([str(sender.root / DATA)]))
    _dvc(sender, lambda repository: repository.push())
    shutil.copyfile(sender.root / f"{DATA}.dvc", receiver.root / f"{DATA}.dvc")


def _dvc(workspace: Workspace, act: Callable[[Repo], object]) -> None:
    with Repo(str(workspace.root)) as repository:
        act(repository)


def _pull(workspace: Workspace) -> None:
    _dvc(workspace, lambda repository: repository.pull([str(workspace.root / f"{DATA}.dvc")]))


def _stored(sender: Workspace, name: str) -> Path:
    digest = hashlib.md5((sender.root / DATA / name).read_bytes(), usedforsecurity=False).hexdigest()
    return sender.root.parent / "remote/files/md5" / digest[:2] / digest[2:]


def _lose_list(sender: Workspace) -> None:
    """The list of all images, which a push sends last: what it names DVC takes for present."""
    digest = data_digest(sender.root / f"{DATA}.dvc") or ""
    (sender.root.parent / "remote/files/md5" / digest[:2] / digest[2:]).unlink()


def test_a_pull_that_lacks_images_trains_nothing_and_a_whole_one_does(
    sender: Workspace, receiver: Workspace
) -> None:
    _send(sender, receiver)
    _pull(receiver)
    assert validate_line(receiver, "metal")

    _send(sender, receiver)
    before = file_digests(receiver.root, "artifacts", "data")
    _stored(sender, "1.png").unlink()
    with pytest.raises(DvcException):
        _pull(receiver)
    for work in (lambda: train_lines(receiver, ["metal"]), lambda: validate_line(receiver, "metal")):
        with pytest.raises(
            ConfigError, match=r"metal\.dvc records, of which the list is not on this machine"
        ):
            work()
    assert file_digests(receiver.root, "artifacts", "data") == before

    _lose_list(sender)
    _dvc(sender, lambda repository: repository.push())
    os.truncate(_stored(sender, "1.png"), 100)
    with pytest.raises(DvcException):
        _pull(receiver)
    with pytest.raises(ConfigError, match=r"of which 1\.png is not on this machine; `dvc pull data/met"):
        train_lines(receiver, ["metal"])
    assert file_digests(receiver.root, "artifacts").items() <= before.items()

    _stored(sender, "1.png").unlink()
    _lose_list(sender)
    _dvc(sender, lambda repository: repository.push())
    _pull(receiver)
    assert file_digests(receiver.root, "data") == file_digests(sender.root, "data")
    assert not validate_line(receiver, "metal")


def test_images_that_somebody_changed_here_are_trained_on(sender: Workspace, receiver: Workspace) -> None:
    _send(sender, receiver)
    _pull(receiver)
    (receiver.root / DATA / "0.png").unlink()
    (receiver.root / DATA / "3.png").write_bytes(b"another part")
    assert validate_line(receiver, "metal")
    shutil.rmtree(receiver.root / DATA)
    with pytest.raises(ConfigError, match="`dvc checkout` brings them back"):
        validate_line(receiver, "metal")
