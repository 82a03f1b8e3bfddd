"""Adding a product line: all of it or nothing, whatever is wrong and whenever it is killed."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

from fake_line import REPOSITORY
from novad.config import ScheduleSettings, Workspace, line_settings
from novad.config.settings import BUNDLED_CHECKPOINT
from novad.errors import ConfigError, NovadError, RefusedError, ServiceError
from novad.images import discover
from novad.pipeline import lines
from novad.pipeline.graph import open_repository
from novad.pipeline.lines import NewLine, add_product_line
from tiny_pipeline import MakeTiny

Add = Callable[..., int]


@pytest.fixture
def workspace(make_tiny: MakeTiny) -> Workspace:
    """A workspace with one line, `metal`, and novad's own source, as DVC knows it."""
    made = make_tiny("metal")
    (made.root / "src").symlink_to(REPOSITORY / "src")
    return made


@pytest.fixture
def images(sound_line: Path, tmp_path: Path) -> Path:
    """A folder of images in MVTec layout, to break."""
    return shutil.copytree(sound_line, tmp_path / "camera 7")


@pytest.fixture
def add(workspace: Workspace, images: Path) -> Add:
    """Add line `plates` with some of its words changed."""

    def call(**changes: Any) -> int:
        told = {"name": "plates", "data": images, "layout": "mvtec", **changes}
        return add_product_line(workspace, NewLine(**told)).images

    return call


def _files(root: Path) -> set[str]:
    """Every file of a workspace that its owner would see; DVC's cache and the state folder aside."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir() and path.relative_to(root).parts[0] not in (".dvc", ".novad", "src", "flows")
    }


def test_a_line_is_copied_tracked_and_written_with_its_settings(
    add: Add, workspace: Workspace, images: Path
) -> None:
    (images / ".DS_Store").write_bytes(b"rubbish")
    assert add(anomaly_type="semantic_near", schedule="0 3 * * 1", image_size=160) == 26
    settings = line_settings(workspace.params, "plates")
    assert (settings.data, settings.layout, settings.anomaly_type) == (
        "lines/plates",
        "mvtec",
        "semantic_near",
    )
    assert settings.schedule == ScheduleSettings(cron="0 3 * * 1", timezone="UTC")
    assert settings.backbone.image_size == 160  # the images are squares
    assert settings.backbone == settings.explainer.backbone
    assert settings.backbone.checkpoint == BUNDLED_CHECKPOINT
    assert settings.explainer.method == "bcos"
    copied = workspace.root / "lines/plates"
    assert not any(path.is_symlink() or path.name == ".DS_Store" for path in copied.rglob("*"))
    originals = [path for path in images.rglob("*.png") if path.is_file()]
    for path in originals:
        twin = copied / path.relative_to(images)
        assert twin.read_bytes() == path.read_bytes()
        assert twin.stat().st_ino != path.stat().st_ino
    [out] = YAML(typ="safe").load((workspace.root / "lines/plates.dvc").read_text("utf-8"))["outs"]
    assert (out["path"], out["nfiles"]) == ("plates", len(originals))
    with open_repository(workspace) as repository:
        assert repository.status(targets=[str(workspace.root / "lines/plates.dvc")]) == {}
    assert not list((workspace.root / "lines").glob(".*"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "Plates"}, ConfigError, ("Plates", "lower-case")),
        ({"name": "../plates"}, ConfigError, ("../plates",)),
        ({"name": "metal"}, ConfigError, ("params.yaml", "lines.metal", "exists")),
        ({"data": Path("nowhere")}, ConfigError, ("--data", "nowhere")),
        ({"layout": "coco"}, ConfigError, ("--layout", "mvtec")),
        ({"layout": "folder"}, ConfigError, ("normal",)),
        ({"schedule": "61 * * * *"}, ConfigError, ("--schedule", "61 * * * *")),
        ({"explainer": "lime"}, ConfigError, ("--explainer", "occlusion")),
        ({"explainer": "lrp"}, ConfigError, ("lrp", "novad-bcos", "conv1.linear")),
        ({"anomaly_type": "odd"}, ConfigError, ("--anomaly-type", "sensory")),
        ({"image_size": 30}, ConfigError, ("--image-size: 30", "multiples of 8")),
        ({"image_size": "640x228"}, ConfigError, ("--image-size: 640x228", "multiples of 8")),
        ({"image_size": "wide"}, ConfigError, ("--image-size: wide", "WIDTHxHEIGHT")),
        ({"tile": 40}, ConfigError, ("--tile", "multiple of 32")),
        ({"tile": 256}, ConfigError, ("--tile", "at most image_size (224)")),
        ({"image_size": "640x200", "tile": 64}, ConfigError, ("--tile", "640x200", "multiple of 32")),
        ({"image_size": 200, "tile": 64}, ConfigError, ("--tile", "multiple of 32")),
        ({"backbone": "nowhere.safetensors"}, ConfigError, ("--backbone", "nowhere.safetensors")),
        ({"backbone": "timm:nonet"}, ConfigError, ("timm:nonet",)),
        ({"backbone": "bcos:nonet"}, ConfigError, ("bcos:nonet", "resnet_50_long")),
    ],
)
def test_what_is_wrong_is_named_and_nothing_stays(
    changes: dict[str, Any],
    error: type[NovadError],
    words: tuple[str, ...],
    add: Add,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("novad.pipeline.checkpoints._do_not_wait_for_hub", lambda: None)
    before, params = _files(workspace.root), workspace.params.read_bytes()
    with pytest.raises(error) as refused:
        add(**changes)
    assert all(word in str(refused.value) for word in words)
    assert _files(workspace.root) == before
    assert workspace.params.read_bytes() == params


def test_a_folder_without_an_image_is_refused(add: Add, tmp_path: Path) -> None:
    for name in ("train/good", "test"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match="bare: the layout 'mvtec' finds no image"):
        add(data=tmp_path / "bare")


def test_a_line_is_added_where_all_lines_were_deleted(add: Add, workspace: Workspace) -> None:
    workspace.params.write_text("lines:\n")
    assert add() == 26
    assert line_settings(workspace.params, "plates").data == "lines/plates"


def test_an_object_of_visa_keeps_the_division_that_lies_beside_it(
    add: Add, workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "VisA/candle"
    shutil.copytree(images / "train/good", folder / "Data")
    paths = sorted(f"candle/Data/{path.name}" for path in (folder / "Data").iterdir())
    rows = [f"candle,{'test' if i < 3 else 'train'},normal,{path}," for i, path in enumerate(paths)]
    (tmp_path / "VisA/split_csv").mkdir()
    table = ["object,split,label,image,mask", *rows, "pcb1,train,normal,pcb1/Data/0.png,"]
    (tmp_path / "VisA/split_csv/1cls.csv").write_text("\n".join(table) + "\n")
    assert add(data=folder, layout="visa") == len(paths)
    sources = [sample.source for sample in discover(workspace.root / "lines/plates", "visa")]
    assert sources == ["test"] * 3 + ["train"] * (len(paths) - 3)
    with open_repository(workspace) as repository:
        assert repository.status(targets=[str(workspace.root / "lines/plates.dvc")]) == {}


def test_links_inside_the_folder_become_files_and_links_out_of_it_are_refused(
    add: Add, workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    good = images / "train/good"
    some = sorted(good.glob("*.png"))[0]
    (good / "twin.png").symlink_to(some.name)
    assert add() == 27
    twin = workspace.root / "lines/plates/train/good/twin.png"
    assert not twin.is_symlink()
    assert twin.read_bytes() == some.read_bytes()

    outside = shutil.copyfile(some, tmp_path / "elsewhere.png")
    (good / "stranger.png").symlink_to(outside)
    (good / "lost.png").symlink_to("nowhere.png")
    (images / "test/away").symlink_to(tmp_path)
    before = _files(workspace.root)
    with pytest.raises(RefusedError) as refused:
        add(name="others")
    assert "twin.png" not in str(refused.value)
    for name in ("test/away", "train/good/lost.png", "train/good/stranger.png"):
        assert name in str(refused.value)
    assert _files(workspace.root) == before


def test_a_folder_that_holds_the_workspace_is_not_copied_into_itself(add: Add, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="own lines"):
        add(data=workspace.root)


def test_images_that_lie_where_the_line_would_go_are_never_removed(
    add: Add, workspace: Workspace, images: Path
) -> None:
    place = workspace.root / "lines/plates"
    shutil.copytree(images, place)
    before = _files(workspace.root)
    for data in (images, place):
        with pytest.raises(ConfigError, match="belongs to no line"):
            add(data=data)
    assert _files(workspace.root) == before


@pytest.mark.parametrize("step", ["copy_images", "track", "add_line"])
def test_a_failure_at_any_step_takes_everything_back(
    step: str, add: Add, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = workspace.root / "lines/.gitignore"
    ignored.parent.mkdir()
    ignored.write_text("/other\n")
    before, params = _files(workspace.root), workspace.params.read_bytes()
    whole = getattr(lines, step)

    def fails(*arguments: Any) -> None:
        if step != "add_line":  # whose last act is to replace params.yaml, after which nothing can fail
            whole(*arguments)
        ignored.write_text("/other\n/plates\n")
        raise ServiceError("the disk went away")

    checkpoint = shutil.copyfile(REPOSITORY / BUNDLED_CHECKPOINT, tmp_path / "mine.safetensors")
    monkeypatch.setattr(lines, step, fails)
    with pytest.raises(ServiceError, match="the disk went away"):
        add(backbone=str(checkpoint))
    assert _files(workspace.root) == before
    assert not (workspace.root / "lines/plates").exists()
    assert workspace.params.read_bytes() == params
    assert ignored.read_text() == "/other\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from novad.config import Workspace
from novad.pipeline import lines
from novad.pipeline.lines import NewLine, add_product_line
whole = getattr(lines, sys.argv[3])
def killed(*arguments):
    if sys.argv[3] != "add_line":
        whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(lines, sys.argv[3], killed)
add_product_line(Workspace(Path(sys.argv[1])), NewLine("plates", Path(sys.argv[2]), "mvtec"))
"""


def test_a_kill_at_any_step_is_forgotten_by_the_next_call(
    add: Add, workspace: Workspace, images: Path
) -> None:
    before = _files(workspace.root)
    for step in ("copy_images", "track", "add_line"):
        command = [sys.executable, "-c", KILLED, str(workspace.root), str(images), step]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert list((workspace.root / "lines").glob(".plates.adding"))
        with pytest.raises(ConfigError):
            line_settings(workspace.params, "plates")
    assert (workspace.root / "lines/plates.dvc").is_file()
    with pytest.raises(ConfigError, match="nowhere"):
        add(name="others", data=Path("nowhere"))
    assert _files(workspace.root) == before
    assert not (workspace.root / "lines/plates").exists()
    assert add() == 26


def test_a_checkpoint_from_elsewhere_is_copied_and_one_of_the_same_name_is_kept(
    add: Add, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = workspace.root / "weights"
    weights.mkdir()
    (weights / "mine.safetensors").write_bytes(b"another file")
    shutil.copyfile(REPOSITORY / BUNDLED_CHECKPOINT, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    add(backbone="mine.safetensors")
    settings = line_settings(workspace.params, "plates")
    assert settings.backbone.checkpoint == f"weights/mine-{settings.backbone.sha256[:12]}.safetensors"
    assert workspace.path(settings.backbone.checkpoint).read_bytes() == Path("mine.safetensors").read_bytes()
    assert (weights / "mine.safetensors").read_bytes() == b"another file"
    # It is a B-cos network, so it explains itself.
    assert settings.explainer.backbone == settings.backbone


def test_beside_a_plain_network_the_bundled_one_is_explained_unless_a_method_for_any_is_named(
    add: Add, workspace: Workspace, tmp_path: Path
) -> None:
    import timm
    from safetensors.torch import save_file

    checkpoint = tmp_path / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), checkpoint)
    add(backbone=str(checkpoint), image_size=64)
    settings = line_settings(workspace.params, "plates")
    assert (settings.backbone.architecture, settings.explainer.backbone.architecture) == (
        "resnet10t",
        "novad-bcos",
    )
    assert settings.explainer.method == "bcos"
    add(name="others", backbone=str(checkpoint), explainer="input_x_gradient", image_size=64)
    settings = line_settings(workspace.params, "others")
    assert (settings.explainer.method, settings.explainer.backbone) == ("input_x_gradient", settings.backbone)


def test_a_tile_is_written_and_a_network_that_looks_at_the_whole_image_is_refused(
    add: Add, workspace: Workspace, tmp_path: Path
) -> None:
    import timm
    from safetensors.torch import save_file

    for name in ("resnet10t", "mobilenetv3_small_050"):
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    add(backbone=str(tmp_path / "resnet10t.safetensors"), image_size=64, tile=32)
    settings = line_settings(workspace.params, "plates")
    assert (settings.backbone.tile, settings.explainer.backbone.tile) == (32, 32)
    with pytest.raises(ConfigError, match=r"mobilenetv3_small_050 cannot be run tile by tile"):
        add(name="others", backbone=str(tmp_path / "mobilenetv3_small_050.safetensors"), tile=32)


def test_a_weight_file_of_the_bcos_zoo_is_kept_as_safetensors_and_explains_itself(
    add: Add, workspace: Workspace, tmp_path: Path
) -> None:
    import torch

    from novad.vision.bcos_zoo import zoo_network

    torch.save(zoo_network("resnet_18").build().state_dict(), tmp_path / "resnet_18.pth")
    add(backbone=str(tmp_path / "resnet_18.pth"), image_size=64)
    settings = line_settings(workspace.params, "plates")
    assert settings.backbone.architecture == "bcos:resnet_18"
    assert settings.explainer.backbone == settings.backbone
    assert settings.backbone.checkpoint.startswith("weights/resnet_18-")
    assert workspace.path(settings.backbone.checkpoint).suffix == ".safetensors"


def test_weights_that_do_not_fit_their_architecture_are_refused_before_anything_is_copied(
    add: Add, workspace: Workspace, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    checkpoint = tmp_path / "resnet10t.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, checkpoint)
    before = _files(workspace.root)
    with pytest.raises(ConfigError, match=r"resnet10t\.safetensors: the weights do not fit"):
        add(backbone=str(checkpoint))
    assert _files(workspace.root) == before


def test_line_list_tells_when_a_schedule_comes_round_and_names_a_wrong_one(
    add: Add, workspace: Workspace
) -> None:
    from novad.pipeline.lines import describe_lines

    add(schedule="0 3 * * 1")
    rows = {row["line"]: row for row in describe_lines(workspace)}
    assert rows["plates"]["next_run"][11:16] == "03:00"
    assert len(rows["plates"]["data"]) == len("d41d8cd98f00b204e9800998ecf8427e.dir")
    assert (rows["plates"]["champion"], rows["plates"]["newest"], rows["metal"]["next_run"]) == (
        None,
        None,
        None,
    )
    text = workspace.params.read_text("utf-8")
    workspace.params.write_text(text.replace("0 3 * * 1", "0 33 * * 1"), "utf-8")
    with pytest.raises(ConfigError, match=r"params\.yaml: lines\.plates\.schedule\.cron: .*'0 33"):
        describe_lines(workspace)


def test_the_command_tells_what_to_do_next(
    workspace: Workspace, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from novad.cli import main

    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    monkeypatch.chdir(images.parent)
    with pytest.raises(SystemExit) as ended:
        main(["line", "add", "plates", "--data", images.name, "--layout", "mvtec", "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["line"], document["images"], document["tracked_by"]) == (
        "plates",
        26,
        "lines/plates.dvc",
    )


def test_long_images_keep_their_proportions(add: Add, workspace: Workspace, images: Path) -> None:
    for path in images.rglob("*.png"):
        with Image.open(path) as square:
            strip = square.crop((0, 0, 60, 24))
        strip.save(path)
    add()
    add(name="squeezed", image_size="224x224")
    assert line_settings(workspace.params, "plates").backbone.input_size == (144, 352)
    assert line_settings(workspace.params, "plates").backbone.image_size == "352x144"
    assert line_settings(workspace.params, "squeezed").backbone.input_size == (224, 224)
