"""Stage calibrate_explainer: which explanation statistic asks best for novelty on this line."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from novad.config import Workspace
from novad.errors import CalibrationError
from novad.stages.choosing import choosers, chosen_by
from novad.stages.deviations import Deviations, image_tensors, learns
from novad.stages.line import Line, evenly
from novad.stages.localisation import ShownMap, best_map
from novad.stages.masked_images import MaskedImages, masked_images, sound_images
from novad.stages.options import Option, Scored, best_option, offered_options
from novad.stages.patch_lessons import learn_maps
from novad.stages.runner import main, stage_output, write_json
from novad.vision.detector_files import Calibration, save_novelty
from novad.vision.models import FamiliarityModel, NoveltyModel, deviations_of_patches, raw_scores
from novad.vision.patch_evidence import LOOKS, patch_candidate
from novad.vision.preprocess import images_at_once
from novad.vision.selection import candidate_table
from novad.vision.synthetic import synthetic_anomaly

__all__ = ["run", "tuning_images"]

STAGE = "calibrate_explainer"
MOST_NORMAL_MAPS = 256


def run(workspace: Workspace, name: str) -> None:
    """Compare the candidates of one line, learn to weigh them where anomalies allow, keep what fuses best."""
    line = Line.open(workspace, name)
    deviations = Deviations.fit(line)
    scored = deviations.score(*tuning_images(line))
    table = candidate_table(
        scored.candidates,
        scored.familiarity,
        scored.novelty,
        scored.calibration,
        scored.anomalous,
        scored.chooses,
        line.settings.tune_fusion.max_false_positive_rate,
        line.settings.tune_fusion.equal_weight_prior,
    )
    normal = None
    if learns(line):
        scored, normal = deviations.lessons(scored)
    options = offered_options(line.settings, scored, deviations.reference, normal)
    best = best_option(options, scored)
    masked = masked_images(line)
    known, remembered = _memory_maps(deviations, masked)
    novelty, shown = _novelty(deviations, best, masked, remembered)
    scores = scored.rows.drop(columns="part").assign(familiarity=scored.familiarity, novelty=best.scores)
    with stage_output(workspace, name, STAGE) as folder:
        learned = Calibration(novelty.normal, novelty.evidence, novelty.appearance, novelty.patches)
        save_novelty(learned, folder / "calibration.safetensors")
        kept = _normal_maps(line, deviations.familiarity, novelty)
        if masked is not None and shown.maps is not None and known is not None:
            kept |= {
                "masked.familiarity": known,
                "masked.novelty": shown.maps.contiguous(),
                "masked.truth": masked.masks.to(torch.uint8),
            }
        save_file(kept, folder / "maps.safetensors")
        scores.to_parquet(folder / "scores.parquet", index=False)
        write_json(folder / "candidates.json", _report(line, novelty, shown, options, table, scored))


def _memory_maps(deviations: Deviations, masked: MaskedImages | None) -> tuple[Tensor | None, list[ShownMap]]:
    """Raw maps of familiarity of the masked images, None without any, and what else the memory shows of them.

    Appearance first, then maps that masks teach; nothing where appearance is not known.
    """
    if masked is None:
        return None, [] if deviations.appearance is None else [ShownMap(deviations.look)]
    parts = torch.split(masked.images, images_at_once((masked.images.shape[-2], masked.images.shape[-1])))
    if deviations.appearance is None:
        return torch.cat([deviations.remember(images).found.maps for images in parts]), []
    look = partial(deviations_of_patches, deviations.familiarity, deviations.appearance)
    known, looks, seen = list[Tensor](), list[Tensor](), list[Tensor]()
    for maps, patches in map(look, parts):
        known.append(maps)
        looks.append(patches[:, LOOKS].clone())
        seen += patches.half()  # fine grids of many images take memory
    told = deviations.line.settings
    sound = (each for images in sound_images(deviations.line) for each in look(images)[1].half())
    learned = learn_maps(seen, masked, sound, told.calibrate_explainer.evidence_anomalies)
    taught = patch_candidate(told.memory_bank.top_share)
    shown = [ShownMap(taught, each.maps, each) for each in learned]
    return torch.cat(known), [ShownMap(deviations.look, torch.cat(looks)), *shown]


def _novelty(
    deviations: Deviations, best: Option, masked: MaskedImages | None, remembered: list[ShownMap]
) -> tuple[NoveltyModel, ShownMap]:
    """The model of the best option with the map that shows defects best."""
    explainer, grid, fits = deviations.explainer, deviations.grid, deviations.fits
    explained = [each.target for each in best.judged if each.explained]
    shown = best_map(explainer, grid, fits, (*explained, grid.targets[0])[0], masked, remembered)
    read = {shown.candidate, *best.judged}
    return (
        NoveltyModel(
            explainer,
            shown.candidate,
            best.judged,
            best.evidence,
            {each.smoothing: fits[each.target, each.smoothing] for each in read if each.explained},
            best.residuals,
            None if all(each.explained for each in read) else deviations.appearance,
            shown.learned.evidence if shown.learned else None,
        ),
        shown,
    )


def tuning_images(line: Line) -> tuple[pd.DataFrame, Iterator[Any]]:
    """Calibration and tuning images; without a labelled defect, synthetic ones stand in.

    Raises:
        CalibrationError: no calibration normal, or one too small for a synthetic defect where these stand in.
    """
    columns = ["path", "sha256", "split", "label", "defect_type"]
    rows = line.rows("calibration", "tuning")[columns]
    normals = rows[rows["label"] == 0].reset_index(drop=True)
    if not (rows["split"] == "calibration").any():
        raise CalibrationError(
            f"{line.name}: no calibration normal (nearly equal pictures stay on one side); add normal images"
        )
    if (rows["label"] == 1).any():
        return rows, line.images(rows)
    normals_asked = normals[choosers(normals)]
    stand_ins = normals_asked.assign(split="synthetic", label=1)
    kinds = [
        synthetic_anomaly(np.zeros((16, 16, 3), np.uint8), number, 0)[1] for number in range(len(stand_ins))
    ]
    stand_ins["defect_type"] = [f"synthetic_{kind}" for kind in kinds]

    def images() -> Iterator[Any]:
        yield from line.images(normals)
        named = zip(normals_asked["path"], line.images(normals_asked), strict=True)
        for number, (path, image) in enumerate(named):
            try:
                yield synthetic_anomaly(image, number, line.settings.seed)[0]
            except CalibrationError as error:
                raise CalibrationError(f"{line.name}: {path}: {error}; label some real ones") from None

    return pd.concat([normals, stand_ins], ignore_index=True), images()


def _normal_maps(line: Line, familiarity: FamiliarityModel, novelty: NoveltyModel) -> dict[str, Tensor]:
    """Raw maps of calibration normals and of good tuning images: what maps of good parts look like."""
    kept = dict[str, Tensor]()
    for name, split in (("normal", "calibration"), ("tuning", "tuning")):
        rows = line.rows(split)
        images = line.images(evenly(rows[rows["label"] == 0], MOST_NORMAL_MAPS))
        raw = (raw_scores(familiarity, novelty, batch) for batch in image_tensors(line, images))
        if maps := [(each.familiarity.maps, each.novelty_maps) for each in raw]:
            known, unknown = map(torch.cat, zip(*maps, strict=True))
            kept |= {f"{name}.familiarity": known.contiguous(), f"{name}.novelty": unknown.contiguous()}
    return kept


def _report(
    line: Line,
    novelty: NoveltyModel,
    shown: ShownMap,
    options: list[Option],
    table: list[dict[str, object]],
    scored: Scored,
) -> dict[str, Any]:
    explainer, evidence = novelty.explainer, novelty.evidence
    weights = [round(weight, 6) for weight in evidence.weight.tolist()] if evidence else [1.0]
    return {
        "line": line.name,
        "method": explainer.method,
        "explained": explainer.backbone.architecture,
        "exact": explainer.exact,
        "shown": asdict(novelty.shown),
        "map_ridge": shown.learned.ridge if shown.learned else None,
        "judged": [asdict(candidate) for candidate in novelty.judged],
        "weights": weights[: len(novelty.judged)],
        "residuals": novelty.residuals,
        "residual_weights": weights[len(novelty.judged) :],
        "options": [{"option": option.name, **_rounded(option.figures)} for option in options],
        "tuned_on": chosen_by(scored.rows),
        "mirrored": list(scored.mirrored),
        "candidates": [_rounded(row) for row in table],
    }


def _rounded(row: Mapping[str, object]) -> dict[str, object]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    main(run, STAGE)
