"""Settings of one product line; a section per stage, so that DVC sees which stage a change concerns."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

__all__ = [
    "BUNDLED_ARCHITECTURE",
    "BUNDLED_CHECKPOINT",
    "LINE_NAME",
    "BackboneSettings",
    "CalibrateExplainerSettings",
    "EvaluateSettings",
    "ExplainerSettings",
    "LineSettings",
    "MemoryBankSettings",
    "MonitorSettings",
    "RetrainSettings",
    "ScheduleSettings",
    "TuneFusionSettings",
    "ValidateSettings",
]

BUNDLED_ARCHITECTURE = "novad-bcos"
BUNDLED_CHECKPOINT = "src/novad/vision/weights/novad-bcos.safetensors"
# Of the network's input, in pixels; sides are whole steps, larger ones where it goes through in tiles.
SMALLEST_SIDE, LARGEST_SIDE = 32, 4096
SIDE_STEP, TILE_STEP = 8, 32
LINE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"

Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A frozen block of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleSettings(Section):
    """When a line is retrained, or watched. A cron expression alone is short for a mapping with ``cron``.

    A run begins up to ``jitter_seconds`` after its time, each time others, so that the machines of a plant
    with one schedule do not start at once. A schedule that is ``paused`` stays written and starts nothing.
    """

    cron: str
    timezone: str = "UTC"
    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    paused: bool = False

    @model_validator(mode="before")
    @classmethod
    def _cron_alone(cls, told: Any) -> Any:
        return {"cron": told} if isinstance(told, str) else told

    @field_validator("cron")
    @classmethod
    def _comes_round(cls, cron: str) -> str:
        try:
            # Some expressions are well formed and never come round, such as 30 February.
            next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration):
            raise ValueError(f"'{cron}' is not a cron expression (like '0 3 * * 1')") from None
        if len(cron.split()) != 5:
            raise ValueError(f"'{cron}' must have five fields: minute, hour, day, month, weekday")
        return cron

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ValueError, OSError, KeyError):
            raise ValueError(f"'{timezone}' is not a time zone (like 'Europe/Berlin')") from None
        return timezone

    def next_run(self, after: datetime) -> datetime | None:
        """First time after ``after``, which has a zone; None while paused."""
        if self.paused:
            return None
        due: datetime = next(CronSim(self.cron, after.astimezone(ZoneInfo(self.timezone))))
        return due.astimezone(UTC)


class ValidateSettings(Section):
    """Data gate and splits.

    With ``leave_out`` an error that names single images refuses nothing: the line goes on without them, or
    without their masks where only these are wrong, and of one file in train and test the test image goes.
    """

    min_normals: Annotated[int, Field(ge=1)] = 20
    calibration_share: Probability = 0.2
    tuning_share: Probability = 0.3
    allow_mixed_sizes: bool = False
    leave_out: bool = False
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] = 2


class BackboneSettings(Section):
    """A network by architecture and checkpoint file; the digest is checked at every load.

    ``image_size`` is the side of the network's input, or ``WIDTHxHEIGHT`` for images that are no squares. No
    ``layers`` leaves their choice to the memory-bank stage. With a ``tile`` images go through the network
    in parts of so many pixels; 0 takes them whole.
    """

    architecture: str = BUNDLED_ARCHITECTURE
    checkpoint: str = BUNDLED_CHECKPOINT
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    image_size: int | str = 224
    tile: Annotated[int, Field(ge=0, multiple_of=TILE_STEP)] = 0
    layers: tuple[str, ...] = ()

    @field_validator("image_size", mode="before")
    @classmethod
    def _fits_the_network(cls, told: Any) -> int | str:
        sides = _sides(told)
        if any(side % SIDE_STEP or not SMALLEST_SIDE <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(
                f"{told}: sides must be multiples of {SIDE_STEP} from {SMALLEST_SIDE} to {LARGEST_SIDE}"
            )
        width, height = sides
        return width if width == height else f"{width}x{height}"

    @field_validator("tile")
    @classmethod
    def _cuts_the_image(cls, tile: int, told: ValidationInfo) -> int:
        size = told.data.get("image_size", SMALLEST_SIDE)
        sides = _sides(size)
        if tile and (tile > max(sides) or any(side % TILE_STEP for side in sides)):
            raise ValueError(f"must be at most image_size ({size}), and that a multiple of {TILE_STEP}")
        return tile

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width to which images are scaled, in pixels."""
        width, height = _sides(self.image_size)
        return height, width


def _sides(told: Any) -> tuple[int, int]:
    """Width and height, of a number or of ``WIDTHxHEIGHT``."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(told).strip().lower())
    if found is None or isinstance(told, bool):
        raise ValueError(f"{told}: give a side in pixels, like 224, or WIDTHxHEIGHT, like 640x224")
    width, height = found.groups()
    return int(width), int(height or width)


class MemoryBankSettings(Section):
    """Coreset of normal patch features, and the search over it.

    From ``layer_anomalies`` labelled anomalies on, the tuning split has a say in which layers are compared
    (0: never). Features are averaged over squares of ``neighbourhood`` patches, distances smoothed by
    ``smoothing`` patches before the top share is averaged. Without a ``neighbourhood`` it is 3, unless the
    tuning split asks for 1; then distances are not smoothed either. The tuning split can also ask for the
    stem of a B-cos network, which nothing else but ``backbone.layers`` brings in.

    ``whiten`` says how far the ``dimensions`` leading directions of the features are brought to equal
    variance: 0 leaves them as they are, 1 makes all equal, 0.5 takes the square root of each deviation.

    ``exclude_suspicious`` is the share of bank images, those most unlike the others, that is left out:
    none by default, at most half, for the others are taken to be good.
    """

    coreset_share: Share = 0.01
    min_vectors: Annotated[int, Field(ge=1)] = 8000
    max_vectors: Annotated[int, Field(ge=1)] = 20_000
    max_patches: Annotated[int, Field(ge=1000)] = 400_000
    dimensions: Annotated[int, Field(ge=0)] = 64
    whiten: Annotated[float, Field(ge=0, le=1)] = 0.5
    neighbours: Annotated[int, Field(ge=1, le=64)] = 1
    neighbourhood: Literal[1, 3, 5] | None = None
    smoothing: Annotated[float, Field(ge=0)] = 1.0
    top_share: Share = 0.002
    layer_anomalies: Annotated[int, Field(ge=0)] = 8
    exclude_suspicious: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class ExplainerSettings(Section):
    """Which explanation asks for novelty, and of which network."""

    method: Literal[
        "bcos",
        "input_x_gradient",
        "integrated_gradients",
        "guided_backprop",
        "lrp",
        "layer_grad_cam",
        "occlusion",
    ] = "bcos"
    backbone: BackboneSettings


class CalibrateExplainerSettings(Section):
    """Candidates of the explainer calibration; empty lists mean every one the explainer offers.

    The target ``memory`` (what the bank leaves unexplained) is offered only where it is asked for by name.

    From ``evidence_anomalies`` labelled anomalies on, all deviations are weighed instead of one chosen (0:
    never); ``evidence_strength`` is the inverse ridge penalty of that. Evidence also weighs, direction by
    direction, what the memory bank leaves unexplained, unless ``residuals`` is off. It learns from tuning
    images in the mirror, too, while these are few and mirrored normal images look normal, unless
    ``mirrored`` is off.
    """

    targets: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    max_normals: Annotated[int, Field(ge=2)] = 128
    smoothing: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 2.0, 4.0)
    top_shares: tuple[Share, ...] = (0.002, 0.01, 0.05, 0.2)
    evidence_anomalies: Annotated[int, Field(ge=0)] = 8
    evidence_strength: Annotated[float, Field(gt=0)] = 100.0
    residuals: bool = True
    mirrored: bool = True


class TuneFusionSettings(Section):
    """Weight of novelty in the hybrid score, and the thresholds."""

    max_false_positive_rate: Probability = 0.05
    alpha: Probability = 0.05
    review_alpha: Probability = 0.10
    equal_weight_prior: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _review_before_fail(self) -> "TuneFusionSettings":
        if self.review_alpha < self.alpha:
            raise ValueError("review_alpha must be at least alpha: REVIEW lies below FAIL")
        return self


class EvaluateSettings(Section):
    """How much evidence the evaluation keeps."""

    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    heatmaps: Annotated[int, Field(ge=0)] = 24


class RetrainSettings(Section):
    """What a line is trained again for, besides its schedule: nothing, unless it is named.

    Accepted images that the champion has not learned, ``verified_images`` of them; drift of what it sees; an
    approval that is ``champion_days`` old.
    """

    verified_images: Annotated[int, Field(ge=1)] | None = None
    on_drift: bool = False
    champion_days: Annotated[int, Field(ge=1)] | None = None


class MonitorSettings(Section):
    """Watching the decisions of a line that is in service.

    With a ``schedule`` a worker looks by itself, for causes of a retraining too. ``since`` leaves out what
    was decided before: the time when the cause of an alarm was mended. An alarm is posted to ``webhook``,
    where one is named.
    """

    schedule: ScheduleSettings | None = None
    since: datetime | None = None
    webhook: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = None

    @field_validator("since")
    @classmethod
    def _in_utc(cls, since: datetime | None) -> datetime | None:
        if since is None or since.tzinfo is not None:
            return since
        return since.replace(tzinfo=UTC)


class LineSettings(Section):
    """Everything that one product line is trained by."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    data: str
    layout: Literal["mvtec", "visa", "folder"]
    anomaly_type: Literal["sensory", "semantic_near", "semantic_far"] = "sensory"
    schedule: ScheduleSettings | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    validation: ValidateSettings = Field(default_factory=ValidateSettings, alias="validate")
    backbone: BackboneSettings
    memory_bank: MemoryBankSettings = Field(default_factory=MemoryBankSettings)
    explainer: ExplainerSettings
    calibrate_explainer: CalibrateExplainerSettings = Field(default_factory=CalibrateExplainerSettings)
    tune_fusion: TuneFusionSettings = Field(default_factory=TuneFusionSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    monitor: MonitorSettings = Field(default_factory=MonitorSettings)
    retrain: RetrainSettings = Field(default_factory=RetrainSettings)
