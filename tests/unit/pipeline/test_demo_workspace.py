"""The demo's workspace: made once, in any folder, and never on top of somebody else's files."""

import re
import shutil
from pathlib import Path

import pytest

from fake_line import REPOSITORY
from novad.config import Workspace
from novad.errors import ConfigError, RefusedError
from novad.pipeline.demo import approve_first_versions, changed_images, prepare_workspace
from novad.pipeline.graph import open_repository
from novad.pipeline.train import LineResult
from novad.tracking import champion_event, history, publish


def _make_tiny_data(folder: Path) -> None:
    for line in ("brushed-metal", "woven-fabric"):
        (folder / line).mkdir(parents=True)
        (folder / line / "part.png").write_text(f"a picture of {line}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose demo images are two tiny files, as its `data.dvc` records them."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", "requirements.lock"):
        shutil.copyfile(REPOSITORY / name, root / name)
    for name in ("src", "flows", "mlflow"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    _make_tiny_data(root / "data")
    with open_repository(Workspace(root)) as repository:
        repository.add([str(root / "data")])
    shutil.rmtree(root / "data")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(root))
    monkeypatch.setattr("novad.images.make_demo_lines", _make_tiny_data)
    return Workspace(root)


def test_a_folder_elsewhere_becomes_a_workspace_on_the_projects_code(
    project: Workspace, tmp_path: Path
) -> None:
    # As in the real project, which is in git: the folder elsewhere is not.
    (project.root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    workspace = prepare_workspace(tmp_path / "some where/deep")
    assert workspace.root == tmp_path / "some where/deep"
    assert (workspace.root / "dvc.yaml").samefile(project.root / "dvc.yaml")
    assert (workspace.root / "src").samefile(REPOSITORY / "src")
    assert not workspace.params.is_symlink()
    assert not (workspace.root / "data.dvc").is_symlink()
    assert (workspace.root / "data/brushed-metal/part.png").is_file()
    assert changed_images(workspace) is None
    assert not (project.root / "data").exists()

    kept = workspace.params.read_text("utf-8") + "# mine\n"
    workspace.params.write_text(kept, "utf-8")
    (workspace.root / "dvc.yaml").unlink()
    (workspace.root / "dvc.yaml").symlink_to("/nowhere")
    assert prepare_workspace(workspace.root) == workspace
    assert workspace.params.read_text("utf-8") == kept
    assert (workspace.root / "dvc.yaml").samefile(project.root / "dvc.yaml")


def test_somebody_elses_folder_is_refused_untouched(project: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter-1.txt").write_text("precious")
    with pytest.raises(ConfigError, match="thesis is not empty"):
        prepare_workspace(other)
    assert [path.name for path in other.iterdir()] == ["chapter-1.txt"]
    with pytest.raises(ConfigError, match=r"chapter-1\.txt is not a folder"):
        prepare_workspace(other / "chapter-1.txt")


def test_images_that_differ_from_the_record_are_refused_and_removed(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(folder: Path) -> None:
        _make_tiny_data(folder)
        (folder / "woven-fabric/part.png").write_text("another picture")

    recorded = (project.root / "data.dvc").read_bytes()
    monkeypatch.setattr("novad.images.make_demo_lines", other)
    with pytest.raises(ConfigError, match=r"data\.dvc: the demo images made here are not those recorded"):
        prepare_workspace(None)
    assert not (project.root / "data").exists()
    assert (project.root / "data.dvc").read_bytes() == recorded
    monkeypatch.setattr("novad.images.make_demo_lines", _make_tiny_data)
    assert prepare_workspace(None) == project


def test_images_that_a_kill_left_unchecked_are_made_again(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit(-9)

    with monkeypatch.context() as patched:
        patched.setattr("novad.pipeline.demo._dvc", killed)
        with pytest.raises(SystemExit):
            prepare_workspace(None)
    (project.root / "data/woven-fabric/part.png").write_text("half a picture")
    prepare_workspace(None)
    assert (project.root / "data/woven-fabric/part.png").read_text() == "a picture of woven-fabric"
    assert changed_images(project) is None


def test_images_changed_later_are_told_and_left_alone(project: Workspace) -> None:
    prepare_workspace(None)
    assert changed_images(project) is None
    picture = project.root / "data/woven-fabric/part.png"
    picture.chmod(0o644)
    picture.write_text("touched up")
    assert str(project.root / "data") in str(changed_images(project))
    prepare_workspace(None)
    assert picture.read_text() == "touched up"


def test_the_first_version_is_approved_once_and_by_the_same_gates_as_any(tracked: Workspace) -> None:
    published = publish(tracked, "metal")
    results = [LineResult("metal", published.version, published.run_id)]
    assert approve_first_versions(tracked, results) == {}
    champion = champion_event(tracked, "metal")
    assert champion is not None
    assert (champion.version, champion.actor) == (1, "demo")
    approve_first_versions(tracked, results)
    assert len(history(tracked, "metal")) == 1


def test_a_first_version_that_the_gates_refuse_is_told_and_not_tried_again(tracked: Workspace) -> None:
    publish(tracked, "metal")
    (tracked.root / "mlflow").unlink()
    (tracked.root / "mlflow").mkdir()
    text = (REPOSITORY / "mlflow/gates.yaml").read_text("utf-8")
    strict = re.sub(r"hybrid_auroc: \{min: [0-9.]+\}", "hybrid_auroc: {min: 0.99}", text)
    (tracked.root / "mlflow/gates.yaml").write_text(strict, "utf-8")
    refused = approve_first_versions(tracked, [LineResult("metal", 1)])
    assert type(refused["metal"]) is RefusedError
    assert "hybrid_auroc" in str(refused["metal"])
    assert approve_first_versions(tracked, [LineResult("metal", 1)]) == {}
    assert [event.kind for event in history(tracked, "metal")] == ["refusal"]
