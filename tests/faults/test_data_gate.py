"""Each error of the data gate, as a folder broken by hand, is reported by image name and stops the line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from novad.config import Workspace
from novad.errors import ConfigError, RefusedError, exit_code
from novad.images import read_manifest
from novad.images.checks import CHECKS
from novad.stages.validate import run

MakeWorkspace = Callable[..., Workspace]


def _empty(folder: Path) -> None:
    (folder / "train/good/003.png").write_bytes(b"")


def _truncated(folder: Path) -> None:
    path = folder / "test/good/001.png"
    path.write_bytes(path.read_bytes()[:9000])


def _text(folder: Path) -> None:
    (folder / "test/scratch/notes.png").write_text("to be photographed again")


def _stray(folder: Path) -> None:
    (folder / "train/good/readme.md").write_text("these are good")


def _dead_link(folder: Path) -> None:
    (folder / "train/good/link.png").symlink_to(folder / "gone.png")


def _bomb(folder: Path) -> None:
    Image.new("1", (9000, 9000)).save(folder / "test/good/huge.png")


def _outside(folder: Path) -> None:
    shutil.copy(folder / "train/good/000.png", folder.parent / "elsewhere.png")
    (folder / "test/good/linked.png").symlink_to(folder.parent / "elsewhere.png")


def _outside_folder(folder: Path) -> None:
    shutil.move(folder / "test/dent", folder.parent / "dents")
    (folder / "test/good/more").symlink_to(folder.parent / "dents")


def _mixed_sizes(folder: Path) -> None:
    _noise((100, 192)).save(folder / "test/good/small.png")


def _duplicate(folder: Path) -> None:
    shutil.copy(folder / "train/good/002.png", folder / "test/good/again.png")


def _mask_size(folder: Path) -> None:
    _noise((96, 96)).save(folder / "ground_truth/dent/001_mask.png")


def _empty_mask(folder: Path) -> None:
    Image.new("L", (192, 192)).save(folder / "ground_truth/pits/000_mask.png")


def _damaged_mask(folder: Path) -> None:
    (folder / "ground_truth/pits/001_mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _too_few(folder: Path) -> None:
    (folder / "train/good/011.png").unlink()


def _no_images(folder: Path) -> None:
    for path in [*folder.glob("train/*/*"), *folder.glob("test/*/*")]:
        path.unlink()


def _no_test_images(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()


def _noise(shape: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(9).integers(100, 200, shape, np.uint8))


ERRORS: list[tuple[Callable[[Path], None], str, str, str]] = [
    (_empty, "readable_image", "train/good/003.png", r"empty (0 bytes)"),
    (_empty, "not_empty_file", "train/good/003.png", "zero bytes"),
    (_truncated, "readable_image", "test/good/001.png", "damaged or truncated"),
    (_text, "readable_image", "test/scratch/notes.png", "not an image"),
    (_stray, "readable_image", "train/good/readme.md", "not an image"),
    (_dead_link, "readable_image", "train/good/link.png", "cannot be read"),
    (_bomb, "readable_image", "test/good/huge.png", "decompression bomb: 9000 x 9000"),
    (_outside, "readable_image", "test/good/linked.png", "outside the data folder"),
    (_outside_folder, "readable_image", "test/good/more", "outside the data folder"),
    (_mixed_sizes, "one_size", "test/good/small.png", "sizes 192 x 100 among images of 192 x 192"),
    (_duplicate, "no_duplicate_across_train_and_test", "test/good/again.png", "= train/good/002.png"),
    (_mask_size, "mask_of_image_size", "test/dent/001.png", "96 x 96 against 192 x 192"),
    (_empty_mask, "mask_not_empty", "test/pits/000.png", "empty mask"),
    (_damaged_mask, "readable_mask", "test/pits/001.png", "mask ground_truth/pits/001_mask.png"),
    (_too_few, "enough_normals", "train/good/000.png", "only 11 normal training images, min_normals is 12"),
    (_no_images, "enough_normals", "", "only 0 normal training images"),
    (_no_test_images, "images_to_test_with", "train/good/000.png", "no image is left to test with"),
]


@pytest.mark.parametrize(("break_it", "check", "image", "reason"), ERRORS)
def test_a_broken_folder_is_refused_by_image_name(
    break_it: Callable[[Path], None],
    check: str,
    image: str,
    reason: str,
    line_folder: Path,
    make_workspace: MakeWorkspace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it(line_folder)
    workspace = make_workspace(max_pixels=50_000_000)
    with pytest.raises(RefusedError) as caught:
        run(workspace, "plates")
    assert exit_code(caught.value) == 1
    printed = [text for text in capsys.readouterr().err.splitlines() if f"error {check}:" in text]
    assert any(image in text and reason in text for text in printed)
    kept = workspace.state / "refused/plates"
    assert str(kept / "report.json") in str(caught.value)
    report = json.loads((kept / "report.json").read_text())
    assert not report["passed"]
    found = [finding for finding in report["errors"] if finding["check"] == check]
    assert any(reason in finding["message"] for finding in found)
    assert not image or any(image in finding["images"] for finding in found)
    assert image in (kept / "docs/index.html").read_text()
    assert not workspace.artifacts("plates", "validate").exists()


def test_a_fault_names_no_image_that_has_none(line_folder: Path, make_workspace: MakeWorkspace) -> None:
    _truncated(line_folder)
    workspace = make_workspace()
    with pytest.raises(RefusedError):
        run(workspace, "plates")
    report = json.loads((workspace.state / "refused/plates/report.json").read_text())
    assert [finding["images"] for finding in report["errors"]] == [["test/good/001.png"]]


def test_the_same_file_twice_is_reported_once_and_not_as_a_near_duplicate_too(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    _duplicate(line_folder)
    workspace = make_workspace()
    with pytest.raises(RefusedError):
        run(workspace, "plates")
    report = json.loads((workspace.state / "refused/plates/report.json").read_text())
    assert [finding["check"] for finding in report["errors"]] == ["no_duplicate_across_train_and_test"]
    assert "no_near_duplicate_across_splits" not in {finding["check"] for finding in report["warnings"]}


def test_every_error_of_the_gate_has_a_broken_folder_here() -> None:
    """A split that is missing is a fault of the code, which no folder can bring about."""
    known = {check.name for check in CHECKS if check.severity == "error"} - {"every_image_in_a_split"}
    assert {check for _, check, _, _ in ERRORS} == known


def test_a_sound_folder_passes_and_leaves_the_files_of_the_contract(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace()
    run(workspace, "plates")
    out = workspace.artifacts("plates", "validate")
    assert sorted(path.name for path in out.iterdir()) == ["docs", "manifest.parquet", "report.json"]
    report = json.loads((out / "report.json").read_text())
    assert report["passed"]
    assert report["errors"] == []
    assert [w["check"] for w in report["warnings"]] == ["enough_of_each_defect"]
    assert {check["check"] for check in report["checks"]} == {check.name for check in CHECKS}
    manifest = read_manifest(out / "manifest.parquet")
    counts = manifest["split"].value_counts().to_dict()
    assert report["counts"] == {"images": 26, **counts}
    assert counts == {"bank": 10, "calibration": 2, "test": 8, "tuning": 6}
    pages = "".join(page.read_text() for page in (out / "docs").iterdir())
    assert "http://" not in pages
    assert "https://" not in pages
    assert "<script" not in pages
    assert "near_duplicate_of" in (out / "docs/validation.html").read_text()
    before = {name: (out / name).read_bytes() for name in ("manifest.parquet", "report.json")}
    run(workspace, "plates")
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_file_name_is_no_markup_in_the_data_docs(line_folder: Path, make_workspace: MakeWorkspace) -> None:
    names = ("test/good/<svg onload=alert(1)>.png", "test/good/<img src=x>&lt;'\"$type.png")
    for name in names:
        shutil.copy(line_folder / "train/good/002.png", line_folder / name)
    workspace = make_workspace()
    with pytest.raises(RefusedError):
        run(workspace, "plates")
    kept = workspace.state / "refused/plates"
    report = json.loads((kept / "report.json").read_text())
    assert set(names) < {image for finding in report["errors"] for image in finding["images"]}
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    for page in ("index.html", "validation.html"):
        text = (kept / "docs" / page).read_text()
        assert policy in text.partition("<body")[0]
        assert "<svg" not in text
        assert "<img" not in text
        assert all(escape(name) in text for name in names)


def test_a_line_that_is_refused_keeps_no_manifest_and_passes_once_mended(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace()
    good = (line_folder / "train/good/003.png").read_bytes()
    _empty(line_folder)
    with pytest.raises(RefusedError):
        run(workspace, "plates")
    (line_folder / "train/good/003.png").write_bytes(good)
    run(workspace, "plates")
    assert (workspace.artifacts("plates", "validate") / "manifest.parquet").is_file()


def test_mixed_sizes_pass_where_the_line_allows_them(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    _mixed_sizes(line_folder)
    run(make_workspace(allow_mixed_sizes=True), "plates")


BAD_PARTS = (_empty, _truncated, _text, _stray, _duplicate, _mask_size, _empty_mask, _damaged_mask)


def test_a_line_that_asks_for_it_goes_on_without_bad_parts_and_names_them(
    line_folder: Path, make_workspace: MakeWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    for break_it in BAD_PARTS:
        break_it(line_folder)
    workspace = make_workspace(leave_out=True, min_normals=5)
    run(workspace, "plates")
    out = workspace.artifacts("plates", "validate")
    report = json.loads((out / "report.json").read_text())
    assert (report["passed"], report["errors"]) == (True, [])
    images = {
        path for each in report["left_out"] if each["severity"] == "left out" for path in each["images"]
    }
    masks = {path for each in report["left_out"] if each["severity"] != "left out" for path in each["images"]}
    assert images == {
        "train/good/003.png", "train/good/readme.md", "test/good/001.png", "test/scratch/notes.png",
        "test/good/again.png",
    }  # fmt: skip
    assert masks == {"test/dent/001.png", "test/pits/000.png", "test/pits/001.png"}
    manifest = read_manifest(out / "manifest.parquet").set_index("path")
    assert len(manifest) == report["counts"]["images"] == 24
    assert not images & set(manifest.index)
    assert manifest.loc[sorted(masks), ["mask_path", "mask_area", "mask_error"]].isna().all(axis=None)
    assert manifest["split"].notna().all()
    printed, page = capsys.readouterr().err, (out / "docs/index.html").read_text()
    assert all(path in printed and path in page for path in images | masks)


def test_too_few_normals_stay_an_error_that_tells_what_was_left_out(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    _empty(line_folder)
    workspace = make_workspace(leave_out=True)
    with pytest.raises(RefusedError, match="enough_normals"):
        run(workspace, "plates")
    report = json.loads((workspace.state / "refused/plates/report.json").read_text())
    assert [each["images"] for each in report["left_out"]] == [["train/good/003.png"]]


def test_black_frames_in_train_and_test_are_a_warning_and_other_equal_frames_an_error(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace()
    for folder in ("train", "test"):
        Image.new("L", (192, 192)).save(line_folder / folder / "good/dark.png")
    run(workspace, "plates")
    report = json.loads((workspace.artifacts("plates", "validate") / "report.json").read_text())
    blank = next(w for w in report["warnings"] if w["check"] == "no_blank_image")
    assert blank["images"] == ["test/good/dark.png", "train/good/dark.png"]
    for folder in ("train", "test"):
        Image.new("L", (192, 192), 128).save(line_folder / folder / "good/dark.png")
    with pytest.raises(RefusedError, match="no_duplicate_across_train_and_test"):
        run(workspace, "plates")


WARNINGS: list[tuple[str, str]] = [
    ("no_near_duplicate_across_splits", "test/good/near.png"),
    ("no_contradicting_label", "test/dent/000.png"),
    ("brightness_usual", "test/good/bright.png"),
    ("sharpness_usual", "test/good/sharp.png"),
    ("normals_have_company", "test/good/alien.png"),
    ("mask_where_others_have_one", "test/scratch/001.png"),
    ("one_mode", "test/good/colour.png"),
]


def test_doubtful_images_are_warnings_that_name_them(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    normal = Image.open(line_folder / "train/good/005.png")
    near = normal.copy()
    near.putpixel((5, 5), 0)
    near.save(line_folder / "test/good/near.png")
    shutil.copy(line_folder / "test/dent/000.png", line_folder / "test/good/dent.png")
    normal.point(lambda level: min(255, level + 90)).save(line_folder / "test/good/bright.png")
    _noise((192, 192)).point(lambda level: (level - 100) * 2).save(line_folder / "test/good/sharp.png")
    _noise((6, 6)).resize((192, 192), Image.Resampling.NEAREST).save(line_folder / "test/good/alien.png")
    Image.open(line_folder / "test/good/003.png").convert("RGB").save(line_folder / "test/good/colour.png")
    (line_folder / "ground_truth/scratch/001_mask.png").unlink()
    workspace = make_workspace()
    run(workspace, "plates")
    report = json.loads((workspace.artifacts("plates", "validate") / "report.json").read_text())
    found = {w["check"]: w["images"] for w in report["warnings"]}
    for check, image in WARNINGS:
        assert image in found[check]
        assert len(found[check]) <= 4


def test_a_line_without_defects_passes_and_says_so(line_folder: Path, make_workspace: MakeWorkspace) -> None:
    for folder in (line_folder / "test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)
    workspace = make_workspace()
    run(workspace, "plates")
    report = json.loads((workspace.artifacts("plates", "validate") / "report.json").read_text())
    assert [w["check"] for w in report["warnings"]] == ["defects_to_learn_from"]


def test_figures_that_will_lack_something_are_told_beforehand(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    shutil.rmtree(line_folder / "test/good")
    shutil.rmtree(line_folder / "ground_truth/scratch")
    shutil.move(line_folder / "ground_truth/dent/001_mask.png", line_folder / "ground_truth/dent/01_mask.png")
    workspace = make_workspace()
    run(workspace, "plates")
    report = json.loads((workspace.artifacts("plates", "validate") / "report.json").read_text())
    found = {w["check"]: w for w in report["warnings"]}
    assert found["masks_of_every_type"]["images"] == ["test/scratch/000.png", "test/scratch/001.png"]
    assert found["masks_of_every_type"]["message"].startswith("no mask of scratch while other types have")
    assert "test/dent/001.png" in found["nothing_passed_over"]["images"]
    told = "1 mask file matches no image (ground_truth/dent/01_mask.png)"
    assert found["nothing_passed_over"]["message"].startswith(told)
    assert found["good_test_images"]["message"].startswith("no good image to test with")
    assert found["mask_where_others_have_one"]["images"] == ["test/dent/001.png"]


def test_file_names_cannot_smuggle_markup_into_the_pages(
    line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    (line_folder / "train/good" / name).write_bytes(b"")
    workspace = make_workspace()
    with pytest.raises(RefusedError):
        run(workspace, "plates")
    for page in (workspace.state / "refused/plates/docs").iterdir():
        assert "<img src=x" not in page.read_text()


@pytest.mark.parametrize(
    ("line", "layout", "reason"),
    [
        ("plates", "folder", "no such folder"),
        ("plates", "visa", "needs split_csv"),
        ("cups", "mvtec", "no such product line"),
    ],
)
def test_wrong_use_is_no_refusal(
    line: str, layout: str, reason: str, line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        run(make_workspace(layout), line)
    assert exit_code(caught.value) == 2


def test_a_missing_data_folder_is_wrong_use(make_workspace: MakeWorkspace) -> None:
    with pytest.raises(ConfigError, match="plates: no such data folder") as caught:
        run(make_workspace(), "plates")
    assert exit_code(caught.value) == 2


@pytest.mark.parametrize(("break_it", "code"), [(_empty, 1), (shutil.rmtree, 2)])
def test_the_command_ends_with_the_code_of_the_error(
    break_it: Callable[[Path], None], code: int, line_folder: Path, make_workspace: MakeWorkspace
) -> None:
    workspace = make_workspace()
    break_it(line_folder)
    done = subprocess.run(
        [sys.executable, "-m", "novad.stages.validate", "plates"],
        cwd=workspace.root,
        env={key: value for key, value in os.environ.items() if key != "NOVAD_WORKSPACE"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert ("train/good/003.png" if code == 1 else "no such data folder") in done.stderr
    assert "Traceback" not in done.stderr
