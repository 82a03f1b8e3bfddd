"""Another decision threshold for the champion, without another training."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from novad.config import Workspace
from novad.errors import ConfigError, RefusedError
from novad.tracking.events import Event, head
from novad.tracking.proposal import Proposal, signature
from novad.tracking.resolution import resolve

if TYPE_CHECKING:
    from novad.vision import Detector, Thresholds

__all__ = ["change_threshold"]


def change_threshold(
    workspace: Workspace,
    line: str,
    approver: str,
    reason: str,
    *,
    alpha: float | None = None,
    value: float | None = None,
) -> Event:
    """Let the champion decide by another threshold until the next promotion or rollback.

    REVIEW begins where the version's own begins, but never above FAIL.

    Args:
        alpha: false-alarm rate; the threshold follows from the good parts that set the version's own.
        value: the threshold itself, in units of the hybrid score.
        approver: the person who answers for it.
        reason: why, in their words.
    Raises:
        ConfigError: not exactly one of ``alpha`` and ``value``, one that cannot be, no approver or no reason.
        RefusedError: no champion, too few good parts for ``alpha``, or somebody else decided first.
        IntegrityError: the event log, the alias or a file of the model was changed.
        ServiceError: the store cannot be reached.
    """
    approver, reason = signature(approver, reason)
    if (alpha is None) == (value is None):
        raise ConfigError("--alpha, --value: give one of them")
    base = head(workspace, line)
    model = resolve(workspace, line)
    with Proposal(workspace, line, "threshold", model.version, approver, reason, base) as proposal:
        proposal.detail["given"] = f"--alpha {alpha}" if value is None else f"--value {value}"
        if model.approver is None:
            raise RefusedError(f"{line} has no champion whose threshold could change; promote one first")
        own = replace(model, threshold=None).load()
        before = _told(own.thresholds) if model.threshold is None else model.threshold.detail
        fail, promised = _by_alpha(own, alpha or 0.0) if value is None else _by_value(own, value)
        proposal.detail.update(
            fail=fail,
            review=min(own.thresholds.review, fail),
            alpha=promised,
            before={name: before[name] for name in ("fail", "review", "alpha")},
        )
        return proposal.decide()


def _by_value(detector: "Detector", value: float) -> tuple[float, float]:
    """The threshold, and the false-alarm rate that good parts promise for it."""
    if not math.isfinite(value):
        raise ConfigError(f"--value: must be a finite number, got {value}")
    above = int((detector.fusion.normal_scores > value).sum())
    return value, (above + 1) / (len(detector.fusion.normal_scores) + 1)


def _by_alpha(detector: "Detector", alpha: float) -> tuple[float, float]:
    from novad.vision.calibration import conformal_threshold, promised_alpha

    normal = detector.fusion.normal_scores
    if not 0 < alpha < 1:
        raise ConfigError(f"--alpha: must lie between 0 and 1, got {alpha}")
    least = promised_alpha(len(normal), alpha)
    if least > alpha:
        raise RefusedError(
            f"--alpha: {len(normal)} good parts promise a false-alarm rate of {least:.4g} at best"
        )
    return conformal_threshold(normal, alpha), alpha


def _told(thresholds: "Thresholds") -> dict[str, float]:
    return {"fail": thresholds.fail, "review": thresholds.review, "alpha": thresholds.alpha}
