"""``novad score``: judge images with the champion."""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.image_size import warn_of_other_sizes
from novad.cli.outcome import tell
from novad.cli.output import JSON, answer, figure, progress, table, where_to_look
from novad.config import Workspace, line_settings
from novad.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from rich.console import Console

    from novad.images.fingerprint import GreyStatistics
    from novad.tracking import LoggedDecision, ResolvedModel

__all__ = ["score"]

KINDS = ("familiarity", "novelty", "hybrid")


def score(
    line: Annotated[str, typer.Argument(help="Product line.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    heatmaps: Annotated[Path | None, typer.Option(help="Folder for overlays, one per image.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the champion.")] = None,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Write the decision log.")] = True,
    as_json: bool = JSON,
) -> None:
    """Judge images with the champion: PASS, REVIEW or FAIL, with maps on request.

    Every decision goes into the decision log under a prediction id, which `novad trace` follows. A file
    that cannot be read as an image is named, the others are judged, and the command exits 2. So it is with
    a note or a table in a folder: where such lie beside images, name these themselves. An overlay that
    cannot be written is named too; its image is judged. What lies in the folder of the heatmaps is left
    out unless it is named itself: it may be overlays of an earlier run.
    """
    workspace = Workspace.find()
    settings = line_settings(workspace.params, line)
    from novad.images.files import image_files, judge_files
    from novad.images.fingerprint import grey_statistics

    paths = image_files(images)
    if heatmaps is not None:
        paths = _without_overlays(paths, images, heatmaps)
        _prepare(heatmaps)

    from novad.tracking import log_decisions, resolve

    model = resolve(workspace, line, version)
    if model.warning:
        tell(f"warning: {model.warning}")
    detector = model.load()
    rows: list[dict[str, Any]] = []
    decisions: list[LoggedDecision] = []
    unreadable: list[dict[str, str]] = []
    undrawn: list[dict[str, str]] = []
    sizes: dict[Path, tuple[int, int]] = {}
    begun = time.perf_counter()
    with progress(f"scoring with {line} version {model.version}", len(paths)) as step:
        judged = judge_files(detector.score, paths, settings.validation.max_pixels, unreadable)
        for path, sha256, image, detection in judged:
            drawn = None if heatmaps is None else _draw(heatmaps, path, image, detection, detector, undrawn)
            decisions.append(_decision(path, sha256, detection, grey_statistics(image), model))
            rows.append(_row(path, decisions[-1], detection, drawn))
            sizes[path] = (image.shape[1], image.shape[0])
            step()
    latency_ms = 1000 * (time.perf_counter() - begun) / max(1, len(rows))
    if log:
        log_decisions(workspace, [replace(each, latency_ms=latency_ms) for each in decisions])
    else:
        rows = [row | {"prediction_id": None} for row in rows]
    document = {
        "line": line,
        "version": model.version,
        "alias": model.alias,
        "digest": detector.digest,
        "thresholds": {"fail": detector.thresholds.fail, "review": detector.thresholds.review},
        "images": rows,
        "unreadable": unreadable,
        "undrawn": undrawn,
    }
    failed = [each["error"] for each in (*unreadable, *undrawn)]
    if failed:
        document |= {"error": "; ".join(failed), "code": ImageError.code}

    def show(console: "Console") -> None:
        _show(console, document)
        if heatmaps is not None:
            console.print(f"Heatmaps:  {heatmaps.absolute()}", soft_wrap=True)
        console.print(where_to_look(workspace), soft_wrap=True)

    answer(document, as_json, show)
    warn_of_other_sizes(workspace, model, sizes)
    for error in failed:
        tell(f"novad: {error}")
    if failed:
        raise typer.Exit(ImageError.code)


def _without_overlays(paths: list[Path], named: list[Path], heatmaps: Path) -> list[Path]:
    """``paths`` but what was found in the folder of the overlays: those of the last run are no parts.

    Raises:
        ConfigError: nothing is left.
    """
    folder = heatmaps.resolve()
    kept = [path for path in paths if path in named or path.parent.resolve() != folder]
    if not kept:
        raise ConfigError(f"--heatmaps: all images lie in {heatmaps} itself; name a folder of its own")
    if len(kept) < len(paths):
        tell(f"left out: {len(paths) - len(kept)} files in {heatmaps}, the folder of the heatmaps")
    return kept


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--heatmaps: {folder} cannot be made: {error.strerror}") from None


def _decision(
    path: Path, sha256: str, detection: Any, grey: "GreyStatistics", model: "ResolvedModel"
) -> "LoggedDecision":
    from novad.tracking import decide_now

    return decide_now(
        detection,
        grey,
        line=model.line,
        version=model.version,
        detector_digest=model.detector_digest,
        image_sha256=sha256,
        source=str(path),
        latency_ms=0.0,
    )


def _row(path: Path, decision: "LoggedDecision", detection: Any, heatmap: Path | None) -> dict[str, Any]:
    nearest = detection.nearest
    return {
        "path": str(path),
        "sha256": decision.image_sha256,
        "prediction_id": decision.prediction_id,
        **{kind: round(getattr(detection, kind), 6) for kind in KINDS},
        "p_value": round(detection.p_value, 6),
        "decision": detection.decision,
        "nearest": {
            "image": nearest.image,
            "sha256": nearest.sha256,
            "row": nearest.row,
            "column": nearest.column,
            "distance": round(nearest.distance, 6),
        },
        "heatmap": None if heatmap is None else str(heatmap),
    }


def _draw(
    folder: Path, path: Path, image: Any, detection: Any, detector: Any, undrawn: list[dict[str, str]]
) -> Path | None:
    """Write one overlay; a digest of the full path keeps images of one name apart.

    Args:
        undrawn: gains ``path`` and ``error`` where it cannot be written: the judgement must not be lost.
    """
    from novad.evaluation.overlays import panel, picture_name

    mark = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    target = folder / picture_name(path.stem, mark)
    caption = f"{path.name}: {detection.decision}, hybrid {detection.hybrid:.2f}, p {detection.p_value:.3f}"
    maps = {kind: getattr(detection, f"{kind}_map") for kind in KINDS}
    passed = detection.decision == "PASS"
    picture = panel(image, maps, detector.thresholds.map, None, caption, passed)
    try:
        picture.save(target)
    except OSError as error:
        reason = error.strerror or error
        undrawn.append({"path": str(path), "error": f"{path}: {target} cannot be written: {reason}"})
        return None
    return target


def _show(console: "Console", document: dict[str, Any]) -> None:
    images = document["images"]
    folder, names = _within([Path(row["path"]) for row in images])
    rows = [
        [
            name,
            row["decision"],
            *(figure(row[kind]) for kind in ("hybrid", "familiarity", "novelty", "p_value")),
            row["nearest"]["image"],
        ]
        for name, row in zip(names, images, strict=True)
    ]
    columns = ("image", "decision", "hybrid", "familiarity", "novelty", "p", "nearest normal image")
    if rows:
        title = f"{document['line']} version {document['version']} ({document['alias'] or 'as named'})"
        console.print(table(title, columns, rows))
        console.print(f"Images in {folder}", soft_wrap=True)
    counts = [
        f"{sum(row['decision'] == name for row in images)} {name}" for name in ("PASS", "REVIEW", "FAIL")
    ]
    if document["unreadable"]:
        counts.append(f"{len(document['unreadable'])} unreadable")
    if document["undrawn"]:
        counts.append(f"{len(document['undrawn'])} without its overlay")
    console.print(", ".join(counts))


def _within(paths: list[Path]) -> tuple[Path, list[Path]]:
    """The folder that all images lie in, and their paths from there: named once, it leaves room."""
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - drops '..', follows no link
    folder = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    return folder, [path.relative_to(folder) for path in whole]
