"""Prefect flow: judge a version's gates, ask a person by a form, promote or reject it in their name."""

from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from novad.config import Workspace
from novad.errors import RefusedError
from novad.tracking import Event, Verdict, gate, history, promote, reject
from novad.tracking.proposal import Name, Proposal, Reason

POLL_SECONDS = 5


class Answer(RunInput):
    """The form that people fill in."""

    approve: bool = Field(description="Make this version the champion; otherwise it is rejected.")
    approver: Name = Field(pattern=r"\S", description="Who answers for it.")
    reason: Reason = Field(pattern=r"\S", description="Why, in their words.")


@flow(name="novad-promote", persist_result=False)
def ask(root: Path, line: str, version: int, wait_seconds: int = 86_400) -> Event:
    """Promote or reject a version as a person answers; what happened since the form was shown refuses it.

    The flow run pauses: its process stays and waits. Suspending would end it, and only a deployment's worker
    could start it again, which a flow run beside Prefect's embedded server does not have.

    Args:
        root: workspace folder.
        line: product line.
        version: registered version.
        wait_seconds: for how long the form may stay unanswered.
    Returns:
        The promotion or rejection.
    Raises:
        RefusedError: a gate failed, nobody answered, or somebody else decided since the form was shown; the
            refusal is on record.
    """
    workspace = Workspace(root)
    seen = len(history(workspace, line))
    verdicts = gate(workspace, line, version)
    rows = [{name: str(value) for name, value in asdict(verdict).items()} for verdict in verdicts]
    create_table_artifact(rows, key="gates", description=f"Gates of {line} version {version}")
    if failed := [str(verdict) for verdict in verdicts if not verdict.passed]:
        _refuse(workspace, line, version, seen, verdicts, f"is not promoted: {'; '.join(failed)}")
    try:
        answer = pause_flow_run(
            wait_for_input=Answer.with_initial_data(description=_description(line, version, verdicts)),
            timeout=wait_seconds,
            poll_interval=POLL_SECONDS,
        )
    except FlowPauseTimeout:
        _refuse(workspace, line, version, seen, verdicts, f"nobody answered within {wait_seconds} s")
    decide = promote if answer.approve else reject
    return decide(workspace, line, version, answer.approver, answer.reason, seen=seen)


def _description(line: str, version: int, verdicts: list[Verdict]) -> str:
    gates = "\n".join(f"- {verdict}: passed" for verdict in verdicts)
    return f"## {line}: version {version} as champion?\n{gates}\n"


def _refuse(
    workspace: Workspace, line: str, version: int, seen: int, verdicts: list[Verdict], why: str
) -> NoReturn:
    """Record that the flow run, and no person, gave the version up."""
    asked = f"asked for by flow run {flow_run.name}"
    with Proposal(workspace, line, "promotion", version, "flow novad-promote", asked, seen) as proposal:
        proposal.detail["gates"] = [asdict(verdict) for verdict in verdicts]
        raise RefusedError(f"{line} version {version}: {why}")
