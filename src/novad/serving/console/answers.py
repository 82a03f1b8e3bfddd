"""Shapes of what the console reads, as the service's OpenAPI document shows them."""

from typing import Any

from pydantic import BaseModel, Field

from novad.tracking import Event, LoggedDecision, OperatorVerdict, Verdict
from novad.tracking.review import VersionStanding

__all__ = [
    "ChampionAnswer",
    "Comparison",
    "DecisionAnswer",
    "DecisionsAnswer",
    "Difference",
    "DriftAnswer",
    "LineReview",
    "NearestView",
    "ReviewAnswer",
    "TestScores",
    "VersionAnswer",
    "VersionEvidence",
    "View",
]


class ChampionAnswer(BaseModel):
    """Who judges a line by the event log, and by whose word."""

    version: int
    approver: str
    reason: str
    kind: str = Field(description="`promotion` or `rollback`.")
    at: str


class VersionAnswer(BaseModel):
    """A registered version."""

    version: int
    published_at: str
    standing: VersionStanding


class DriftAnswer(BaseModel):
    """What monitoring says of a line."""

    verdict: str
    drifted: tuple[str, ...] = Field(description="Figures that an alarm is about.")
    since: str | None


class LineReview(BaseModel):
    """Where a line stands."""

    line: str
    champion: ChampionAnswer | None
    in_service: int | None = Field(description="The version that this service has loaded.")
    problem: str | None = Field(description="Why the newest decision could not be followed.")
    challenger: int | None = Field(description="The newest version after the champion, not decided on.")
    former: int | None = Field(description="The champion that a rollback would bring back.")
    versions: list[VersionAnswer]
    seen: int = Field(description="Newest event of the line; a decision that is based on it names it.")
    decisions: dict[str, int] = Field(description="Of the last 24 hours, by PASS, REVIEW and FAIL.")
    drift: DriftAnswer | None = Field(description="At the last look; none before the first.")


class ReviewAnswer(BaseModel):
    """All lines, and what the key may do."""

    role: str
    lines: list[LineReview]
    log_problems: list[str] = Field(description="What is wrong with the event log; empty when it is intact.")


class TestScores(BaseModel):
    """The test split as a version judged it, column by column."""

    path: list[str]
    sha256: list[str]
    label: list[int]
    defect_type: list[str]
    familiarity: list[float]
    novelty: list[float]
    hybrid: list[float]
    decision: list[str]


class VersionEvidence(BaseModel):
    """What is known about a version, every file checked against its published digest."""

    line: str
    version: int
    published_at: str
    run_id: str
    metrics: dict[str, Any] = Field(description="Its `metrics.json`.")
    thresholds: dict[str, Any] = Field(description="Per score, and of the decision.")
    gates: list[Verdict]
    test: TestScores
    heatmaps: dict[str, str] = Field(description="Names of logged heatmaps by the image's sha256.")


class Difference(BaseModel):
    """Of one figure between two versions."""

    value: float | None
    ci95: list[float] | None
    p_value: float | None = Field(description="Two-sided, of no difference.")


class Comparison(BaseModel):
    """The right version less the left one, on the test images that both were judged on."""

    line: str
    left: int
    right: int
    images: int
    differences: dict[str, Difference] = Field(description="`auroc`, `fnr_at_fpr_05`, `fnr_at_fpr_01`.")


class DecisionAnswer(BaseModel):
    """A logged decision and the newest verdict on it."""

    decision: LoggedDecision
    verdict: OperatorVerdict | None


class DecisionsAnswer(BaseModel):
    """Decisions, the newest first."""

    decisions: list[DecisionAnswer]
    before: str | None = Field(description="Goes on from here; none at the end.")


class HistoryAnswer(BaseModel):
    """Every event of a line, oldest first."""

    events: list[Event]


class NearestView(BaseModel):
    """The normal patch nearest to the image's least familiar one."""

    image: str
    sha256: str
    distance: float
    patch: str = Field(description="The least familiar patch of the judged image; PNG in base64.")
    normal: str | None = Field(description="The nearest normal one; none when its image is not at hand.")


class View(BaseModel):
    """An image as a version sees it, judged again on request; pictures are PNG in base64."""

    line: str
    version: int
    sha256: str
    width: int
    height: int
    familiarity: float
    novelty: float
    hybrid: float
    image: str
    maps: dict[str, str] = Field(description="Familiarity, novelty and hybrid, on the version's fixed scale.")
    nearest: NearestView
