"""Figures of a running service, for Prometheus."""

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from novad.serving.champions import LineState
from novad.tracking import LoggedDecision, Monitored

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one service; labels come from what the service knows, never from what was sent."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("novad_requests", "Answers.", ("route", "status"), registry=registry)
        self._seconds = Histogram(
            "novad_request_seconds", "Time to answer.", ("route",), registry=registry, buckets=_SECONDS
        )
        self._decisions = Counter(
            "novad_decisions", "Logged.", ("line", "version", "decision", "shadow"), registry=registry
        )
        self._latency = Histogram(
            "novad_decision_seconds", "From request.", ("line",), registry=registry, buckets=_SECONDS
        )
        self._queued = Gauge("novad_queued_images", "Images that wait.", registry=registry)
        self._champion = Gauge("novad_champion_version", "In service.", ("line",), registry=registry)
        self._problem = Gauge(
            "novad_line_problem", "1: a decision cannot be followed.", ("line",), registry=registry
        )

        self._evidence = Gauge(
            "novad_drift_evidence", "Alarm from 100 on.", ("line", "figure"), registry=registry
        )
        self._drift = Gauge(
            "novad_drift_alarm", "1: parts are not what they were.", ("line",), registry=registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def decided(self, decisions: Sequence[LoggedDecision]) -> None:
        """Count decisions."""
        for each in decisions:
            shadow = str(each.shadow).lower()
            self._decisions.labels(each.line, str(each.version), each.decision, shadow).inc()
            if not each.shadow:
                self._latency.labels(each.line).observe(each.latency_ms / 1000)

    def text(self, states: Mapping[str, LineState], queued: int, drift: Mapping[str, Monitored]) -> bytes:
        """Everything in Prometheus' text format, with the present state of lines and queue."""
        self._queued.set(queued)
        for line, state in states.items():
            self._champion.labels(line).set(state.champion.version if state.champion else 0)
            self._problem.labels(line).set(state.problem is not None)
        self._evidence.clear()
        self._drift.clear()
        for line, report in drift.items():
            self._drift.labels(line).set(report.alarmed)
            self._evidence.labels(line, "all").set(report.evidence)
            for stream in report.streams:
                self._evidence.labels(line, stream.name).set(stream.evidence)
        return generate_latest(self._registry)
