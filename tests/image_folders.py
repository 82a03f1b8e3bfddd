"""Small data folders for tests, made once per session and copied where a test wants to break one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from novad.config import Workspace
from novad.images.demo import make_demo_line

DIGEST = "0" * 64


@pytest.fixture(scope="session")
def sound_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 normal training images, 4 good test images and 2 of each defect, in MVTec layout. Do not write."""
    folder = tmp_path_factory.mktemp("sound") / "plates"
    make_demo_line("brushed-metal", folder, train=12, test_good=4, per_defect=2)
    return folder


@pytest.fixture
def line_folder(sound_line: Path, tmp_path: Path) -> Path:
    """A copy of the sound line, inside a workspace folder, to break."""
    return shutil.copytree(sound_line, tmp_path / "workspace" / "plates")


@pytest.fixture
def make_workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """Writes a workspace with the line ``plates`` and its validate settings."""

    def make(layout: str = "mvtec", **validate: object) -> Workspace:
        root = tmp_path / "workspace"
        root.mkdir(exist_ok=True)
        (root / "dvc.yaml").touch()
        line = {
            "data": "plates",
            "layout": layout,
            "validate": {"min_normals": 12, **validate},
            "backbone": {"sha256": DIGEST},
            "explainer": {"backbone": {"sha256": DIGEST}},
        }
        YAML().dump({"lines": {"plates": line}}, root / "params.yaml")
        return Workspace(root)

    return make
