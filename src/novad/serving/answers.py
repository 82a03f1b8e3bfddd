"""Shapes of the service's answers, as its OpenAPI document shows them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from novad.serving.champions import LineState
from novad.serving.scoring import Judged
from novad.tracking.model import OUTPUT_COLUMNS

__all__ = [
    "ErrorAnswer",
    "LineAnswer",
    "LinesAnswer",
    "ScoreAnswer",
    "content",
    "line_answer",
    "score_answer",
    "table",
]

_DIGEST = "3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed"
_PREDICTION = "7d0f9d3e-6f0c-4f51-9f57-0d5f0a1b2c3d"


class Nearest(BaseModel):
    """The normal image of training that has the patch nearest to the least familiar one."""

    image: str = Field(examples=["train/good/017.png"])
    sha256: str = Field(examples=[_DIGEST])
    distance: float = Field(examples=[3.2])


class Result(BaseModel):
    """What the champion says about one image."""

    index: int = Field(description="Position of the image in the request.", examples=[0])
    prediction_id: str = Field(description="For `novad trace`.", examples=[_PREDICTION])
    sha256: str = Field(description="Of the image file.", examples=[_DIGEST])
    decision: str = Field(description="PASS, REVIEW or FAIL.", examples=["PASS"])
    familiarity: float = Field(examples=[0.4])
    novelty: float = Field(examples=[-0.1])
    hybrid: float = Field(examples=[0.3])
    p_value: float = Field(
        description="Share of the good parts that set the threshold at least as anomalous.", examples=[0.31]
    )
    nearest: Nearest
    heatmap: str | None = Field(None, description="PNG as base64, when the query asked for a heatmap.")


class ScoreAnswer(BaseModel):
    """Decisions on the images of one request, in order, all by the one version named."""

    line: str = Field(examples=["pv-mono"])
    version: int = Field(examples=[3])
    digest: str = Field(description="Of the detector.", examples=[_DIGEST])
    results: list[Result]


class LineAnswer(BaseModel):
    """A line that was ever decided on."""

    line: str = Field(examples=["pv-mono"])
    version: int | None = Field(description="Champion in service; none when it has none.", examples=[3])
    digest: str | None = Field(examples=[_DIGEST])
    approver: str | None = Field(examples=["M. Ito"])
    replayed: int | None = Field(
        description="Golden images that the champion scored as recorded before it went into service; "
        "0 when its test images are gone or changed, so that nothing was compared.",
        examples=[4],
    )
    shadow_version: int | None = Field(description="Scores silently too.", examples=[4])
    problem: str | None = Field(description="Why the newest decision could not be followed.", examples=[None])


class LinesAnswer(BaseModel):
    """All lines."""

    lines: list[LineAnswer]


class Problem(BaseModel):
    """Why a request was not answered."""

    model_config = ConfigDict(json_schema_extra={"example": {"code": "image_refused", "image": 2}})

    code: str = Field(description="Stable, for machines.")
    message: str
    image: int | None = Field(None, description="Index of the image that it is about.")


class ErrorAnswer(BaseModel):
    """Every answer that is not 200."""

    error: Problem


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Of a good answer that is no JSON, for the OpenAPI document; errors are JSON all the same."""
    return {200: {"content": {media_type: {}}}}


def score_answer(judged: Judged) -> ScoreAnswer:
    """The answer to a score request."""
    results = [
        Result(
            index=index,
            prediction_id=each.prediction_id,
            sha256=each.image_sha256,
            decision=each.decision,
            familiarity=each.familiarity,
            novelty=each.novelty,
            hybrid=each.hybrid,
            p_value=each.p_value,
            nearest=Nearest(image=each.nearest_image, sha256=each.nearest_sha256, distance=distance),
            heatmap=heatmap,
        )
        for index, (each, distance, heatmap) in enumerate(
            zip(judged.decisions, judged.nearest_distances, judged.heatmaps, strict=True)
        )
    ]
    model = judged.model
    return ScoreAnswer(line=model.line, version=model.version, digest=model.digest, results=results)


def table(judged: Judged) -> dict[str, list[dict[str, Any]]]:
    """The answer in MLflow's form: the columns of the registered model, with version and prediction id."""
    rows = []
    for each, distance in zip(judged.decisions, judged.nearest_distances, strict=True):
        known = {"nearest_distance": distance, "digest": each.detector_digest}
        row = {name: known[name] if name in known else getattr(each, name) for name in OUTPUT_COLUMNS}
        rows.append({**row, "version": each.version, "prediction_id": each.prediction_id})
    return {"predictions": rows}


def line_answer(line: str, state: LineState) -> LineAnswer:
    """One line of the list."""
    champion, challenger = state.champion, state.challenger
    return LineAnswer(
        line=line,
        version=champion.version if champion else None,
        digest=champion.digest if champion else None,
        approver=champion.approver if champion else None,
        replayed=champion.replayed if champion else None,
        shadow_version=challenger.version if challenger else None,
        problem=state.problem,
    )
