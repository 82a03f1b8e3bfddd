"""The report as one HTML page that needs nothing but itself."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from math import ceil, floor
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import novad
from novad.evaluation.rates import Rate
from novad.report.comparison import beside
from novad.report.histogram import histogram
from novad.report.pictures import findings, groups, plot, suspicious
from novad.report.rates import decided, defect_types, outcome
from novad.report.subject import Subject, fresh_subject
from novad.report.verdict import answer
from novad.tracking import PublishedRun
from novad.tracking.lineage import git_state
from novad.tracking.trace import model_origin

__all__ = ["fresh_page", "render"]


def fresh_page(run: PublishedRun) -> str:
    """The page of a version that is being published, for its run to keep."""
    return render(fresh_subject(run))


def render(subject: Subject) -> str:
    """The page of a version.

    Everything that came from data is escaped by the template; the content policy allows the one style sheet
    by its digest and pictures within the page, and nothing else.

    Raises:
        IntegrityError: a file of the evidence is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    style = (files(__package__) / "report.css").read_text("utf-8")
    scores = decided(subject.scores, subject.thresholds)
    return _environment().get_template("report.html.j2").render(
        subject=subject,
        line=subject.run.line,
        version=subject.run.version,
        metrics=subject.metrics,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        novad=novad.__version__,
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        verdict=answer(subject),
        good=outcome("good", scores[scores["label"] == 0]),
        defective=outcome("defective", scores[scores["label"] == 1]),
        types=defect_types(scores),
        findings=findings(subject.run, subject.evidence.report),
        suspicious=suspicious(subject.run),
        histogram=histogram(scores, {name: subject.thresholds[name] for name in ("review", "fail")}),
        plots={name: plot(subject.run, f"{name}.png") for name in ("roc", "false_negatives")},
        groups=groups(subject.run, scores),
        other=beside(subject),
        lineage=_lineage(subject.run),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("novad.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure, "moment": _moment, "per_thousand": _per_thousand, "signed": _signed,
        "measured": _measured,
    }  # fmt: skip
    return environment


def _lineage(run: PublishedRun) -> dict[str, str]:
    """What the version was made from; of one that is being published, what is known so far."""
    known = {"Data": f"sha256 {run.digests['validate/manifest.parquet']} of the list of all images"}
    if run.version is None:
        git = git_state(run.workspace)
        return {**known, "Code": _code(git.commit or "none", git.dirty)}
    origin = model_origin(run.workspace, run.line, run.version)
    return {
        **known,
        "Code": _code(origin.git_commit, origin.git_dirty == "true"),
        "MLflow run": origin.run_id,
        "Detector": f"sha256 {origin.detector_digest}",
        "Model": f"sha256 {origin.model_digest}",
        "Results": f"sha256 {origin.output_digest}",
    }


def _code(commit: str, dirty: bool | None) -> str:
    return f"commit {commit}{' with local changes' if dirty else ''}"


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "not defined" if value is None else f"{value:+.3f}"


def _per_thousand(rate: Rate) -> str:
    """Of 1,000 parts, with the interval rounded outwards."""
    low, high = rate.ci95
    return f"{1000 * rate.share:.0f} ({floor(1000 * low)} to {ceil(1000 * high)})"


def _moment(at: str) -> str:
    return f"{at[:10]} {at[11:16]} UTC"


def _measured(value: Any) -> str:
    """What a gate measured, or its limit."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {each}" for name, each in value.items())
    return "nothing" if value is None else str(value)
