"""Everything that novad records, on SQLite and on PostgreSQL, and what several processes do to it at once."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from databases import postgresql_server
from fake_line import make_workspace
from novad.config import Workspace
from novad.errors import IntegrityError, RefusedError
from novad.tracking import (
    check,
    decision_counts,
    decisions_on,
    give_verdict,
    history,
    latest_decisions,
    log_decisions,
    parse_time,
    promote,
    publications,
    publish,
    published_version,
    reject,
    resolve,
    rollback,
    standing,
    verdicts_on,
)
from novad.tracking.events import append
from novad.tracking.resolution import registered_aliases
from novad.tracking.store import open_client
from tracking_fixtures import logged_decision, publish_versions

LINE = "metal"
PROCESSES, TURNS, APPENDED = 8, 25, 5


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Creates a database with MLflow's tables, whose making takes seconds once, and tells its address."""
    with postgresql_server() as address, pytest.MonkeyPatch.context() as patched:
        _create(address, "whole", "template0")
        patched.setenv("MLFLOW_TRACKING_URI", address.format(database="whole"))
        open_client(Workspace(tmp_path_factory.mktemp("whole")))

        def make(name: str) -> str:
            _create(address, name, "whole")
            return address.format(database=name)

        yield make


def _create(address: str, name: str, template: str) -> None:
    engine = create_engine(address.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # A database that somebody is connected to cannot be copied; MLflow keeps its connections.
        ended = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        connection.execute(ended, {"name": template})
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(
    request: pytest.FixtureRequest, own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """Line `metal`, trained, beside an empty database."""
    if request.param == "sqlite":
        made: Workspace = request.getfixturevalue("tracked")
        return made
    make = request.getfixturevalue("postgresql")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make(tmp_path.name))
    return make_workspace(tmp_path, LINE)


@pytest.fixture
def published(stored: Workspace) -> Workspace:
    """Versions 1 and 2, none of them champion."""
    publish_versions(stored, LINE, 2)
    return stored


def test_what_is_published_is_found_decided_and_audited(published: Workspace) -> None:
    first, second = publications(published, LINE)
    assert (first.version, second.version) == (1, 2)
    assert published_version(published, LINE, second.output_digest) == 2
    assert not publish(published, LINE).created
    assert resolve(published, LINE).alias == "challenger"
    promote(published, LINE, 1, "Ann", "first")
    promote(published, LINE, 2, "Ann", "better")
    rollback(published, LINE, "Bob", "worse")
    reject(published, LINE, 2, "Bob", "dents")
    with pytest.raises(RefusedError, match="no champion before it"):
        rollback(published, LINE, "Bob", "worse")
    told = [event.kind for event in history(published, LINE)]
    assert told == ["promotion", "promotion", "rollback", "rejection", "refusal"]
    found = standing(published, LINE)
    assert found.decision is not None
    assert found.model is not None
    assert (found.decision.kind, found.model.version, resolve(published, LINE).version) == ("rollback", 1, 1)
    assert check(published, LINE).problems == ()
    open_client(published).set_registered_model_alias(LINE, "champion", "2")
    assert "alias champion names version 2" in "".join(check(published, LINE).problems)
    assert resolve(published, LINE).version == 1
    assert check(published, LINE).problems == ()


def test_decisions_and_verdicts_are_found_again(stored: Workspace) -> None:
    assert latest_decisions(stored) == []
    one, other = (
        logged_decision(
            prediction_id=f"{n}" * 8 + "-1111-4111-8111-111111111111",
            at=f"2026-01-0{n}T00:00:00.000000+00:00",
            source=f"Prüfling {n} 😀.png",
            hybrid=n / 3,
        )
        for n in (1, 2)
    )
    log_decisions(stored, [one, other])
    assert decisions_on(stored, one.image_sha256) == [one, other]
    given = [
        give_verdict(stored, one, "good", "Ann", "clean"),
        give_verdict(stored, one, "defect", "Bob", "look closer", "scratch"),
    ]
    assert verdicts_on(stored, [one.prediction_id]) == {one.prediction_id: given}
    assert [each.decision for each in latest_decisions(stored)] == [other, one]
    assert [each.decision for each in latest_decisions(stored, verdict="defect")] == [one]
    assert [each.decision for each in latest_decisions(stored, verdict="none")] == [other]
    assert [each.decision for each in latest_decisions(stored, before=other.prediction_id)] == [one]
    assert decision_counts(stored, parse_time("2026-01-02T00:00")) == {LINE: {"PASS": 1}}


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Processes that share nothing with this one and each other, and load MLflow once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "novad.tracking"])
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        yield pool


def _each(workers: ProcessPoolExecutor, job: Callable[..., Any], workspace: Workspace) -> list[Any]:
    """What ``job`` gives in each process, all at once."""
    store = os.environ.get("MLFLOW_TRACKING_URI")
    return [
        future.result(400)
        for future in [workers.submit(job, str(workspace.root), store, each) for each in range(PROCESSES)]
    ]


def _opened(root: str, store: str | None) -> Workspace:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if store is not None:
        os.environ["MLFLOW_TRACKING_URI"] = store
    return Workspace(Path(root))


def _append(root: str, store: str | None, worker: int) -> list[int]:
    workspace = _opened(root, store)
    told = {"actor": f"worker {worker}", "reason": "race"}
    return [append(workspace, LINE, "refusal", **told).sequence for _ in range(APPENDED)]


def test_events_of_several_processes_form_one_chain(stored: Workspace, workers: ProcessPoolExecutor) -> None:
    taken = [sequence for each in _each(workers, _append, stored) for sequence in each]
    assert sorted(taken) == list(range(1, PROCESSES * APPENDED + 1))
    assert [event.sequence for event in history(stored, LINE)] == sorted(taken)
    assert check(stored, LINE).problems == ()


def _decide(root: str, store: str | None, worker: int) -> int:
    """Number of decisions that were made; the others were refused."""
    workspace, made = _opened(root, store), 0
    for turn in range(TURNS):
        signed = (f"worker {worker}", f"turn {turn}")
        try:
            if (worker + turn) % 2:
                rollback(workspace, LINE, *signed)
            else:
                promote(workspace, LINE, 1 + (worker + turn) // 2 % 2, *signed)
            made += 1
        except IntegrityError:
            raise
        except RefusedError:
            continue
    return made


def test_of_decisions_by_several_processes_each_is_made_or_refused_on_record(
    published: Workspace, workers: ProcessPoolExecutor
) -> None:
    promote(published, LINE, 1, "Ann", "first")
    made = sum(_each(workers, _decide, published))
    chain = history(published, LINE)[1:]
    assert len(chain) == PROCESSES * TURNS
    assert len({(event.actor, event.reason) for event in chain}) == len(chain)
    decided = [event for event in chain if event.kind != "refusal"]
    assert len(decided) == made > PROCESSES
    assert check(published, LINE).problems == ()
    alias = registered_aliases(open_client(published), LINE)["champion"]
    assert (resolve(published, LINE).version, alias) == (decided[-1].version, decided[-1].version)
