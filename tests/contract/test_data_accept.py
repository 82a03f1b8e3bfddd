"""Verified images into a line's data: what waits, what is held back, what joins, and where it lies then."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from novad.cli import main
from novad.config import Workspace, add_line, line_settings
from novad.errors import ConfigError, LineBusyError, RefusedError
from novad.images import build_manifest, discover
from novad.images.report import GateReport
from novad.pipeline import accepting
from novad.pipeline.accepting import accept_verified, pending_images
from novad.pipeline.locks import line_locks
from novad.pipeline.next_dataset import next_dataset
from novad.pipeline.tracked_data import require_recorded, track
from novad.serving.image_store import ImageStore, image_folder
from novad.stages.validate import divided
from novad.tracking import give_verdict, history, verify
from verified_line import DATA, Verify

Novad = Callable[..., tuple[int, Any]]


@pytest.fixture
def novad(capsys: pytest.CaptureFixture[str]) -> Novad:
    """Run a command with ``--json``: (exit code, document)."""

    def run(*arguments: object) -> tuple[int, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--json"])
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def quick_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations takes seconds to load; two tests here have it."""
    passed = GateReport((), (), {}, ())
    monkeypatch.setattr(accepting, "run_gate", lambda *_arguments: passed)


def _accept(workspace: Workspace, *only: str) -> accepting.Accepted:
    return accept_verified(workspace, "plates", "ben", "looked at all of them", only)


def _state(workspace: Workspace) -> dict[str, str]:
    """Digest of every image and of DVC's record of them."""
    files = [path for path in (workspace.root / "lines").rglob("*") if path.is_file()]
    return {
        path.relative_to(workspace.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _splits(workspace: Workspace) -> pd.Series:
    """Split of every image by its path, as validation gives it."""
    settings = line_settings(workspace.params, "plates")
    root = workspace.path(settings.data)
    manifest = build_manifest(root, discover(root, settings.layout), settings.validation.max_pixels)
    return divided(manifest, settings).set_index("path")["split"]


def _name(image: Path, folder: str) -> str:
    return f"{folder}/accepted-{hashlib.sha256(image.read_bytes()).hexdigest()[:16]}.png"


def _nearly(image: Path, target: Path) -> Path:
    """A copy of another file, with the same picture but for a corner."""
    pixels = np.array(Image.open(image))
    pixels[:2, :2] = 255 - pixels[:2, :2]
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(target)
    return target


def test_false_alarms_join_the_normals_and_defects_the_tests_of_their_type(
    plates: Workspace, further_images: Path, verify_image: Verify, novad: Novad
) -> None:
    good, escape, dent = (
        further_images / name for name in ("train/good/012.png", "test/scratch/002.png", "test/dent/003.png")
    )
    before, splits = _state(plates), _splits(plates)
    verify_image(good, "FAIL", "good")
    last = verify_image(escape, "PASS", "defect", "crack")
    verify_image(dent, "REVIEW", "defect", "dent")
    verify_image(further_images / "train/good/013.png", "PASS", "good")
    verify_image(further_images / "train/good/014.png", "FAIL")
    places = [_name(good, "train/good"), _name(escape, "test/crack"), _name(dent, "test/dent")]

    code, told = novad("data", "pending", "plates")
    assert (code, told["held_back"]) == (0, [])
    assert [(each["kind"], each["path"]) for each in told["ready"]] == list(
        zip(("false alarm", "escape", "confirmed defect"), places, strict=True)
    )
    assert _state(plates) == before
    expected = next_dataset(plates, "plates").manifest

    code, told = novad("data", "accept", "plates", "--approver", "ben", "--reason", "looked at all")
    assert code == 0
    [event] = history(plates, "plates")
    assert told["event"]["digest"] == event.digest
    assert (event.kind, event.actor, event.reason) == ("data-accepted", "ben", "looked at all")
    assert [each["path"] for each in event.detail["images"]] == places
    assert event.detail["images"][1]["prediction_id"] == last.prediction_id
    assert event.detail["data"]["before"] != event.detail["data"]["after"]
    assert event.detail["data"]["after"] in (plates.root / f"{DATA}.dvc").read_text()
    after = _state(plates)
    added = {f"{DATA}/{place}" for place in places}
    assert set(after) == set(before) | added
    changed = {name for name, digest in before.items() if after[name] != digest}
    assert changed == {f"{DATA}.dvc"}
    assert (plates.root / DATA / places[1]).read_bytes() == escape.read_bytes()
    require_recorded(plates, plates.root / f"{DATA}.dvc")
    settings = line_settings(plates.params, "plates")
    root = plates.path(settings.data)
    real = divided(build_manifest(root, discover(root, "mvtec"), settings.validation.max_pixels), settings)
    pd.testing.assert_frame_equal(real, expected)

    now = _splits(plates)
    assert now[splits.index].tolist() == splits.tolist()
    assert now[places[0]] in {"bank", "calibration"}
    assert {now[place] for place in places[1:]} <= {"tuning", "test"}
    assert not list(plates.root.rglob("*.partial"))
    assert not list((plates.state / "accepting").iterdir())

    code, told = novad("data", "accept", "plates", "--approver", "ben", "--reason", "again")
    assert (code, told["event"], told["accepted"]) == (0, None, [])
    assert _state(plates) == after
    assert verify(plates) == []
    code, told = novad("trace", escape)
    assert code == 0
    [verdict], [accepted] = told["verdicts"], told["acceptances"]
    assert (verdict["defect_type"], accepted["approver"], accepted["path"]) == ("crack", "ben", places[1])
    assert (accepted["sequence"], accepted["data_after"]) == (1, event.detail["data"]["after"])


def test_what_cannot_join_is_held_back_and_named(
    quick_gate: None,
    plates: Workspace,
    further_images: Path,
    verify_image: Verify,
    tmp_path: Path,
    novad: Novad,
) -> None:
    good = sorted((further_images / "train/good").glob("01[2-7].png"))
    scratch = further_images / "test/scratch"
    quarrel = [verify_image(good[0], "FAIL", word) for word in ("good", "defect")]
    two_types = [verify_image(scratch / "002.png", "FAIL", "defect", word) for word in ("dent", "scratch")]
    for number, word in ((3, "a/b"), (4, "..")):
        verify_image(scratch / f"00{number}.png", "PASS", "defect", word)
    gone = shutil.copyfile(good[1], tmp_path / "gone.png")
    changed = shutil.copyfile(good[2], tmp_path / "changed.png")
    verify_image(gone, "FAIL", "good")
    verify_image(changed, "FAIL", "good")
    gone.unlink()
    changed.write_bytes(b"another")
    known = plates.root / DATA
    verify_image(known / "train/good/003.png", "FAIL", "good")
    verify_image(known / "train/good/004.png", "PASS", "defect", "dent")
    verify_image(known / "test/dent/001.png", "PASS", "defect", "scratch")
    before = _state(plates)

    code, told = novad("data", "pending", "plates")
    assert (code, told["ready"]) == (0, [])
    reasons = [(Path(each["sources"][-1]).name, each["held_back"]) for each in told["held_back"]]
    for name, words in (
        ("012.png", ("differ", quarrel[0].prediction_id, quarrel[1].prediction_id)),
        ("002.png", ("differ", "dent", "scratch", two_types[1].prediction_id)),
        ("003.png", ("'a/b'", "folder")),
        ("004.png", ("'..'", "folder")),
        ("gone.png", ("gone",)),
        ("changed.png", ("another",)),
        ("004.png", ("train/good/004.png", "take it out")),
    ):
        assert any(each == name and all(word in why for word in words) for each, why in reasons), name
    assert len(reasons) == 7

    code, told = novad("data", "accept", "plates", "--approver", "ben", "--reason", "all")
    assert (code, told["kind"]) == (1, "RefusedError")
    assert "gone.png" in told["error"]
    assert "changed.png" in told["error"]
    assert _state(plates) == before
    assert history(plates, "plates") == []

    # A newer word on the decision that was wrong settles a quarrel.
    give_verdict(plates, quarrel[1], "good", "cyd", "asked again")
    done = _accept(plates)
    assert [each.path for each in done.images] == [_name(good[0], "train/good")]
    assert len(done.held_back) == 6


def test_only_takes_what_is_named_and_nothing_when_one_of_them_cannot(
    quick_gate: None, plates: Workspace, further_images: Path, verify_image: Verify, tmp_path: Path
) -> None:
    one, two, gone = (further_images / f"train/good/{name}.png" for name in ("012", "013", "014"))
    gone = shutil.copyfile(gone, tmp_path / "gone.png")
    logged = [verify_image(each, "FAIL", "good") for each in (one, two, gone)]
    gone.unlink()
    before = _state(plates)
    with pytest.raises(RefusedError, match=r"gone\.png"):
        _accept(plates, logged[0].prediction_id, logged[2].prediction_id)
    for name in ("0" * 8, logged[0].image_sha256[:7], ""):
        with pytest.raises(ConfigError, match=f"--only: {name}"):
            _accept(plates, name)
    assert _state(plates) == before
    assert [each.path for each in _accept(plates, logged[1].image_sha256[:8].upper()).images] == [
        _name(two, "train/good")
    ]
    assert [each.path for each in _accept(plates, logged[0].prediction_id).images] == [
        _name(one, "train/good")
    ]
    with pytest.raises(ConfigError, match="waits"):
        _accept(plates, logged[0].prediction_id)


def test_an_image_that_the_service_kept_needs_no_file_and_its_name_is_not_trusted(
    quick_gate: None, plates: Workspace, further_images: Path, verify_image: Verify
) -> None:
    data = (further_images / "train/good/012.png").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    ImageStore(image_folder(plates), 1 << 20).keep({digest: data})
    verify_image(further_images / "train/good/012.png", "FAIL", "good", source="../params.yaml")
    [image] = _accept(plates).images
    assert image.path == f"train/good/accepted-{digest[:16]}.png"
    assert (plates.root / DATA / image.path).read_bytes() == data


@pytest.mark.parametrize(
    ("known", "decision", "verdict", "side"),
    [
        ("train/good/003.png", "PASS", "defect", None),
        ("test/good/001.png", "FAIL", "good", None),
        ("test/dent/001.png", "FAIL", "good", None),
        ("test/dent/001.png", "PASS", "defect", "test/dent/001.png"),
        ("train/good/003.png", "FAIL", "good", "train/good/003.png"),
    ],
)
def test_nearly_the_same_picture_stays_on_one_side(
    known: str,
    decision: str,
    verdict: str,
    side: str | None,
    plates: Workspace,
    verify_image: Verify,
    tmp_path: Path,
) -> None:
    twin = _nearly(plates.root / DATA / known, tmp_path / "twin.png")
    verify_image(twin, decision, verdict)
    before, splits = _state(plates), _splits(plates)
    coming = next_dataset(plates, "plates")
    if side is None:
        [image] = coming.held_back
        assert known in str(image.held_back)
        with pytest.raises(RefusedError, match=known):
            _accept(plates)
        assert _state(plates) == before
        return
    [image] = coming.ready
    split = coming.manifest.set_index("path")["split"]
    assert split[image.path] == splits[side]
    assert split[splits.index].tolist() == splits.tolist()


def test_the_gate_names_the_image_and_nothing_changes(
    plates: Workspace, further_images: Path, verify_image: Verify, tmp_path: Path, novad: Novad
) -> None:
    small = tmp_path / "small.png"
    Image.open(further_images / "train/good/012.png").resize((96, 96)).save(small)
    verify_image(small, "FAIL", "good")
    verify_image(further_images / "train/good/013.png", "FAIL", "good")
    before = _state(plates)
    code, told = novad("data", "accept", "plates", "--approver", "ben", "--reason", "all")
    assert code == 1
    assert _name(small, "train/good") in told["error"]
    assert "one_size" in told["error"]
    assert "train/good/0" not in told["error"]
    assert _state(plates) == before
    assert history(plates, "plates") == []


@pytest.mark.parametrize("how", ["vanished", "changed", "no room", "gate of the log"])
def test_what_goes_wrong_in_the_middle_takes_everything_back(
    how: str,
    quick_gate: None,
    plates: Workspace,
    further_images: Path,
    verify_image: Verify,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [
        shutil.copyfile(further_images / name, tmp_path / Path(name).name)
        for name in ("test/scratch/002.png", "train/good/012.png")
    ]
    verify_image(images[0], "PASS", "defect", "new")
    verify_image(images[1], "FAIL", "good")
    whole, write = accepting.track, accepting._write

    def spoilt(path: Path, data: bytes) -> None:
        if how == "no room" and path.parent.name == "good":
            raise OSError(28, "No space left on device", str(path))
        write(path, data)
        if path.parent.name == "new":
            if how == "vanished":
                images[1].unlink()
            elif how == "changed":
                images[1].write_bytes(b"another")

    def tracked(workspace: Workspace, folder: Path) -> None:
        whole(workspace, folder)
        if how == "gate of the log":
            raise RefusedError("somebody else")

    monkeypatch.setattr(accepting, "_write", spoilt)
    monkeypatch.setattr(accepting, "track", tracked)
    before = _state(plates)
    with pytest.raises(RefusedError) as refused:
        _accept(plates)
    words = {"no room": "No space left", "gate of the log": "somebody else"}.get(how, "012.png")
    assert words in str(refused.value)
    assert _state(plates) == before
    assert not (plates.root / DATA / "test/new").exists()
    assert history(plates, "plates") == []
    require_recorded(plates, plates.root / f"{DATA}.dvc")
    assert list((plates.state / "accepting").iterdir()) == []


def _outside(workspace: Workspace) -> str:
    shutil.move(workspace.root / DATA, workspace.root.parent / "shared")
    (workspace.root / DATA).symlink_to(workspace.root.parent / "shared")
    return "outside the workspace"


def _absolute(workspace: Workspace) -> str:
    elsewhere = shutil.copytree(workspace.root / DATA, workspace.root.parent / "shared")
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace(f"data: {DATA}", f"data: {elsewhere}"))
    return "outside the workspace"


def _shared(workspace: Workspace) -> str:
    text = workspace.params.read_text()
    workspace.params.write_text(text + text.replace("lines:\n  plates:", "  others:"))
    return "line others too"


def _untracked(workspace: Workspace) -> str:
    (workspace.root / f"{DATA}.dvc").unlink()
    return f"`dvc add {DATA}`"


def _by_hand(workspace: Workspace) -> str:
    shutil.copyfile(workspace.root / DATA / "test/dent/000.png", workspace.root / DATA / "test/dent/mine.png")
    return f"`dvc checkout {DATA}.dvc`"


def _visa(workspace: Workspace) -> str:
    workspace.params.write_text(workspace.params.read_text().replace("mvtec", "visa"))
    return "'visa'"


@pytest.mark.parametrize("prepare", [_outside, _absolute, _shared, _untracked, _by_hand, _visa])
def test_data_that_are_not_the_lines_own_are_refused(
    prepare: Callable[[Workspace], str],
    quick_gate: None,
    plates: Workspace,
    further_images: Path,
    verify_image: Verify,
) -> None:
    words = prepare(plates)
    verify_image(further_images / "train/good/012.png", "FAIL", "good")
    before = _state(plates)
    with pytest.raises(RefusedError) as refused:
        _accept(plates)
    assert words in str(refused.value)
    assert _state(plates) == before


def test_a_line_in_a_folder_that_dvc_tracks_as_a_whole_is_told_apart_from_its_neighbours(
    quick_gate: None, plates: Workspace, further_images: Path, verify_image: Verify
) -> None:
    """As the demo lines are: `data.dvc` holds all of them."""
    (plates.root / "lines").rename(plates.root / "data")
    (plates.root / "data/plates.dvc").unlink()
    (plates.root / "data/.gitignore").unlink(missing_ok=True)
    plates.params.write_text(plates.params.read_text().replace(DATA, "data/plates"))
    (plates.root / "data/others").mkdir()
    (plates.root / "data/others/a.png").write_bytes(b"another line's")
    track(plates, plates.root / "data")
    add_line(
        plates.params,
        "others",
        line_settings(plates.params, "plates").model_copy(update={"data": "data/others"}),
    )
    verify_image(further_images / "train/good/012.png", "FAIL", "good")
    with line_locks(plates, ["others"]), pytest.raises(LineBusyError, match="others"):
        _accept(plates)
    done = _accept(plates)
    assert done.event is not None
    assert done.event.detail["data"]["path"] == "data.dvc"
    require_recorded(plates, plates.root / "data.dvc")
    assert (plates.root / "data/others/a.png").read_bytes() == b"another line's"


def test_plain_folders_take_images_too(
    quick_gate: None, plates: Workspace, further_images: Path, verify_image: Verify
) -> None:
    root = plates.root / DATA
    (root / "train/good").rename(root / "normal")
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "ground_truth")
    plates.params.write_text(plates.params.read_text().replace("mvtec", "folder"))
    track(plates, root)
    splits = _splits(plates)
    images = [
        further_images / "train/good/012.png",
        *sorted((further_images / "test/dent").glob("00[23].png")),
    ]
    verify_image(images[0], "FAIL", "good")
    verify_image(images[1], "PASS", "defect")
    verify_image(images[2], "PASS", "defect", "dent")
    done = _accept(plates)
    assert [image.path for image in done.images] == [
        _name(images[0], "normal"),
        _name(images[1], "anomalous"),
        _name(images[2], "anomalous/dent"),
    ]
    after = _splits(plates)
    assert after[splits.index].tolist() == splits.tolist()
    assert set(after[[str(image.path) for image in done.images[1:]]]) <= {"tuning", "test"}


def test_a_line_at_work_is_left_alone(plates: Workspace, further_images: Path, verify_image: Verify) -> None:
    verify_image(further_images / "train/good/012.png", "FAIL", "good")
    with line_locks(plates, ["plates"]):
        with pytest.raises(LineBusyError, match="plates"):
            _accept(plates)
        assert len(pending_images(plates, "plates").ready) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("accept", "plates", "--approver", " ", "--reason", "why"), "--approver"),
        (("accept", "plates", "--approver", "ben", "--reason", ""), "--reason"),
        (("accept", "glass", "--approver", "ben", "--reason", "why"), "lines.glass"),
        (("pending", "glass"), "lines.glass"),
        (("verdicts", "glass", "no.csv", "--by", "ada"), "lines.glass"),
        (("verdicts", "plates", "no.csv", "--by", "ada"), "no.csv"),
        (("verdicts", "plates", "no.csv", "--by", " "), "--by"),
    ],
)
def test_wrong_use_is_named(arguments: tuple[str, ...], words: str, plates: Workspace, novad: Novad) -> None:
    code, told = novad("data", *arguments)
    assert (code, told["kind"]) == (2, "ConfigError")
    assert words in told["error"]


def test_people_are_told_what_waits_and_what_joined(
    quick_gate: None,
    plates: Workspace,
    further_images: Path,
    verify_image: Verify,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    verify_image(further_images / "train/good/012.png", "FAIL", "good")
    for number in range(22):
        verify_image(further_images / "train/good/014.png", "FAIL", "good", image_sha256=f"{number:064x}")
    quarrel = further_images / "train/good/013.png"
    for word in ("good", "defect"):
        verify_image(quarrel, "FAIL", word)
    shown = []
    sign = ("--approver", "ben", "--reason", "all")
    for arguments in (("pending", "plates"), ("accept", "plates", *sign)):
        with pytest.raises(SystemExit):
            main(["data", *arguments])
        shown.append(capsys.readouterr().out)
    for text in shown:
        assert all(word in text for word in ("false alarm", "012.png", "Held back", "013.png", "differ"))
        assert "and 3 before these" in text
    assert "novad data accept plates" in shown[0]
    assert "novad train plates" in shown[1]
    assert "plates: event 1, approved by ben; data" in shown[1]
