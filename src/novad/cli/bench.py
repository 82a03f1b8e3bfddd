"""``novad bench``: familiarity, novelty, hybrid and today's methods on any dataset folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.output import JSON, answer, figure, progress, table
from novad.config import BackboneSettings, LineSettings, Workspace, faults, wrong_option
from novad.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from novad.benchmarking.anomalib_runs import Anomalib

__all__ = ["bench"]

PAPER_STEPS = 70_000
# Of the data gate: whoever benchmarks a data set takes it as it is. What would falsify figures is left out.
LENIENT = {"allow_mixed_sizes": True, "min_normals": 5, "leave_out": True}


def bench(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of images; it is only read.")],
    layout: Annotated[str, typer.Option(help="mvtec, visa or folder.")],
    backbone: Annotated[
        str, typer.Option(help="bundled, timm:NAME or bcos:NAME (download), or a local weight file.")
    ] = "bundled",
    explainer: Annotated[
        str, typer.Option(help="bcos (of the bundled network), or a Captum method on the backbone.")
    ] = "bcos",
    size: Annotated[
        str,
        typer.Option(help="Side of the network's input in pixels (of long images as many), or WIDTHxHEIGHT."),
    ] = "224",
    tile: Annotated[
        int, typer.Option(help="Side of the parts in which an image goes through the network; 0: whole.")
    ] = 0,
    anomaly_type: Annotated[str, typer.Option(help="sensory, semantic_near or semantic_far.")] = "sensory",
    seed: Annotated[int, typer.Option(min=0, help="Of splits, coreset and bootstrap.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results; benchmarks-NAME by default.")
    ] = None,
    anomalib: Annotated[
        Path | None, typer.Option(help="Python interpreter of an environment that has anomalib.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Of anomalib's: patchcore, padim, dfm, efficientad; none for no other.")
    ] = "patchcore,padim,dfm,efficientad",
    anomalib_weights: Annotated[
        Path | None, typer.Option(help="timm checkpoint for anomalib, where the backbone is a B-cos network.")
    ] = None,
    efficientad_teacher: Annotated[Path | None, typer.Option(help="Teacher's weights, a .pth file.")] = None,
    imagenette: Annotated[Path | None, typer.Option(help="Natural images for EfficientAD.")] = None,
    efficientad_steps: Annotated[int, typer.Option(min=1, help="Of its training.")] = PAPER_STEPS,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each of anomalib's methods.")] = 7200,
    as_json: bool = JSON,
) -> None:
    """Benchmark a dataset folder: one table of quality and cost, as JSON, Markdown and plots.

    A temporary line is trained on DIR and forgotten; nothing is registered and nothing written into DIR.
    Files that cannot be used are left out and named; results of an earlier run in --out go when this begins.
    With --anomalib its methods run on the same images, splits, resolution and weights, each in a process of
    its own.
    """
    from novad.benchmarking.anomalib_runs import METHODS
    from novad.images import discover
    from novad.images.proportions import in_proportion

    target = _target(data, layout, out)
    chosen = _methods(methods, METHODS)
    environment = _environment(anomalib, timeout, efficientad_teacher, imagenette, efficientad_steps)
    _check_sides(size, tile)
    size = str(in_proportion(size, data, discover(data, layout), tiled=tile > 0))
    settings = _settings(data, layout, backbone, explainer, size, tile, anomaly_type, seed, target)
    weights = None if anomalib_weights is None else _timm_weights(anomalib_weights, target, size)

    from novad.benchmarking.comparison import Benchmark, compare
    from novad.benchmarking.gathered_images import gathered
    from novad.benchmarking.report import data_gate, write_report
    from novad.benchmarking.results_folder import working_folder

    with working_folder(target) as work, progress(f"benchmarking {data.name}") as step:
        images = gathered(data, layout, work / "images")
        asked = Benchmark(settings.model_copy(update={"data": str(images)}), chosen, environment, weights)
        found = compare(asked, work, lambda name: step(0, description=f"benchmarking {data.name}: {name}"))
        files = write_report(found, target)
    document: dict[str, Any] = {**found.document, "files": files}

    def show(console: "Console") -> None:
        rows = document["methods"]
        columns = ("method", "AUROC", "FNR at 5 % FPR", "AUPRO", "ms per image", "fit s", "peak MB")
        console.print(table(f"{data.name}, test split", columns, [_shown(row) for row in rows]))
        for row in rows:
            if row["reason"]:
                console.print(f"{row['method']}: {row['reason']}", soft_wrap=True)
        for line in data_gate(document):
            console.print(line, soft_wrap=True)
        console.print(f"Results: {files['bench.md']}", soft_wrap=True)

    answer(document, as_json, show)


def _shown(row: dict[str, Any]) -> list[str | None]:
    """A row that fits an ordinary terminal; the page has the other figures and the intervals."""
    if row["reason"]:
        return [row["method"], *[None] * 6]
    cost = row["cost"]
    return [
        row["method"],
        *(figure(row[name]) for name in ("image_auroc", "fnr_at_fpr_05", "aupro")),
        f"{cost['ms_per_image']:.1f}",
        f"{cost['fit_seconds']:.1f}",
        f"{cost['peak_rss_mb']:.0f}",
    ]


def _target(data: Path, layout: str, out: Path | None) -> Path:
    """Folder of the results, once the images are known to be there and it is not among them."""
    from novad.images import discover

    if not data.is_dir():
        raise ConfigError(f"{data}: no such folder of images")
    if not discover(data, layout):
        raise ConfigError(f"{data}: the layout '{layout}' finds no image here")
    target = (out or Path(f"benchmarks-{data.resolve().name}")).absolute()
    if target.resolve().is_relative_to(data.resolve()):
        raise ConfigError(f"--out: {target}: lies in the folder of images, which is only read; name another")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {target} cannot be made: {error.strerror}") from None
    return target


def _methods(told: str, known: tuple[str, ...]) -> list[str]:
    names = [] if told.strip() == "none" else [name.strip() for name in told.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"--methods: no method '{unknown[0]}'; there are {', '.join(known)}, or none")
    return list(dict.fromkeys(names))


def _environment(
    interpreter: Path | None, timeout: float, teacher: Path | None, imagenette: Path | None, steps: int
) -> "Anomalib | None":
    from novad.benchmarking.anomalib_runs import EfficientAdFiles, find_anomalib

    if (teacher is None) != (imagenette is None):
        raise ConfigError("--efficientad-teacher and --imagenette: EfficientAD needs both")
    files = None
    if teacher is not None and imagenette is not None:
        for option, path in (("--efficientad-teacher", teacher), ("--imagenette", imagenette)):
            if not path.exists():
                raise ConfigError(f"{option}: {path}: no such file or folder")
        files = EfficientAdFiles(teacher.absolute(), imagenette.absolute(), steps)
    return None if interpreter is None else find_anomalib(interpreter, timeout, files)


def _check_sides(size: str, tile: int) -> None:
    """Refuse them by the names of the options here, before a network is loaded."""
    from pydantic import ValidationError

    try:
        BackboneSettings(sha256="0" * 64, image_size=size, tile=tile)
    except ValidationError as error:
        where, why = faults(error)[0]
        option = "--tile" if where[0] == "tile" else "--size"
        raise ConfigError(f"{option}: {why.replace('image_size', '--size')}") from None


def _settings(
    data: Path, layout: str, backbone: str, explainer: str, size: str, tile: int, anomaly_type: str,
    seed: int, out: Path,
) -> LineSettings:  # fmt: skip
    """Settings of the temporary line, as ``novad line add`` would write them, with absolute paths."""
    from pydantic import ValidationError

    own = _backbone(backbone, size, out, tile)
    exact = own.architecture.startswith(("novad-", "bcos:"))
    explained = own if explainer != "bcos" or exact else _backbone("bundled", size, out, tile)
    try:
        return LineSettings.model_validate(
            {
                "data": str(data.resolve()),
                "layout": layout,
                "anomaly_type": anomaly_type,
                "seed": seed,
                "validate": LENIENT,
                "backbone": own,
                "explainer": {"method": explainer, "backbone": explained},
            }
        )
    except ValidationError as error:
        raise wrong_option(error) from None


def _backbone(spec: str, size: str, out: Path, tile: int = 0) -> BackboneSettings:
    """What ``--backbone`` names, by absolute path; a download goes into the folder of the results."""
    import novad
    from novad.pipeline.checkpoints import choose

    home = Workspace(Path(novad.__file__).parents[2] if spec == "bundled" else out)
    checkpoint = choose(home, spec, size, tile)
    file = checkpoint.source or home.path(checkpoint.settings.checkpoint)
    return checkpoint.settings.model_copy(update={"checkpoint": str(file)})


def _timm_weights(path: Path, out: Path, size: str) -> dict[str, Any]:
    from novad.vision.backbones import load_backbone

    told = _backbone(str(path), size, out)
    network = load_backbone(told.architecture, Path(told.checkpoint), told.sha256)
    if network.exact:
        raise ConfigError(f"--anomalib-weights: {path}: is a B-cos network; anomalib takes one of timm's")
    return {
        "architecture": told.architecture,
        "checkpoint": told.checkpoint,
        "layers": list(network.layers),
    }
