"""The promotion gates: a declarative policy, judged against the evidence of one version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from novad.config import Workspace
from novad.config.yaml_file import read_yaml
from novad.errors import ConfigError

__all__ = [
    "GATES",
    "NOT_WORSE",
    "BesideChampion",
    "Evidence",
    "Policy",
    "Verdict",
    "judge",
    "line_policy",
    "load_policy",
]

Policy = Mapping[str, Mapping[str, Any]]
NOT_WORSE = "not_worse_than_champion"
_MUST_MAP = "must map gates to their limits"


@dataclass(frozen=True)
class BesideChampion:
    """Hybrid AUROC less the champion's, both on the test images that both judged."""

    version: int
    """The champion."""
    images: int
    difference: float | None
    """None where they have no image of both classes in common."""
    interval: Sequence[float] | None
    """Paired bootstrap, 95 %."""

    def __str__(self) -> str:
        on = f"version {self.version} on {self.images} test images"
        if self.difference is None or self.interval is None:
            return f"nothing to compare with {on}"
        low, high = self.interval
        return f"{self.difference:+.3f} ({low:+.3f} to {high:+.3f}) beside {on}"


@dataclass(frozen=True)
class Evidence:
    """What is known about a version, read back from the registry and not from the working folder."""

    metrics: Mapping[str, Any]
    """Its ``metrics.json``; empty when that is damaged."""
    report: Mapping[str, Any]
    """Its data report; empty when that is damaged."""
    damaged: tuple[str, ...]
    """One sentence per file or digest that is not what was published."""
    champion: BesideChampion | str | None = None
    """Beside the champion; why that cannot be told; or None where there is no other."""


@dataclass(frozen=True)
class Verdict:
    """Answer of one gate."""

    gate: str
    measured: Any
    limit: Any
    passed: bool

    def __str__(self) -> str:
        return f"{self.gate}: measured {self.measured}, limit {self.limit}"


def load_policy(path: Path, line: str) -> Policy:
    """Gates and their limits for ``line``: the defaults of the file with the line's own values over them.

    Raises:
        ConfigError: names the file and the key that is wrong; a misspelt gate is never ignored.
    """
    try:
        document = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; without gates nothing is promoted") from None
    if not isinstance(document, dict) or not isinstance(document.get("default"), dict):
        raise ConfigError(f"{path}: default: {_MUST_MAP}")
    unknown = set(document) - {"default", "lines"}
    if unknown:
        raise ConfigError(f"{path}: {min(map(str, unknown))}: unknown key (known: default, lines)")
    policy = {
        gate: _limits(path, f"default.{gate}", gate, given) for gate, given in document["default"].items()
    }
    lines = _mapping(path, "lines", document.get("lines"), "must map line names to gates")
    for gate, given in _mapping(path, f"lines.{line}", lines.get(line), _MUST_MAP).items():
        key = f"lines.{line}.{gate}"
        # YAML 1.1 readers take `off` as false, newer ones as text.
        if given is False or given == "off":
            _limits(path, key, gate, {})
            policy.pop(gate, None)
        else:
            policy[gate] = {**policy.get(gate, {}), **_limits(path, key, gate, given)}
    if not policy:
        raise ConfigError(f"{path}: default: holds no gate; without gates nothing is promoted")
    return policy


def line_policy(workspace: Workspace, line: str) -> Policy:
    """The gates of ``line`` by the workspace's own policy; see ``load_policy``."""
    return load_policy(workspace.path("mlflow/gates.yaml"), line)


def judge(policy: Policy, evidence: Evidence) -> list[Verdict]:
    """The verdict of every gate of ``policy``, in its order."""
    return [GATES[gate].judge(limits, evidence) for gate, limits in policy.items()]


def _mapping(path: Path, key: str, given: Any, must: str) -> dict[Any, Any]:
    """``given``, or an empty mapping where nothing is written; ``false`` or ``off`` is something."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: {key}: {must}")
    return given


def _limits(path: Path, key: str, gate: str, given: object) -> dict[str, Any]:
    if gate not in GATES:
        raise ConfigError(f"{path}: {key}: no such gate (known: {', '.join(sorted(GATES))})")
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: {key}: must map limits to numbers")
    for name, value in given.items():
        if name not in GATES[gate].limits:
            known = ", ".join(GATES[gate].limits) or "none"
            raise ConfigError(f"{path}: {key}.{name}: unknown limit (known: {known})")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{path}: {key}.{name}: must be a number")
    return given


def _data_gate(limits: Mapping[str, Any], evidence: Evidence) -> Verdict:
    limit = limits.get("max_errors", 0)
    errors = evidence.report.get("errors")
    measured = len(errors) if isinstance(errors, list) else None
    return Verdict(
        "data_gate", measured, f"at most {limit} errors", measured is not None and measured <= limit
    )


def _digests(_limits: Mapping[str, Any], evidence: Evidence) -> Verdict:
    measured = "; ".join(evidence.damaged) or "all match"
    return Verdict("digests", measured, "all match", not evidence.damaged)


def _sample_counts(limits: Mapping[str, Any], evidence: Evidence) -> Verdict:
    counts = evidence.metrics.get("counts") or {}
    measured = {name: counts.get(name) for name in limits}
    passed = all(_number(count) and count >= limits[name] for name, count in measured.items())
    return Verdict("sample_counts", measured, dict(limits), passed)


def _hybrid_auroc(limits: Mapping[str, Any], evidence: Evidence) -> Verdict:
    scores = evidence.metrics.get("scores") or {}
    measured = (scores.get("hybrid") or {}).get("image_auroc")
    limit = limits.get("min", 0.5)
    passed = _number(measured) and measured >= limit
    return Verdict("hybrid_auroc", measured, f"at least {limit}", passed)


def _not_worse(limits: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """Refuses what is surely worse: chance alone must not keep a version from serving."""
    margin, beside = limits.get("margin", 0.0), evidence.champion
    limit = f"hybrid AUROC not surely lower by more than {margin}"
    if not isinstance(beside, BesideChampion):
        return Verdict(NOT_WORSE, beside or "no other champion", limit, beside is None)
    return Verdict(NOT_WORSE, str(beside), limit, beside.interval is None or beside.interval[1] >= -margin)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Gate:
    judge: Callable[[Mapping[str, Any], Evidence], Verdict]
    limits: tuple[str, ...]


GATES: dict[str, _Gate] = {
    "data_gate": _Gate(_data_gate, ("max_errors",)),
    "digests": _Gate(_digests, ()),
    "sample_counts": _Gate(
        _sample_counts, ("train", "calibration", "tuning", "test_normal", "test_anomalous")
    ),
    "hybrid_auroc": _Gate(_hybrid_auroc, ("min",)),
    NOT_WORSE: _Gate(_not_worse, ("margin",)),
}
