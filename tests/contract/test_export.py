"""What an edge bundle promises: it scores as the champion does, alone, and refuses what was changed."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from novad.cli import main
from novad.config import BackboneSettings, Workspace
from novad.edge import export as exporting
from novad.edge import score
from novad.edge.score import seal
from novad.evaluation.parity import KINDS
from novad.images import decode_image
from novad.tracking import change_threshold, promote, resolve
from novad.vision.backbones import file_sha256
from small_line import LINE, network_settings, small_line

UNNEEDED = ("prefect", "mlflow", "dvc", "great_expectations", "pandas", "pydantic", "sqlalchemy")
TIMM = "mobilenetv3_small_050"
Told = tuple[int, str, str]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Workspace]:
    """Version 1; familiarity is asked of a timm network, novelty of a B-cos network beside it."""
    root = tmp_path_factory.mktemp("line")
    settings = {"backbone": _timm_network(root), "explainer": {"backbone": network_settings(root)}}
    with (
        small_line(root, empty_database, train=16, test_good=8, per_defect=2, **settings) as workspace,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setenv("NOVAD_WORKSPACE", str(root))
        patched.setattr("novad.tracking.registry.gate", lambda *_: [])
        yield workspace


@pytest.fixture(scope="module")
def by_number(registered: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told, Told]:
    """Before there is a champion: a folder, what an export into it says, and then one of version 1."""
    folder = tmp_path_factory.mktemp("edge") / "by_number"
    refused = _novad("export", LINE, "-o", folder, "--json")
    return folder, refused, _novad("export", LINE, "-o", folder, "--version", 1, "--golden", 0, "--json")


@pytest.fixture(scope="module")
def line(registered: Workspace, by_number: object) -> Workspace:
    """Version 1 is champion, with another threshold; gates are not what is tested here."""
    promote(registered, LINE, 1, "ada", "first")
    change_threshold(registered, LINE, "bob", "stock is full", value=1.25)
    return registered


@pytest.fixture(scope="module")
def exported(line: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the champion, as the command makes it."""
    folder = tmp_path_factory.mktemp("edge") / "bundle"
    code, out, err = _novad("export", LINE, "-o", folder)
    assert (code, err) == (0, "")
    assert all(word in out for word in (str(folder), "8 golden images", "copies of test images"))
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, on another machine as it were."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of this test skip the clean process, which takes seconds."""
    monkeypatch.setattr(exporting, "_check", lambda *_: {})


def _told(run: Callable[[], object]) -> Told:
    """(exit code, stdout, stderr) of a command line in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = run()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def _novad(*arguments: object) -> Told:
    return _told(lambda: main([str(argument) for argument in arguments]))


def _edge(bundle: Path, *arguments: object) -> Told:
    """The bundle's command line; its script is a copy of the module."""
    return _told(lambda: score.main(bundle, [str(argument) for argument in arguments]))


def _timm_network(root: Path) -> BackboneSettings:
    torch.manual_seed(1)
    path = root / "timm.safetensors"
    weights = timm.create_model(TIMM, num_classes=2).state_dict()
    save_file(
        {name: each.contiguous() for name, each in weights.items()}, path, metadata={"num_classes": "2"}
    )
    return BackboneSettings(architecture=TIMM, checkpoint=path.name, sha256=file_sha256(path), image_size=64)


def _test_images(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / "data" / LINE / "test").rglob("*.png"))


def _manifest(bundle: Path) -> Any:
    return json.loads((bundle / "edge.json").read_text())


def _rewrite(bundle: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest and seal it again, as only somebody who knows how would."""
    manifest = _manifest(bundle)
    change(manifest)
    (bundle / "edge.json").write_text(json.dumps(manifest))
    (bundle / "edge.sha256").write_bytes(seal(bundle))


def test_without_orchestration_a_bundle_scores_as_the_champion_does(exported: Path, line: Workspace) -> None:
    """None in sys.modules makes every import of that name fail; the threshold is the one in force."""
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({UNNEEDED!r}))\n"
        f"sys.argv[0] = {str(exported / 'score.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    paths = _test_images(line)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NOVAD_")}
    command = [sys.executable, "-c", program, *map(str, paths)]
    ended = subprocess.run(
        command, cwd=exported.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [json.loads(row) for row in ended.stdout.splitlines()]
    detector = resolve(line, LINE).load()
    assert detector.thresholds.fail == 1.25
    expected = list(detector.score(decode_image(path, 10**6) for path in paths))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert [row["decision"] for row in rows] == [each.decision for each in expected]
    assert len({row["decision"] for row in rows}) > 1
    for row, each in zip(rows, expected, strict=True):
        for name in (*KINDS, "p_value"):
            assert row[name] == pytest.approx(getattr(each, name), abs=1e-5)
        assert (row["line"], row["version"], row["digest"]) == (LINE, 1, detector.digest)


def test_the_manifest_tells_whose_decision_the_bundle_carries(exported: Path, line: Workspace) -> None:
    model, manifest = resolve(line, LINE), _manifest(exported)
    assert model.decision is not None
    assert model.threshold is not None
    assert (manifest["line"], manifest["version"]) == (LINE, 1)
    assert manifest["detector_digest"] == model.detector_digest
    promotion, threshold = manifest["promotion"], manifest["thresholds"]
    assert (promotion["approver"], promotion["digest"]) == ("ada", model.decision.digest)
    assert (threshold["fail"], threshold["alpha"]) == (1.25, model.threshold.detail["alpha"])
    assert (threshold["decision"]["approver"], threshold["decision"]["digest"]) == (
        "bob",
        model.threshold.digest,
    )
    assert manifest["packages"]["torch"] == torch.__version__.split("+")[0]
    present = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert present == {"edge.json", "edge.sha256", *manifest["files"]}
    assert all(file_sha256(exported / name) == sha256 for name, sha256 in manifest["files"].items())


def test_golden_images_are_test_images_over_the_whole_range_of_scores(
    exported: Path, line: Workspace
) -> None:
    golden = _manifest(exported)["golden"]
    assert len(golden) == 8
    hybrids = [each["hybrid"] for each in golden]
    data = line.root / "data" / LINE
    for each in golden:
        assert (exported / each["file"]).read_bytes() == (data / each["source"]).read_bytes()
    every = resolve(line, LINE).load().score(decode_image(path, 10**6) for path in _test_images(line))
    span = sorted(each.hybrid for each in every)
    tested = [each for each in span if min(hybrids) <= each <= max(hybrids)]
    assert len(set(hybrids)) == 8
    assert len(tested) > len(span) / 3


def test_another_score_than_the_recorded_is_named_with_its_difference(bundle: Path) -> None:
    code, out, err = _edge(bundle, "--check")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["golden"], told["differing"]) == (8, [])
    assert told["largest_difference"] <= told["tolerance"]

    def drift(manifest: Any) -> None:
        for number, kind in enumerate(KINDS):
            recorded = manifest["golden"][number]
            recorded[kind] += 2 * manifest["tolerance"] * max(1, abs(recorded[kind]))
        manifest["packages"]["torch"] = "1.0"

    _rewrite(bundle, drift)
    code, out, err = _edge(bundle, "--check")
    assert code == 1
    told = json.loads(out)
    assert [(each["image"], each["score"]) for each in told["differing"]] == [
        (f"golden/{number}.png", kind) for number, kind in enumerate(KINDS, start=1)
    ]
    assert [each["difference"] for each in told["differing"]] == pytest.approx([0.002] * 3, rel=0.01)
    assert all(f"golden/{number}.png" in err for number in (1, 2, 3))
    assert "torch" in err
    assert "1.0" in err


def test_a_changed_or_missing_file_is_named_and_nothing_is_scored(bundle: Path, line: Workspace) -> None:
    image = _test_images(line)[0]
    for path in sorted(each for each in bundle.rglob("*") if each.is_file()):
        whole = path.read_bytes()
        # The last byte: of a script, a JSON document and a seal it is the line's end.
        path.write_bytes(whole[:-1] + (b" " if whole[-1:] == b"\n" else bytes([whole[-1] ^ 1])))
        _assert_refused(bundle, image, path)
        path.unlink()
        if path.name != "score.py":
            _assert_refused(bundle, image, path)
        path.write_bytes(whole)
    assert _edge(bundle, image)[0] == 0


def _assert_refused(bundle: Path, image: Path, path: Path) -> None:
    code, out, err = _edge(bundle, image)
    assert (code, out) == (1, ""), path
    assert path.name in err


def test_a_bundle_names_wrong_use_and_images_that_it_cannot_read(bundle: Path, line: Workspace) -> None:
    good, bad = _test_images(line)[0], bundle.parent / "bad.png"
    bad.write_bytes(good.read_bytes()[:100])
    folder = bundle.parent / "parts"
    folder.mkdir()
    shutil.copy(good, folder / "unnamed")
    (folder / "note.txt").write_text("not an image")
    code, out, err = _edge(bundle, good, bad, folder)
    assert code == 2
    assert all(str(each) in err for each in (bad, folder / "note.txt"))
    rows = [json.loads(row) for row in out.splitlines()]
    assert [(Path(row["path"]), "decision" in row) for row in rows] == [
        (good, True), (folder / "unnamed", True), (bad, False), (folder / "note.txt", False),
    ]  # fmt: skip
    for arguments, word in (
        (("nowhere.png",), "nowhere.png"),
        ((), "--check"),
        (("--check", good), "--check"),
    ):
        code, out, err = _edge(bundle, *arguments)
        assert (code, out) == (2, "")
        assert word in err


def test_without_a_champion_a_version_must_be_named(
    by_number: tuple[Path, Told, Told], line: Workspace
) -> None:
    folder, refused, told = by_number
    assert refused[0] == 1
    assert json.loads(refused[1])["kind"] == "RefusedError"
    assert "no champion" in refused[1]
    document = json.loads(told[1])
    assert (told[0], set(document)) == (0, {
        "line", "version", "champion", "folder", "bundle_digest", "detector_digest", "thresholds", "check",
    })  # fmt: skip
    model = resolve(line, LINE, 1)
    assert (document["version"], document["champion"], document["folder"]) == (1, False, str(folder))
    assert document["detector_digest"] == model.detector_digest
    assert document["thresholds"]["fail"] == model.load().thresholds.fail != 1.25
    assert document["thresholds"]["decision"] is None
    assert document["bundle_digest"] == file_sha256(folder / "edge.json")
    assert _manifest(folder)["promotion"] is None


def test_without_golden_images_the_check_says_that_it_compared_nothing(
    by_number: tuple[Path, Told, Told],
) -> None:
    folder, _, told = by_number
    assert not (folder / "golden").exists()
    assert json.loads(told[1])["check"]["golden"] == 0
    code, out, err = _edge(folder, "--check")
    assert (code, json.loads(out)["largest_difference"]) == (0, None)
    assert "no golden images" in err


def test_the_champion_by_its_number_is_the_champion(unchecked: None, line: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = _novad("export", LINE, "-o", tmp_path / "empty", "--version", 1, "--golden", 1, "--json")
    document = json.loads(told[1])
    assert (told[0], document["champion"], document["thresholds"]["fail"]) == (0, True, 1.25)
    assert len(_manifest(tmp_path / "empty")["golden"]) == 1


def test_a_folder_that_is_taken_is_named_and_stays(line: Workspace, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file", "no/where"):
        code, out, err = _novad("export", LINE, "-o", tmp_path / name)
        assert (code, out) == (2, "")
        assert str(tmp_path / name.split("/")[0]) in err
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["file", "note.txt", "taken"]


def test_an_export_whose_scores_differ_is_refused_and_leaves_nothing(
    line: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting._golden

    def drifted(*arguments: Any) -> list[dict[str, Any]]:
        golden = write(*arguments)
        golden[2]["hybrid"] += 1.0
        return golden

    monkeypatch.setattr(exporting, "_golden", drifted)
    code, out, err = _novad("export", LINE, "-o", tmp_path / "bundle")
    assert (code, out) == (1, "")
    assert "golden/3.png: hybrid" in err
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_cleared_by_the_next(
    unchecked: None, line: Workspace, tmp_path: Path
) -> None:
    (tmp_path / ".bundle.partial" / "detector").mkdir(parents=True)
    (tmp_path / ".bundle.partial" / "score.py").write_text("half")
    assert _novad("export", LINE, "-o", tmp_path / "bundle", "--golden", 0, "--json")[0] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_test_images_that_are_gone_are_told_and_golden_0_goes_on(
    unchecked: None, line: Workspace, tmp_path: Path
) -> None:
    data = line.root / "data" / LINE
    data.rename(data.with_name("away"))
    try:
        code, _, err = _novad("export", LINE, "-o", tmp_path / "bundle")
        assert code == 2
        assert all(word in err for word in (str(data), "--golden 0"))
        assert _novad("export", LINE, "-o", tmp_path / "bundle", "--golden", 0, "--json")[0] == 0
    finally:
        data.with_name("away").rename(data)
