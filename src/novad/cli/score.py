"""``novad score``: judge images with the champion."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from novad.cli.output import JSON, answer, command, figure, progress, table, tell
from novad.config import Workspace, line_settings
from novad.errors import ConfigError, ImageError

__all__ = ["score"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
KINDS = ("familiarity", "novelty", "hybrid")


@command
def score(
    line: Annotated[str, typer.Argument()],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    heatmaps: Annotated[Path | None, typer.Option(help="Folder for overlays, one per image.")] = None,
    version: Annotated[int | None, typer.Option(help="Instead of the champion.")] = None,
    as_json: bool = JSON,
) -> None:
    """Judge images with the champion: PASS, REVIEW or FAIL, with maps on request."""
    from novad.tracking import resolve
    from novad.vision import Detector

    workspace = Workspace.find()
    settings = line_settings(workspace.params, line)
    paths = list(_found(images))
    model = resolve(workspace, line, version)
    if model.warning:
        tell(f"warning: {model.warning}")
    detector = Detector.load(model.folder)
    rows: list[dict[str, Any]] = []
    unreadable: list[str] = []
    with progress(f"scoring {len(paths)} images", len(paths)) as step:
        for path, image, detection in _judged(detector, paths, settings.validation.max_pixels, unreadable):
            rows.append(_row(path, detection))
            if heatmaps is not None:
                rows[-1]["heatmap"] = str(_draw(heatmaps, path, image, detection, detector.thresholds.map))
            step()
    document = {
        "line": line,
        "version": model.version,
        "digest": detector.digest,
        "thresholds": {"fail": detector.thresholds.fail, "review": detector.thresholds.review},
        "images": rows,
        "unreadable": unreadable,
    }
    answer(document, as_json, lambda console: _show(console, document, heatmaps))
    if unreadable:
        raise ImageError("; ".join(unreadable)) if not as_json else typer.Exit(2)


def _found(images: list[Path]) -> Iterator[Path]:
    for path in images:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            if not inside:
                raise ConfigError(f"{path}: no image in this folder")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"{path}: no such image or folder")


def _judged(detector: Any, paths: list[Path], max_pixels: int, unreadable: list[str]) -> Iterator[Any]:
    """(path, image, detection), one batch in memory; what cannot be read is noted and passed over."""
    from novad.images import decode_image

    held: list[tuple[Path, Any]] = []

    def decoded() -> Iterator[Any]:
        for path in paths:
            try:
                image = decode_image(path, max_pixels)
            except ImageError as error:
                unreadable.append(str(error))
                continue
            held.append((path, image))
            yield image

    for detection in detector.score(decoded()):
        yield (*held.pop(0), detection)


def _row(path: Path, detection: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        **{kind: round(getattr(detection, kind), 6) for kind in KINDS},
        "p_value": round(detection.p_value, 6),
        "decision": detection.decision,
        "nearest": {"image": detection.nearest.image, "sha256": detection.nearest.sha256},
        "heatmap": None,
    }


def _draw(folder: Path, path: Path, image: Any, detection: Any, thresholds: dict[str, float]) -> Path:
    """Write one overlay; a digest of the full path keeps images of one name apart."""
    from novad.evaluation.overlays import panel

    folder.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    target = folder / f"{path.stem}-{mark}.png"
    caption = f"{path.name}: {detection.decision}, hybrid {detection.hybrid:.2f}, p {detection.p_value:.3f}"
    maps = {kind: getattr(detection, f"{kind}_map") for kind in KINDS}
    panel(image, maps, thresholds, None, caption).save(target)
    return target


def _show(console: Console, document: dict[str, Any], heatmaps: Path | None) -> None:
    rows = [
        [
            row["path"],
            row["decision"],
            *(figure(row[kind]) for kind in ("hybrid", "familiarity", "novelty", "p_value")),
            row["nearest"]["image"],
        ]
        for row in document["images"]
    ]
    columns = ("image", "decision", "hybrid", "familiarity", "novelty", "p", "nearest normal image")
    console.print(table(f"{document['line']} version {document['version']}", columns, rows))
    counts = {name: sum(row[1] == name for row in rows) for name in ("PASS", "REVIEW", "FAIL")}
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if heatmaps is not None:
        console.print(f"Heatmaps: {heatmaps}")
