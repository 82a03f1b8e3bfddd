"""Who is champion: gates, names and reasons, digests, and what happens when somebody goes around them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from sqlalchemy import update

from fake_line import fake_scores, write_outputs
from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError, ServiceError
from novad.pipeline.accepting import accept_verified
from novad.tracking import (
    ResolvedModel,
    change_threshold,
    check,
    gate,
    history,
    promote,
    publish,
    registry,
    reject,
    resolve,
    rollback,
)
from novad.tracking.database import EVENTS, writing
from novad.tracking.evidence import run_folder
from novad.tracking.gates import GATES, NOT_WORSE, BesideChampion, Evidence, Verdict, judge, load_policy
from novad.tracking.store import locate, open_client
from novad.tracking.verdicts import verdict_now
from tracking_fixtures import logged_decision


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    """Line `metal` with versions 1 and 2."""
    return with_versions(2)


def test_without_a_champion_the_challenger_is_used_and_flagged(published: Workspace) -> None:
    found = resolve(published, "metal")
    assert (found.version, found.alias, found.approver) == (2, "challenger", None)
    assert found.warning is not None
    assert "nobody approved" in found.warning
    assert (found.folder / "detector.json").is_file()


def test_the_champion_stays_when_a_newer_challenger_arrives(published: Workspace) -> None:
    event = promote(published, "metal", 1, "Ann", "steady on the pilot batch")
    assert (event.kind, event.version, event.actor, event.reason) == (
        "promotion",
        1,
        "Ann",
        "steady on the pilot batch",
    )
    found = resolve(published, "metal")
    assert (found.version, found.alias, found.approver, found.warning) == (1, "champion", "Ann", None)
    assert open_client(published).get_model_version_by_alias("metal", "champion").version in (1, "1")


def test_a_version_can_be_asked_for_by_number(published: Workspace) -> None:
    promote(published, "metal", 2, "Ann", "better")
    found = resolve(published, "metal", version=1)
    assert (found.version, found.alias, found.approver) == (1, None, None)


def test_unknown_versions_and_lines_are_wrong_use(published: Workspace) -> None:
    with pytest.raises(ConfigError, match="version 9"):
        resolve(published, "metal", version=9)
    with pytest.raises(ConfigError, match="version 9"):
        promote(published, "metal", 9, "Ann", "why not")
    with pytest.raises(ConfigError, match="novad train wood"):
        resolve(published, "wood")


@pytest.mark.parametrize(("approver", "reason"), [("", "r"), ("  ", "r"), ("Ann", ""), ("Ann", "\t")])
def test_a_promotion_needs_a_name_and_a_reason(published: Workspace, approver: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        promote(published, "metal", 1, approver, reason)
    assert history(published, "metal") == []


@pytest.mark.parametrize(
    ("approver", "reason", "told"),
    [
        ("M. Ito\n9 promotion Boss \x1b[2J", "r", "--approver: holds characters"),
        ("A" * 101, "r", "--approver: String should have at most 100"),
        ("Ann", "r" * 1001, "--reason: String should have at most 1000"),
        ("Ann", "r\udcff", "--reason: "),
    ],
)
def test_a_signature_is_short_and_legible_whichever_way_it_comes(
    published: Workspace, approver: str, reason: str, told: str
) -> None:
    for decide in (
        lambda: promote(published, "metal", 1, approver, reason),
        lambda: rollback(published, "metal", approver, reason),
        lambda: reject(published, "metal", 1, approver, reason),
        lambda: change_threshold(published, "metal", approver, reason, alpha=0.1),
        lambda: accept_verified(published, "metal", approver, reason),
        lambda: verdict_now(logged_decision(), "good", approver, reason),
    ):
        with pytest.raises(ConfigError, match=re.escape(told)):
            decide()
    assert history(published, "metal") == []
    event = promote(published, "metal", 1, " Ann ", " r ")
    assert (event.actor, event.reason) == ("Ann", "r")


@pytest.mark.parametrize("number", [0, 2**31, 10**20])
def test_a_number_that_no_version_can_have_is_wrong_use(published: Workspace, number: int) -> None:
    for ask in (
        lambda: resolve(published, "metal", number),
        lambda: promote(published, "metal", number, "Ann", "r"),
        lambda: rollback(published, "metal", "Ann", "r", to=number),
        lambda: reject(published, "metal", number, "Ann", "r"),
    ):
        with pytest.raises(ConfigError, match=f"version {number} is not registered"):
            ask()
    assert history(published, "metal") == []


def test_a_refusal_names_each_failed_gate_and_is_remembered(published: Workspace) -> None:
    (published.root / "mlflow").unlink()
    (published.root / "mlflow").mkdir()
    (published.root / "mlflow" / "gates.yaml").write_text(
        "default: {data_gate: {}, sample_counts: {train: 1000}, hybrid_auroc: {min: 0.99}}\n"
    )
    with pytest.raises(RefusedError, match=r"sample_counts.*1000.*hybrid_auroc.*0\.99") as caught:
        promote(published, "metal", 1, "Ann", "hurry")
    assert "data_gate" not in str(caught.value)
    (event,) = history(published, "metal")
    assert (event.kind, event.version, event.actor) == ("refusal", 1, "Ann")
    assert [verdict["passed"] for verdict in event.detail["gates"]] == [True, False, False]
    assert resolve(published, "metal").alias == "challenger"


def _publish_worse(workspace: Workspace, by: float) -> int:
    """A version whose scores of defects are lower by so much than those of the champion."""
    write_outputs(workspace, "metal", seed=7)
    path, scores = workspace.artifacts("metal", "evaluate") / "scores.parquet", fake_scores(0)
    scores.loc[scores["label"] == 1, "hybrid"] -= by
    scores.to_parquet(path)
    return publish(workspace, "metal").version


@pytest.mark.parametrize(("by", "passes"), [(0.0, True), (2.5, False)])
def test_a_version_that_is_surely_worse_than_the_champion_is_refused(
    published: Workspace, by: float, passes: bool
) -> None:
    promote(published, "metal", 1, "Ann", "first")
    version = _publish_worse(published, by)
    (verdict,) = (each for each in gate(published, "metal", version) if each.gate == NOT_WORSE)
    assert verdict.passed is passes
    assert "beside version 1 on 70 test images" in verdict.measured
    if passes:
        promote(published, "metal", version, "Ann", "no worse")
        return
    with pytest.raises(RefusedError, match="not_worse_than_champion: measured -0"):
        promote(published, "metal", version, "Ann", "hope")
    assert resolve(published, "metal").version == 1


def test_the_champion_and_a_first_version_are_compared_with_nothing(published: Workspace) -> None:
    assert gate(published, "metal", 2)[-1].measured == "no other champion"
    promote(published, "metal", 2, "Ann", "first")
    assert gate(published, "metal", 2)[-1] == Verdict(
        "not_worse_than_champion", "no other champion", "hybrid AUROC not surely lower by more than 0.0", True
    )


def test_a_champion_whose_scores_were_changed_lets_nothing_pass_beside_it(published: Workspace) -> None:
    promote(published, "metal", 1, "Ann", "first")
    folder = run_folder(published, open_client(published), resolve(published, "metal").run_id)
    fake_scores(9).to_parquet(folder / "evaluate/scores.parquet")
    verdict = gate(published, "metal", 2)[-1]
    assert not verdict.passed
    assert "evaluate/scores.parquet" in verdict.measured


def test_a_margin_lets_a_version_be_so_much_worse() -> None:
    verdicts = [judge({NOT_WORSE: {"margin": each}}, BAD)[0] for each in (0.0, 0.03)]
    assert [each.passed for each in verdicts] == [False, True]
    nothing = Evidence({}, {}, (), BesideChampion(1, 0, None, None))
    assert judge({NOT_WORSE: {}}, nothing)[0].passed


def test_of_two_promotions_from_the_same_state_one_wins(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = registry.gate

    def slow(workspace: Workspace, line: str, version: int) -> object:
        monkeypatch.setattr(registry, "gate", real)
        promote(workspace, line, 2, "Bob", "quicker")
        return real(workspace, line, version)

    monkeypatch.setattr(registry, "gate", slow)
    with pytest.raises(RefusedError, match="somebody else changed this line"):
        promote(published, "metal", 1, "Ann", "slower")
    assert [(event.kind, event.actor) for event in history(published, "metal")] == [
        ("promotion", "Bob"),
        ("refusal", "Ann"),
    ]
    assert resolve(published, "metal").version == 2


def test_a_promotion_killed_before_the_alias_moved_is_completed(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(published, "metal", 1, "Ann", "first")
    with monkeypatch.context() as patched:
        patched.setattr(registry, "align_alias", lambda *_arguments: None)
        promote(published, "metal", 2, "Ann", "second")
    client = open_client(published)
    assert int(client.get_model_version_by_alias("metal", "champion").version) == 1
    assert resolve(published, "metal").version == 2
    assert int(client.get_model_version_by_alias("metal", "champion").version) == 2


def test_a_slow_promotion_does_not_move_the_alias_back(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.set_registered_model_alias

    def late(client: MlflowClient, name: str, alias: str, version: str) -> None:
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", real)
        promote(published, "metal", 2, "Bob", "meanwhile")
        real(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", late)
    promote(published, "metal", 1, "Ann", "slow to set the alias")
    alias = open_client(published).get_model_version_by_alias("metal", "champion")
    assert int(alias.version) == 2


def test_an_alias_set_behind_our_back_is_refused(published: Workspace) -> None:
    client = open_client(published)
    client.set_registered_model_alias("metal", "champion", "1")
    with pytest.raises(IntegrityError, match="no promotion is in the event log"):
        resolve(published, "metal")
    client.delete_registered_model_alias("metal", "champion")
    promote(published, "metal", 1, "Ann", "first")
    client.set_registered_model_alias("metal", "champion", "2")
    with pytest.raises(IntegrityError, match="alias champion names version 2"):
        resolve(published, "metal")


@pytest.mark.parametrize("before", [(), (1,)])
@pytest.mark.parametrize("look", [resolve, check])
def test_a_promotion_while_somebody_looks_is_not_called_tampering(
    look: Callable[[Workspace, str], object],
    before: tuple[int, ...],
    published: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in before:
        promote(published, "metal", version, "Ann", "first")
    real = MlflowClient.get_registered_model

    def late(client: MlflowClient, name: str) -> object:
        monkeypatch.setattr(MlflowClient, "get_registered_model", real)
        promote(published, "metal", 2, "Bob", "meanwhile")
        return real(client, name)

    monkeypatch.setattr(MlflowClient, "get_registered_model", late)
    found = look(published, "metal")
    if isinstance(found, ResolvedModel):
        assert (found.version, found.approver) == (2, "Bob")
    else:
        assert found == check(published, "metal")
        assert found.problems == ()  # type: ignore[attr-defined]


def _append_byte(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b" ")


@pytest.mark.parametrize(
    "name",
    ["MLmodel", "novad_model.py", "requirements.txt", "artifacts/detector/bank.safetensors",
     "artifacts/detector/detector.json"],
)  # fmt: skip
def test_a_changed_byte_in_any_model_file_is_refused(published: Workspace, name: str) -> None:
    promote(published, "metal", 2, "Ann", "first")
    _append_byte(resolve(published, "metal").folder.parents[1] / name)
    with pytest.raises(IntegrityError, match="model of version 2"):
        resolve(published, "metal")
    assert resolve(published, "metal", version=1).version == 1


@pytest.mark.parametrize("name", ["more.safetensors", ".more.safetensors"])
def test_a_file_added_to_a_model_is_refused(published: Workspace, name: str) -> None:
    folder = resolve(published, "metal").folder
    (folder / name).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="detector of version 2"):
        resolve(published, "metal")


def test_a_bank_swapped_in_from_another_version_with_its_tags_is_refused(published: Workspace) -> None:
    promote(published, "metal", 2, "Ann", "first")
    client = open_client(published)
    one = client.get_model_version("metal", "1")
    for tag, value in one.tags.items():
        client.set_model_version_tag("metal", "2", tag, value)
    good, bad = (resolve(published, "metal", version=1).folder, None)

    bad = Path(client.get_model_version_download_uri("metal", "2").removeprefix("file://"))
    shutil.rmtree(bad)
    shutil.copytree(good.parents[1], bad)
    with pytest.raises(IntegrityError, match=r"differs from the promotion's"):
        resolve(published, "metal")


def test_an_edited_event_log_stops_every_use(published: Workspace) -> None:
    promote(published, "metal", 1, "Ann", "first")
    with writing(locate(published)) as connection:
        connection.execute(update(EVENTS).values(version=2))
    with pytest.raises(IntegrityError, match="event 1 was edited"):
        resolve(published, "metal")
    with pytest.raises(IntegrityError, match="behind novad's back"):
        promote(published, "metal", 2, "Ann", "second")


@pytest.mark.parametrize("name", ["evaluate/metrics.json", "validate/report.json", "manifest.json"])
def test_changed_evidence_fails_the_digest_gate(published: Workspace, name: str) -> None:
    client = open_client(published)
    run = client.get_run(client.get_model_version("metal", "1").run_id or "")
    path = Path(run.info.artifact_uri.removeprefix("file://")) / name
    document = json.loads(path.read_text())
    document["more"] = "0" * 64
    path.write_text(json.dumps(document))
    failed = {verdict.gate for verdict in gate(published, "metal", 1) if not verdict.passed}
    assert "digests" in failed
    with pytest.raises(RefusedError, match=name.replace(".", r"\.")):
        promote(published, "metal", 1, "Ann", "looks good")


def test_of_two_readers_that_fetch_the_same_files_the_later_takes_those_of_the_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = workspace.state / "runs/7"

    def fetch(artifact_uri: str, dst_path: str) -> str:
        for folder in (Path(dst_path) / "run", cache):
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(folder.name)
        return f"{dst_path}/run"

    monkeypatch.setattr("novad.tracking.evidence.probe_artifacts", lambda _uri: None)
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fetch)
    info = SimpleNamespace(artifact_uri="mlflow-artifacts:/1/7/artifacts")
    client = SimpleNamespace(get_run=lambda _run_id: SimpleNamespace(info=info))
    assert run_folder(workspace, client, "7") == cache  # type: ignore[arg-type]
    assert [path.name for path in cache.parent.iterdir()] == ["7"]
    assert (cache / "manifest.json").read_text() == "7"


def test_artifacts_that_are_gone_are_a_service_error(published: Workspace) -> None:

    shutil.rmtree(published.state / "mlartifacts")
    with pytest.raises(ServiceError, match="are gone"):
        resolve(published, "metal")


GOOD = Evidence(
    metrics={
        "counts": {"train": 60, "calibration": 15, "tuning": 30, "test_normal": 30, "test_anomalous": 40},
        "scores": {"hybrid": {"image_auroc": 0.9}},
    },
    report={"errors": []},
    damaged=(),
)
BAD = Evidence(
    metrics={"counts": {"train": 3}, "scores": {"hybrid": {"image_auroc": 0.4}}},
    report={"errors": [{"check": "unreadable"}]},
    damaged=("bank differs",),
    champion=BesideChampion(1, 70, -0.05, [-0.09, -0.02]),
)
NOTHING = Evidence(metrics={}, report={}, damaged=("metrics.json differs",), champion="metrics.json differs")


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_of_the_policy_can_pass_and_can_fail(workspace: Workspace, name: str) -> None:
    policy = load_policy(workspace.root / "mlflow" / "gates.yaml", "metal")
    only = {name: policy[name]}
    (good,), (bad,), (nothing,) = (judge(only, evidence) for evidence in (GOOD, BAD, NOTHING))
    assert good.passed
    assert not bad.passed
    assert not nothing.passed
    assert name in str(bad)


def test_a_line_can_have_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(
        "default: {hybrid_auroc: {min: 0.9}, sample_counts: {train: 20, test_normal: 5}, digests: {}}\n"
        "lines: {metal: {hybrid_auroc: off, sample_counts: {train: 50}}}\n"
    )
    assert load_policy(path, "metal") == {"sample_counts": {"train": 50, "test_normal": 5}, "digests": {}}
    assert load_policy(path, "fabric")["hybrid_auroc"] == {"min": 0.9}
    for nothing in ("lines:", "lines: {metal: }"):
        path.write_text(f"default: {{digests: {{}}}}\n{nothing}\n")
        assert load_policy(path, "metal") == {"digests": {}}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("default: {hybrid_aurok: {min: 0.9}}", "default.hybrid_aurok"),
        ("default: {hybrid_auroc: {minimum: 0.9}}", "default.hybrid_auroc.minimum"),
        ("default: {hybrid_auroc: {min: high}}", "default.hybrid_auroc.min"),
        ("default: {hybrid_auroc: 0.9}", "default.hybrid_auroc"),
        ("default: {}", "default"),
        ("{}", "default"),
        ("default: {digests: {}}\nlines: {metal: {digest: off}}", "lines.metal.digest"),
        ("default: {digests: {}}\nlines: {metal: {digests: off}}", "default"),
        ("default: {digests: {}}\nextra: 1", "extra"),
        ("default: {digests: {}}\n1: 1\nextra: 1", "1"),
        ("default: {digests: {}}\nlines: [metal]", "lines: must map"),
        ("default: {digests: {}}\nlines: off", "lines: must map"),
        ("default: {digests: {}}\nlines: false", "lines: must map"),
        ("default: {digests: {}}\nlines: {metal: off}", "lines.metal: must map"),
        ("default: {digests: {}}\nlines: {metal: false}", "lines.metal: must map"),
        ("default: {digests: {}}\nlines: {metal: []}", "lines.metal: must map"),
        ("default: [", "not valid YAML"),
        ("default: {hybrid_auroc: {min: 2026-11-31}}", "not valid YAML: day is out of range"),
    ],
)
def test_a_wrong_policy_names_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path, "metal")
    assert str(path) in str(caught.value)
    assert key in str(caught.value)


def test_a_missing_policy_promotes_nothing(published: Workspace) -> None:
    (published.root / "mlflow").unlink()
    with pytest.raises(ConfigError, match=r"gates\.yaml"):
        promote(published, "metal", 1, "Ann", "no gates")
