"""``novad bench``: what it refuses and how, and what a run leaves."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import novad
from novad.benchmarking import anomalib_runs, scoring_cost, temporary_line
from novad.benchmarking.anomalib_runs import METHODS, Anomalib
from novad.cli import main
from novad.config import Workspace
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.evaluation.summary import KINDS
from novad.images.demo import make_demo_line
from novad.stages.line import Line
from novad.stages.runner import write_json

Bench = Callable[..., tuple[int, Any, str]]
FIGURES = {
    "image_auroc", "image_aupr", "fnr_at_fpr_01", "fnr_at_fpr_05", "pixel_auroc", "aupro", "aupimo", "ci95",
}  # fmt: skip
BUNDLED = Path(novad.__file__).parent / "vision/weights/novad-bcos.safetensors"

# Judges by the bytes of the file, and gives maps of noise.
JUDGES_BY_BYTES = """
import json, sys
from pathlib import Path
import numpy as np
told = json.loads(Path(sys.argv[1]).read_text())
assert not set(told["train"]) & set(told["judged"])
if told["method"] == "padim":
    raise MemoryError("not today")
out, size, count = Path(told["out"]), told["size"], len(told["judged"])
np.savez(out / "scores.npz", scores=[np.fromfile(path, np.uint8).sum() for path in told["judged"]])
maps = np.random.default_rng(0).random((count, *size), np.float32)
np.save(out / "maps.npy", maps)
(out / "result.json").write_text(json.dumps({"fit_seconds": 1, "ms_per_image": 2, "peak_rss_mb": 3}))
"""


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run it in an empty folder: (exit code, JSON document, stderr)."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("NOVAD_WORKSPACE", raising=False)

    def run(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["bench", *map(str, arguments), "--json"])
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(told.out), told.err

    return run


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layout", "coco"), ("layout", "coco", "mvtec")),
        (("--layout", "visa"), ("1cls.csv",)),
        (("--layout", "folder"), ("normal",)),
        (("--layout", "mvtec", "--anomalib", "no/python"), ("--anomalib", "no/python", "uv venv")),
        (("--layout", "mvtec", "--anomalib", sys.executable), ("--anomalib", sys.executable, "anomalib")),
        (("--layout", "mvtec", "--methods", "padim,magic"), ("--methods", "magic", "patchcore")),
        (("--layout", "mvtec", "--backbone", "no.safetensors"), ("--backbone", "no.safetensors")),
        (("--layout", "mvtec", "--size", "50"), ("--size: 50", "multiples of 8")),
        (("--layout", "mvtec", "--size", "640x"), ("--size: 640x", "WIDTHxHEIGHT")),
        (("--layout", "mvtec", "--tile", "256"), ("--tile: ", "at most --size (224)")),
        (("--layout", "mvtec", "--tile", "50"), ("--tile: ", "multiple of 32")),
        (("--layout", "mvtec", "--anomaly-type", "odd"), ("--anomaly-type",)),
        (("--layout", "mvtec", "--explainer", "odd"), ("--explainer",)),
        (("--layout", "mvtec", "--imagenette", "nowhere"), ("--efficientad-teacher",)),
        (("--layout", "mvtec", "--anomalib-weights", BUNDLED), ("--anomalib-weights", BUNDLED.name)),
    ],
)
def test_wrong_use_is_named_before_anything_runs(
    options: tuple[object, ...], words: tuple[str, ...], bench: Bench, sound_line: Path
) -> None:
    code, document, _ = bench(sound_line, *options)
    assert code == document["code"] == 2
    assert all(str(word) in document["error"] for word in words), document["error"]


def test_every_network_of_a_tiled_run_takes_the_tiles(sound_line: Path, tmp_path: Path) -> None:
    # cli.bench is the command, too.
    settings = importlib.import_module("novad.cli.bench")._settings(
        sound_line, "mvtec", "bundled", "bcos", 64, 32, "sensory", 0, tmp_path
    )
    assert [each.tile for each in (settings.backbone, settings.explainer.backbone)] == [32, 32]


def test_a_missing_folder_is_named(bench: Bench, tmp_path: Path) -> None:
    code, document, _ = bench(tmp_path / "absent", "--layout", "mvtec")
    assert (code, str(tmp_path / "absent") in document["error"]) == (2, True)


def test_results_do_not_go_among_the_images(bench: Bench, line_folder: Path) -> None:
    before = contents(line_folder)
    code, document, _ = bench(line_folder, "--layout", "mvtec", "--out", line_folder / "results")
    assert (code, "--out" in document["error"]) == (2, True)
    assert contents(line_folder) == before


@pytest.mark.usefixtures("in_one_process")
def test_images_that_the_gate_refuses_exit_1_and_keep_the_report(bench: Bench, line_folder: Path) -> None:
    (line_folder / "train/good/003.png").write_bytes(b"")
    for number in range(4, 12):
        (line_folder / f"train/good/{number:03d}.png").unlink()
    code, document, _ = bench(line_folder, "--layout", "mvtec")
    assert code == document["code"] == 1
    assert "only 3 normal training images" in document["error"]
    assert "left out readable_image: train/good/003.png: the file is empty (0 bytes)" in document["error"]
    report = document["error"].split("Report: ")[1].split(",")[0]
    assert json.loads(Path(report).read_text())["errors"]


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages without a process each, which would load the big libraries eight times."""

    def run(workspace: Workspace, module: str, line: str, *told: str) -> None:
        if told:
            kind, file = told
            return write_json(Path(file), scoring_cost.measure(Line.open(workspace, line), kind))
        importlib.import_module(module).run(workspace, line)
        folder = workspace.artifacts(line, module.split(".")[-1])
        return write_json(folder / "cost.json", {"seconds": 1.5, "peak_rss_mb": 2.5})

    monkeypatch.setattr(temporary_line, "run_module", run)


@pytest.mark.slow
@pytest.mark.usefixtures("in_one_process")
def test_a_run_leaves_one_table_of_all_methods(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, script = tmp_path / "metal", tmp_path / "script.py"
    make_demo_line("brushed-metal", data, train=12, test_good=8, per_defect=3)
    for name in ("train/good/003.png", "test/good/001.png"):
        Image.open(data / name).resize((150, 200)).save(data / name)
    (data / "test/dent").mkdir(exist_ok=True)
    (data / "test/dent/readme.txt").write_text("not a part")
    script.write_text(JUDGES_BY_BYTES, "utf-8")
    monkeypatch.setattr(anomalib_runs, "SCRIPT", script)
    monkeypatch.setattr(
        anomalib_runs, "find_anomalib", lambda path, timeout, files: Anomalib(path, "2.7.0", timeout, files)
    )
    before = contents(data)
    weights = _timm_checkpoint(tmp_path)
    told = ("--size", "64x96", "--anomalib", sys.executable, "--anomalib-weights", weights)
    code, document, said = bench(data, "--layout", "mvtec", *told)
    assert code == 0, document
    assert contents(data) == before
    parts = [
        line.removeprefix("benchmarking metal: ") for line in said.splitlines() if "benchmarking" in line
    ]
    timed = (f"time of {kind}" for kind in KINDS)
    assert parts == [*temporary_line.STAGES, *timed, *(f"anomalib's {name}" for name in METHODS)]
    assert [each["images"] for each in document["left_out"]] == [["test/dent/readme.txt"]]
    assert {"enough_of_each_defect", "thresholds"} <= {each["check"] for each in document["warnings"]}

    rows = {row["method"]: row for row in document["methods"]}
    assert list(rows) == [*KINDS, *METHODS]
    assert "MemoryError: not today" in rows["padim"]["reason"]
    assert "--imagenette" in rows["efficientad"]["reason"]
    out = tmp_path / "here/benchmarks-metal"
    scores = pd.read_parquet(out / "scores.parquet")
    labels = scores["label"].to_numpy()
    for name in (*KINDS, "patchcore", "dfm"):
        row, values = rows[name], scores[name].to_numpy()
        assert set(row) >= FIGURES
        assert row["image_auroc"] == pytest.approx(image_auroc(values, labels), abs=1e-6)
        assert row["fnr_at_fpr_05"] == pytest.approx(fnr_at_fpr(values, labels, 0.05), abs=1e-6)
        assert {"fit_seconds", "ms_per_image", "peak_rss_mb"} <= set(row["cost"])
        assert row["pixel_auroc"] is not None
    assert [rows[kind]["cost"]["fit_seconds"] for kind in KINDS] == [1.5, 3.0, 4.5]
    assert 0.4 < rows["dfm"]["pixel_auroc"] < 0.6, "maps of noise find nothing"
    assert scores["dfm"].tolist() == [np.fromfile(data / path, np.uint8).sum() for path in scores["path"]]
    assert rows["dfm"]["image_auroc"] != 0.5
    assert set(document["hybrid_vs"]) == {"patchcore", "dfm"}
    assert document["hybrid_vs_familiarity"]["auroc_difference"]["ci95"]
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.png" for name in ("roc", "false_negatives", "score_histograms")}
    assert left == {"bench.json", "bench.md", "scores.parquet"} | plots
    assert json.loads((out / "bench.json").read_text())["methods"] == document["methods"]


def _timm_checkpoint(folder: Path) -> Path:
    """Weights of a small network of timm's, in a file that says so."""
    name = "mobilenetv3_small_050"
    save_file(timm.create_model(name).state_dict(), folder / "net.safetensors", {"timm": name})
    return folder / "net.safetensors"
