"""The benchmarks run on any folder of images, and say what they lack."""

import importlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from novad.config.settings import BUNDLED_CHECKPOINT
from novad.vision import Detector
from novad.vision.backbones import file_sha256

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``python -m benchmarks`` without a process of its own; gives the exit status."""
    monkeypatch.syspath_prepend(ROOT)
    main = importlib.import_module("benchmarks.__main__").main
    return lambda *arguments: main(["--threads", "1", *map(str, arguments)])


def figures(auroc: float) -> dict:
    image = {"image_auroc": auroc, "image_aupr": 0.5, "fnr_at_fpr_01": 0.5, "fnr_at_fpr_05": 0.25, "f1": 0.5}
    pixels = {"pixel_auroc": None, "aupro": None, "aupimo": None}
    return {**image, **pixels, "ci95": {"image_auroc": [auroc - 0.1, auroc + 0.1]}}


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Artifacts of one line that has been evaluated."""
    folder = tmp_path / "artifacts/some-line/evaluate"
    folder.mkdir(parents=True)
    document = {
        "line": "some-line",
        "backbone": "novad-bcos",
        "counts": {"test_normal": 7, "test_anomalous": 5},
        "scores": {"hybrid": figures(0.875), "novelty": figures(0.75), "familiarity": figures(0.625)},
        "false_negative_reduction": {"at_fpr_01": None, "at_fpr_05": 0.3125},
        "fusion": {"weight": 0.5, "tuned_on": {"split": "tuning"}},
        "explanation": {"energy_in_mask": {"novelty": 0.375}, "pointing_game": None},
    }
    (folder / "metrics.json").write_text(json.dumps(document), "utf-8")
    return tmp_path / "artifacts"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("train/good", "test/good"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_every_benchmark_leaves_its_table(
    run: Callable[..., int], images: Path, evaluated: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    names = ("coreset", "stage_cost", "detection")
    asked = ("--data", images, "--artifacts", evaluated, "--size", 64, "--repeats", 1, "--results", results)
    assert run(*names, *asked) == 0
    told = {path.stem: json.loads(path.read_text("utf-8"))["rows"] for path in results.glob("*.json")}
    assert set(told) == {path.stem for path in results.glob("*.md")} == set(names)
    radius = {row["method"]: row["covering radius"] for row in told["coreset"]}
    # 4 images of 8 x 8 patches: 3 of 256 are chosen, and both exact methods choose the same.
    blocks, plain = radius["exact greedy, in blocks"], radius["exact greedy, plain k-center"]
    assert blocks == pytest.approx(plain, abs=1e-3)
    assert [row["ratio"] for row in told["stage_cost"] if row["what"] == "bare forward pass"] == [1, 1]
    assert all(row["images"] == 4 for row in told["stage_cost"])
    hybrid = [row["ratio"] for row in told["stage_cost"] if row["what"].startswith("scoring: hybrid")]
    assert hybrid
    assert min(hybrid) > 0
    assert [row["score"] for row in told["detection"]] == ["familiarity", "novelty", "hybrid"]
    assert [row["AUROC"] for row in told["detection"]] == [0.625, 0.75, 0.875]
    assert [row["energy in mask"] for row in told["detection"]] == [None, 0.375, None]
    # Lines that were evaluated before know nothing of it.
    assert {row["pointing game, near"] for row in told["detection"]} == {None}
    assert told["detection"][2]["fewer missed at 5 % FPR"] == 0.3125
    assert "| some-line | novad-bcos | 7 + 5 | hybrid | 0.875 |" in (results / "detection.md").read_text(
        "utf-8"
    )


def test_updated_banks_are_set_beside_a_rebuild(
    run: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--data", images, "--size", 32, "--repeats", 1, "--results", tmp_path)
    assert run("incremental_bank", *asked) == 0
    assert "20 are needed" in capsys.readouterr().err
    rng = np.random.default_rng(1)
    for number in range(4, 22):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(images / "train/good" / f"{number}.png")
    assert run("incremental_bank", *asked) == 0
    rows = json.loads((tmp_path / "incremental_bank.json").read_text("utf-8"))["rows"]
    told = {(row["bank"], row["way"]): row for row in rows}
    # 22 images: 3 are scored; of the others 4 come late, or 1 goes. So few patches are all kept as vectors.
    assert {bank for bank, _ in told} == {"15 images + 4", "19 images - 1"}
    assert told["15 images + 4", "add_images"]["vectors"] == 19 * 16
    assert told["15 images + 4", "left as it was"]["vectors"] == 15 * 16
    assert told["19 images - 1", "remove_images alone"]["vectors"] == 18 * 16
    assert all(row["radius"] < 0.1 for row in rows if row["way"].startswith(("rebuild", "add", "remove")))
    assert told["15 images + 4", "left as it was"]["largest, sd"] > 0.1


def test_few_normals_are_judged_on_one_test_split(
    run: Callable[..., int], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_normals = importlib.import_module("benchmarks.few_normals")
    monkeypatch.setattr(few_normals, "SIZES", (2, 3))
    monkeypatch.setattr(few_normals, "DRAWS", 2)
    (images / "test/hole").mkdir()
    for path in (images / "test/good").iterdir():
        pixels = np.array(Image.open(path))
        pixels[20:44, 20:44] = 0
        Image.fromarray(pixels).save(images / "test/hole" / path.name)
    assert run("few_normals", "--data", images, "--size", 64, "--results", tmp_path) == 0
    told = json.loads((tmp_path / "few_normals.json").read_text("utf-8"))
    assert told["conditions"]["test split"] == "3 + 3"
    assert [(row["normals"], row["in the bank"], row["draws"]) for row in told["rows"]] == [
        (2, 1, 2), (3, 2, 2), (4, 2, 1),
    ]  # fmt: skip
    assert all(row["AUROC"] == 1 for row in told["rows"])


def test_tiles_are_measured_against_the_whole_image(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, smaller in {"SIDES": (128,), "TILES": (0, 64), "TARGETS": ("layer1",)}.items():
        monkeypatch.setattr(importlib.import_module("benchmarks.tiling"), name, smaller)
    assert run("tiling", "--results", tmp_path) == 0
    whole, tiled = json.loads((tmp_path / "tiling.json").read_text("utf-8"))["rows"]
    assert (whole["tile"], tiled["tile"]) == ("whole", 64)
    assert whole["largest difference"] == 0
    assert 0 < tiled["largest difference"] < 1e-4


def test_the_same_bank_gives_the_same_scores_from_tiles(
    run: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--data", images, "--size", 64, "--scored", 4, "--results", tmp_path)
    assert run("tiled_scores", *asked) == 0
    assert "no defective test image" in capsys.readouterr().err
    shutil.copytree(images / "train/good", images / "test/flipped")
    assert run("tiled_scores", *asked) == 0
    rows = json.loads((tmp_path / "tiled_scores.json").read_text("utf-8"))["rows"]
    assert [row["what"] for row in rows] == ["familiarity", "novelty", "familiarity map", "novelty map"]
    assert all(row["largest difference, of that"] < 1e-2 for row in rows)
    assert all(row["AUROC whole"] == row["AUROC tiled"] for row in rows)


def test_a_large_product_is_written_with_small_defects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    small_defects = importlib.import_module("benchmarks.small_defects")
    for name, smaller in {"SIDE": 384, "TRAIN": 2, "TEST_GOOD": 1, "PER_DEFECT": 2}.items():
        monkeypatch.setattr(small_defects, name, smaller)
    shares = small_defects.write_large_line("woven-fabric", tmp_path)
    assert set(shares) == {"broken_thread", "dye_shift", "misweave", "oil_stain", "slub"}
    assert all(0 < share < 0.006 for share in shares.values())
    with Image.open(tmp_path / "test/slub/001.png") as picture:
        assert picture.size == (384, 384)
    assert len(list(tmp_path.glob("ground_truth/*/*_mask.png"))) == 10


def test_every_explainer_of_a_network_is_set_beside_familiarity(
    run: Callable[..., int],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("novad.vision.explainers.post_hoc.OcclusionExplainer.divisions", 2)
    monkeypatch.setattr("novad.vision.explainers.post_hoc.IntegratedGradientsExplainer.steps", 4)
    asked = ("--data", images, "--size", 64, "--scored", 2, "--repeats", 1, "--results", tmp_path)
    assert run("explainers", *asked) == 0
    assert "no defects with masks" in capsys.readouterr().err
    for name in ("test/broken", "ground_truth/broken"):
        (images / name).mkdir(parents=True)
    for number in range(2):
        pixels = np.array(Image.open(images / f"test/good/{number}.png"))
        pixels[:16, :32] = 255
        Image.fromarray(pixels).save(images / f"test/broken/{number}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[:16, :32] = 255
        Image.fromarray(mask).save(images / f"ground_truth/broken/{number}_mask.png")
    assert run("explainers", *asked) == 0
    document = json.loads((tmp_path / "explainers.json").read_text("utf-8"))
    assert document["conditions"]["cannot explain it"] == "guided_backprop, lrp"
    assert document["conditions"]["normal + defective"] == "2 + 2"
    rows = {(row["explainer"], row["explains"]): row for row in document["rows"]}
    assert (
        rows["uniform map", "-"]["energy, novelty"] == rows["uniform map", "-"]["pointing, novelty"] == 0.125
    )
    assert set(rows) == {
        ("uniform map", "-"),
        ("familiarity", "layer2"),
        ("bcos", "layer1"),
        *((name, "layer2") for name in ("bcos", "input_x_gradient", "integrated_gradients")),
        *((name, "layer2") for name in ("layer_grad_cam", "occlusion")),
    }
    for (name, _), row in list(rows.items())[2:]:
        assert row["cost"] > 0
        assert 0 <= row["energy, novelty"] <= 1
        assert abs(row["similar, all random"]) < 1
        assert (row["completeness error"] < 1e-4) == (name in ("bcos", "input_x_gradient"))
    # A white corner among noise is far from the memory, and what a network without it would lose.
    for named in (("familiarity", "layer2"), ("integrated_gradients", "layer2"), ("occlusion", "layer2")):
        assert rows[named]["energy, novelty"] > 0.125
    assert run("explainers", *asked, "--methods", "layer_grad_cam,lrp") == 0
    document = json.loads((tmp_path / "explainers.json").read_text("utf-8"))
    assert [row["explainer"] for row in document["rows"]] == ["uniform map", "familiarity", "layer_grad_cam"]
    assert document["conditions"]["cannot explain it"] == "lrp"
    with pytest.raises(SystemExit):
        run("explainers", "--methods", "lime")


def test_trained_lines_are_timed_as_they_were_trained(
    run: Callable[..., int], images: Path, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_cost = importlib.import_module("benchmarks.stage_cost")
    folder = evaluated / "some-line/evaluate/detector"
    folder.mkdir()
    network = Path(shutil.copy(ROOT / BUNDLED_CHECKPOINT, folder))
    told = {"architecture": "novad-bcos", "checkpoint": network.name}
    manifest = {"backbone": told, "files": {network.name: file_sha256(network)}}
    (folder / "detector.json").write_text(json.dumps(manifest))
    opened: list[Path] = []
    sizes: list[tuple[int, int]] = []
    to_batch = stage_cost.to_batch

    def sized(group: list[np.ndarray], size: tuple[int, int], *device: torch.device) -> torch.Tensor:
        sizes.append(size)
        return to_batch(group, size, *device)

    def load(path: Path, device: str) -> Detector:
        assert device == "cpu"
        opened.append(path)
        backbone = stage_cost.bundled_backbone()
        files = sorted((images / "train/good").iterdir())
        tensors = [stage_cost.to_batch([stage_cost.read(file) for file in files], 32)]
        familiarity = stage_cost._familiarity(backbone, stage_cost._bank(backbone, files, 32), len(files))
        novelty = next(stage_cost._novelties(backbone, tensors))
        sizes.clear()
        return Detector("some-line", 32, familiarity, novelty, stage_cost._fusion())

    monkeypatch.setattr(stage_cost, "to_batch", sized)
    monkeypatch.setattr(Detector, "load", load)
    asked = ("--data", images, "--artifacts", evaluated, "--size", 64, "--repeats", 1, "--results", tmp_path)
    assert run("stage_cost", *asked) == 0
    assert opened == [folder]
    rows = json.loads((tmp_path / "stage_cost.json").read_text("utf-8"))["rows"]
    bare, whole, prepared, familiarity, tensors, hybrid = rows[-6:]
    assert bare["what"] == "bare forward pass"
    assert prepared["what"] == "decoded images to batches"
    assert tensors["what"] == "scoring: hybrid of batches, line some-line, layer1 weight_norm, input 32x32"
    assert familiarity["what"] == "scoring: familiarity only, line some-line, layer1 weight_norm, input 32x32"
    assert hybrid["what"] == "scoring: hybrid, line some-line, layer1 weight_norm, input 32x32"
    assert whole["what"] == "forward pass of the whole network"
    for column, divisor in (("ratio", bare), ("of the whole network", whole)):
        assert divisor[column] == 1
        # Both are rounded; which of two runs of a few milliseconds is shorter is not for a test to say.
        assert hybrid[column] == pytest.approx(hybrid["ms per image"] / divisor["ms per image"], rel=0.05)
    assert sizes
    assert set(sizes) == {(32, 32)}


def test_simulated_benchmarks_need_no_input(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, smaller in {
        "interval_coverage": {"SPLITS": 20, "RESAMPLES": 60, "SIZES": ((60, 60),)},
        "pixel_figures": {"IMAGES": 4, "SIDE": 64},
    }.items():
        for name, value in smaller.items():
            monkeypatch.setattr(importlib.import_module(f"benchmarks.{module}"), name, value)
    assert run("interval_coverage", "pixel_figures", "--results", tmp_path) == 0
    (coverage,) = json.loads((tmp_path / "interval_coverage.json").read_text("utf-8"))["rows"]
    assert 0.7 <= coverage["image_auroc held"] <= 1
    (pixels,) = json.loads((tmp_path / "pixel_figures.json").read_text("utf-8"))["rows"]
    assert 0.5 < pixels["pixel AUROC"] < 1
    assert pixels["pixel AUROC"] == pytest.approx(pixels["over all pixels at once"], abs=1e-4)


def test_failing_light_of_a_demo_line_is_told_and_quiet_replays_are_not(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = importlib.import_module("benchmarks.drift")
    (tmp_path / "artifacts/brushed-metal/evaluate/detector").mkdir(parents=True)
    for name, value in {"PARTS": 80, "REPLAYS": 3, "LEFT_AT_THE_END": 0.5}.items():
        monkeypatch.setattr(drift, name, value)
    noise = np.random.default_rng(0)
    normals = {name: noise.normal(size=30) for name in ("hybrid", "familiarity", "novelty")}
    lit = [drift.grey_statistics(drift.made_part("brushed-metal", None, at)) for at in range(1000, 1030)]
    normals |= {name: np.array([getattr(each, name) for each in lit]) for name in vars(lit[0])}

    class Judge:
        line, digest = "brushed-metal", ""

        def score(self, images: list[np.ndarray]) -> Iterator[SimpleNamespace]:
            nearest = SimpleNamespace(image="", sha256="")
            for _ in images:
                scores = dict(zip(("hybrid", "familiarity", "novelty"), noise.normal(size=3), strict=True))
                yield SimpleNamespace(**scores, p_value=1.0, decision="PASS", nearest=nearest)

    monkeypatch.setattr(drift.Detector, "load", lambda _: Judge())
    monkeypatch.setattr(drift, "read_reference", lambda *_: drift.Reference(1, 9.0, normals, frozenset()))
    assert run("drift", "--artifacts", tmp_path / "artifacts", "--results", tmp_path) == 0
    [row] = json.loads((tmp_path / "drift.json").read_text("utf-8"))["rows"]
    assert (row["line"], row["normals"]) == ("brushed-metal", 30)
    assert (row["alarms on quiet replays"], row["alarms with defects"]) == (0, 0)
    assert row["alarms as light fails"] == 3
    assert 20 < row["parts until then"] <= 40
    assert 0.5 <= row["light then"] < 0.8
    assert abs(row["worst"]) <= 0.15


def test_search_is_timed_and_judged_at_every_size(
    run: Callable[..., int],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search_scale = importlib.import_module("benchmarks.search_scale")
    monkeypatch.setattr(search_scale, "SIZES", (50, 2000))
    asked = ("--data", images, "--size", 64, "--repeats", 1, "--results", tmp_path)
    assert run("search_scale", *asked) == 0
    assert "10 are needed" in capsys.readouterr().err
    rng = np.random.default_rng(1)
    for number in range(4, 10):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(images / "train/good" / f"{number}.png")
    assert run("search_scale", *asked) == 0
    rows = json.loads((tmp_path / "search_scale.json").read_text("utf-8"))["rows"]
    assert [row["vectors"] for row in rows] == [50, 2000]
    assert [row["recall"] for row in rows] == [1, 1]
    assert all(row["lists searched"] == "exact" for row in rows)


def test_memory_is_measured_in_a_process_per_folder(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streaming = importlib.import_module("benchmarks.streaming")
    monkeypatch.setattr(streaming, "FOLDERS", (20,))
    monkeypatch.setattr(streaming, "MAX_PATCHES", 1000)
    assert run("streaming", "--results", tmp_path) == 0
    (row,) = json.loads((tmp_path / "streaming.json").read_text("utf-8"))["rows"]
    assert (row["images"], row["patches kept"], row["of the smallest"]) == (20, 1000, 1)
    assert row["peak memory, MiB"] > row["estimate, MiB"] > 0


def test_what_is_missing_is_said_and_skipped(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    needy = (
        "contamination",
        "coreset",
        "few_normals",
        "incremental_bank",
        "search_scale",
        "stage_cost",
        "detection",
        "drift",
        "explainers",
        "few_anomalies",
        "maps",
        "parts",
        "readings",
        "selection",
        "stem",
        "thresholds",
        "usual_distances",
    )
    asked = ("--data", tmp_path / "nowhere", "--artifacts", tmp_path / "none", "--results", results)
    assert run(*needy, *asked) == 0
    said = capsys.readouterr().err
    assert said.count("skipped") == len(needy)
    assert "--data" in said
    assert "--artifacts" in said
    assert not results.exists()


def test_a_folder_of_another_layout_is_refused_by_name(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("coreset", "--data", tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_an_unknown_benchmark_is_refused_with_those_that_exist(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("speed")
    assert ended.value.code == 2
    assert "stage_cost" in capsys.readouterr().err


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``benchmarks.folders`` of an empty checkout that has nothing beside it."""
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.folders")
    monkeypatch.setattr(module, "SHARED", tmp_path / "shared")
    monkeypatch.setattr(module, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_real_images_are_benchmarked_where_they_are_and_demo_lines_elsewhere(
    folders: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(
        folders, "make_demo_lines", lambda out: (made.append(out), (out / "cloth").mkdir(parents=True))
    )
    assert folders.found() == [tmp_path / "results/demo-images/cloth"]
    assert made == [tmp_path / "results/demo-images"]
    (tmp_path / "checkout/data/metal").mkdir(parents=True)
    assert folders.found() == [tmp_path / "checkout/data/metal"]
    (tmp_path / "shared/data/elpv-mono").mkdir(parents=True)
    assert folders.found() == [tmp_path / "shared/data/elpv-mono"]


def test_every_folder_is_benchmarked_and_the_worst_status_told(
    folders: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def run(command: list[object], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append([str(part) for part in command])
        return subprocess.CompletedProcess(commands[-1], len(commands) - 1)

    for name in folders.REAL:
        (tmp_path / "shared/data" / name).mkdir(parents=True)
    (tmp_path / "shared/weights").mkdir()
    (tmp_path / "shared" / folders.WEIGHTS).touch()
    monkeypatch.setattr(folders.subprocess, "run", run)
    assert folders.main(["--anomalib", "/env/bin/python", "--size", "64"]) == 1
    assert [Path(command[2]).name for command in commands] == list(folders.REAL)
    assert len({command[command.index("--out") + 1] for command in commands}) == 2
    for command in commands:
        assert command[-6:-2] == ["--size", "64", "--anomalib", "/env/bin/python"]
        assert command[-2:] == ["--anomalib-weights", str(tmp_path / "shared" / folders.WEIGHTS)]


@pytest.mark.parametrize("name", ["second_implementation", "coreset_scale"])
def test_what_stands_beside_anomalib_is_skipped_where_there_is_none(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(name, "--results", tmp_path) == 0
    assert "--anomalib" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
