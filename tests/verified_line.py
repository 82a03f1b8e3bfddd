"""A line whose images DVC tracks, with decisions on images that are not among them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from novad.config import Workspace
from novad.images.demo import make_demo_line
from novad.pipeline.tracked_data import track
from novad.tracking import LoggedDecision, give_verdict, log_decisions
from novad.tracking.digests import file_digest
from tracking_fixtures import logged_decision

__all__ = ["DATA", "Verify", "further_images", "plates", "tracked_plates", "verify_image"]

DATA = "lines/plates"
Verify = Callable[..., LoggedDecision]


@pytest.fixture(scope="session")
def further_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound line's images and more: from 012 on in train/good, from 002 on in test/TYPE. Do not write."""
    folder = tmp_path_factory.mktemp("further") / "plates"
    make_demo_line("brushed-metal", folder, train=18, test_good=6, per_defect=6)
    return folder


@pytest.fixture(scope="session")
def tracked_plates(sound_line: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with line `plates`, tracked by DVC; to copy."""
    root = tmp_path_factory.mktemp("tracked") / "plant"
    shutil.copytree(sound_line, root / DATA)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    line = {
        "data": DATA,
        "layout": "mvtec",
        "validate": {"min_normals": 12},
        "backbone": {"sha256": "0" * 64},
        "explainer": {"backbone": {"sha256": "0" * 64}},
    }
    YAML().dump({"lines": {"plates": line}}, root / "params.yaml")
    (root / "dvc.yaml").write_text("stages: {}\n")
    track(Workspace(root), root / DATA)
    return root


@pytest.fixture
def plates(
    own_store: None,
    tracked_plates: Path,
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """The workspace with line `plates`, as commands find it, beside an empty database."""
    root = shutil.copytree(tracked_plates, tmp_path / "plant")
    (root / ".novad").mkdir(exist_ok=True)
    shutil.copyfile(empty_database, root / ".novad/mlflow.db")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(root))
    return Workspace(root)


@pytest.fixture
def verify_image(plates: Workspace) -> Verify:
    """Log a decision on an image file and, unless it is None, a verdict on it."""
    numbers = iter(range(1, 1000))

    def verify(
        image: Path,
        decision: str,
        verdict: str | None = None,
        defect_type: str | None = None,
        **changes: object,
    ) -> LoggedDecision:
        number = next(numbers)
        told = {
            "prediction_id": f"{number:08d}-1111-4111-8111-111111111111",
            "at": f"2026-11-24T14:{number // 60:02d}:{number % 60:02d}.000000+00:00",
            "line": "plates",
            "image_sha256": file_digest(image),
            "source": str(image),
            "decision": decision,
        }
        logged = logged_decision(**{**told, **changes})
        log_decisions(plates, [logged])
        if verdict is not None:
            give_verdict(plates, logged, verdict, "ada", "seen", defect_type)  # type: ignore[arg-type]
        return logged

    return verify
