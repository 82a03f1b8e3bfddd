"""Evidence and registry in MLflow, and the event log beside them; importing this does not load MLflow."""

from novad.tracking.acceptances import DATA_ACCEPTED, Acceptance, acceptances, verified_since_champion
from novad.tracking.adoption import adopt_key
from novad.tracking.answers import answered_causes, record_answers
from novad.tracking.audit import Checked, Standing, check, decided_lines, parse_time, standing
from novad.tracking.decisions import (
    LoggedDecision,
    decide_now,
    decisions_on,
    find_decision,
    log_decisions,
)
from novad.tracking.digests import output_digest
from novad.tracking.events import Event, champion_event, verify
from novad.tracking.gates import Verdict
from novad.tracking.monitor import Monitored, monitor
from novad.tracking.publications import Publication, publications, published_version
from novad.tracking.publish import Published, close_stale_runs, publish
from novad.tracking.published import PublishedRun
from novad.tracking.registry import gate, history, promote, rollback
from novad.tracking.rejection import reject
from novad.tracking.resolution import ResolvedModel, resolve
from novad.tracking.review import ReviewedDecision, decision_counts, latest_decisions
from novad.tracking.threshold import change_threshold
from novad.tracking.trace import ImageTrace, ModelOrigin, PredictionTrace, trace
from novad.tracking.verdict_table import import_verdicts
from novad.tracking.verdicts import OperatorVerdict, give_verdict, line_verdicts, verdicts_on
from novad.tracking.webhook import post_alarm

__all__ = [
    "DATA_ACCEPTED",
    "Acceptance",
    "Checked",
    "Event",
    "ImageTrace",
    "LoggedDecision",
    "ModelOrigin",
    "Monitored",
    "OperatorVerdict",
    "PredictionTrace",
    "Publication",
    "Published",
    "PublishedRun",
    "ResolvedModel",
    "ReviewedDecision",
    "Standing",
    "Verdict",
    "acceptances",
    "adopt_key",
    "answered_causes",
    "champion_event",
    "change_threshold",
    "check",
    "close_stale_runs",
    "decide_now",
    "decided_lines",
    "decision_counts",
    "decisions_on",
    "find_decision",
    "gate",
    "give_verdict",
    "history",
    "import_verdicts",
    "latest_decisions",
    "line_verdicts",
    "log_decisions",
    "monitor",
    "output_digest",
    "parse_time",
    "post_alarm",
    "promote",
    "publications",
    "publish",
    "published_version",
    "record_answers",
    "reject",
    "resolve",
    "rollback",
    "standing",
    "trace",
    "verdicts_on",
    "verified_since_champion",
    "verify",
]
