"""Everything that novad records, on SQLite and on PostgreSQL, and what several processes do to it at once."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from databases import postgresql_server, restart_postgresql
from fake_line import make_workspace, write_outputs
from novad.config import Workspace
from novad.errors import IntegrityError, RefusedError, ServiceError
from novad.tracking import (
    check,
    close_stale_runs,
    decision_counts,
    decisions_on,
    give_verdict,
    history,
    latest_decisions,
    log_decisions,
    output_digest,
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
    verify,
)
from novad.tracking.events import append
from novad.tracking.resolution import registered_aliases
from novad.tracking.store import open_client
from relay import Relay, relay
from state_digest import database_digest, file_digests
from tracking_fixtures import logged_decision, publish_versions

LINE = "metal"
SOCKET = ".s.PGSQL.5432"
PROCESSES, TURNS, APPENDED = 8, 10, 5


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
    # How many are refused, promoting what is champion already, hangs on who comes first.
    assert len(decided) == made > 0
    assert check(published, LINE).problems == ()
    alias = registered_aliases(open_client(published), LINE)["champion"]
    assert (resolve(published, LINE).version, alias) == (decided[-1].version, decided[-1].version)


@pytest.fixture
def relayed(
    postgresql: Callable[[str], str], own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Workspace, Relay]]:
    """Line `metal`, trained, on PostgreSQL behind a network that may fail."""
    address = postgresql(tmp_path.name)
    server = f"{address.partition('host=')[2]}/{SOCKET}"
    # The path of a socket may have a hundred characters, and pytest's folders have as many.
    with TemporaryDirectory(prefix="novad-pg-") as folder, relay(server, f"{folder}/{SOCKET}") as between:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://novad@/{tmp_path.name}?host={folder}")
        yield make_workspace(tmp_path, LINE), between


def test_a_decision_is_made_once_or_not_at_all_whichever_commit_is_cut_off(
    relayed: tuple[Workspace, Relay],
) -> None:
    workspace, between = relayed
    publish(workspace, LINE)
    cut_off = 0
    while True:
        before, known = database_digest(os.environ["MLFLOW_TRACKING_URI"]), len(history(workspace, LINE))
        between.fail(b"COMMIT", "answer lost", skip=cut_off)
        try:
            promote(workspace, LINE, 1, "Ann", f"attempt {cut_off}")
            made = True
        except ServiceError as error:
            made = "version 1 is champion" in str(error)
        struck = between.struck
        between.work()
        assert len(history(workspace, LINE)) == known + made
        assert verify(workspace) == []
        if not made:
            assert database_digest(os.environ["MLFLOW_TRACKING_URI"]) == before
        if not struck:
            break
        cut_off += 1
    assert cut_off > 10
    assert check(workspace, LINE).problems == ()


@pytest.mark.parametrize(
    "statement",
    [
        b"INSERT INTO runs",
        b"INSERT INTO logged_models",
        b"INSERT INTO registered_models",
        b"INSERT INTO model_versions",
        b"INSERT INTO novad_publications",
    ],
)
def test_a_result_is_published_once_whichever_commit_is_cut_off(
    relayed: tuple[Workspace, Relay], statement: bytes
) -> None:
    workspace, between = relayed
    outputs = file_digests(workspace.root, "artifacts")
    between.fail(b"COMMIT", "answer lost", after=statement)
    with pytest.raises(ServiceError):
        publish(workspace, LINE)
    assert between.struck
    between.work()
    assert published_version(workspace, LINE, output_digest(workspace, LINE)) in (None, 1)
    assert publish(workspace, LINE).version == 1
    assert [each.version for each in publications(workspace, LINE)] == [1]
    assert len(open_client(workspace).search_model_versions(f"name = '{LINE}'")) == 1
    assert close_stale_runs(workspace, LINE) == []
    assert check(workspace, LINE).problems == ()
    assert file_digests(workspace.root, "artifacts") == outputs


def test_one_process_goes_on_when_its_database_was_restarted(
    postgresql: Callable[[str], str], own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = postgresql(tmp_path.name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    workspace = make_workspace(tmp_path, LINE)
    publish(workspace, LINE)
    log_decisions(workspace, [logged_decision(prediction_id="before")])
    whole = database_digest(address)
    restart_postgresql(address)
    assert database_digest(address) == whole
    log_decisions(workspace, [logged_decision(prediction_id="after")])
    promote(workspace, LINE, 1, "Ann", "first")
    restart_postgresql(address)
    assert resolve(workspace, LINE).version == 1
    write_outputs(workspace, LINE, seed=1)
    assert publish(workspace, LINE).version == 2
    assert {each.decision.prediction_id for each in latest_decisions(workspace)} == {"before", "after"}
    assert check(workspace, LINE).problems == ()


def test_an_event_whose_fate_is_unknown_is_told_so(relayed: tuple[Workspace, Relay]) -> None:
    workspace, between = relayed
    between.fail(b"COMMIT", "answer lost and gone", after=b"INSERT INTO novad_event_heads")
    with pytest.raises(ServiceError, match="whether the refusal was recorded is not known: `novad history"):
        append(workspace, LINE, "refusal", actor="Ann", reason="a dent")
