"""Lineage in both directions, and no answer from records that were changed."""

import json
from collections.abc import Callable

import pandas as pd
import pytest

from fake_line import write_outputs
from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking import publish, resolve
from novad.tracking.decisions import LoggedDecision, log_decisions
from novad.tracking.digests import file_digest
from novad.tracking.events import append
from novad.tracking.evidence import run_folder
from novad.tracking.store import open_client
from novad.tracking.trace import ImageTrace, ImageUse, PredictionTrace, trace
from tracking_fixtures import logged_decision

# Whatever an image of the fake line holds, this is what its manifest says.
TRAINED_ON = "0" * 64
FIRST = "11111111-1111-4111-8111-111111111111"


def _log(workspace: Workspace, at: str, prediction_id: str = FIRST, **changes: object) -> LoggedDecision:
    digest = resolve(workspace, "metal", 1).detector_digest
    told = {"prediction_id": prediction_id, "at": at, "detector_digest": digest, "nearest_sha256": TRAINED_ON}
    decision = logged_decision(**{**told, **changes})
    log_decisions(workspace, [decision])
    return decision


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    return with_versions(1)


def _prediction(workspace: Workspace, prediction_id: str = FIRST) -> PredictionTrace:
    found = trace(workspace, prediction_id)
    assert isinstance(found, PredictionTrace)
    return found


def _image(workspace: Workspace, what: str) -> ImageTrace:
    found = trace(workspace, what)
    assert isinstance(found, ImageTrace)
    return found


def test_a_prediction_leads_to_its_version_run_data_and_code(published: Workspace) -> None:
    decision = _log(published, "2030-01-01T00:00:00.000000+00:00")
    found = _prediction(published)
    assert found.prediction == decision
    model = resolve(published, "metal", 1)
    assert (found.model.run_id, found.model.detector_digest) == (model.run_id, model.detector_digest)
    assert found.model.dvc["validate"]["deps"] == {"data/metal": "0123456789abcdef0123456789abcdef.dir"}
    manifest = published.artifacts("metal", "validate") / "manifest.parquet"
    assert pd.read_parquet(manifest)["sha256"].tolist() == [TRAINED_ON]
    assert found.model.dataset_sha256 == file_digest(manifest)
    assert found.model.images == {"bank": 1}
    assert found.model.thresholds == {"fail": 1.5, "review": 1.25, "alpha": 0.05}
    assert found.model.requirements_lock == file_digest(published.path("requirements.lock"))


def test_the_approver_is_who_had_made_the_version_champion_when_it_judged(published: Workspace) -> None:
    append(published, "metal", "promotion", actor="ada", reason="first", version=1)
    then = append(published, "metal", "promotion", actor="bob", reason="again", version=1)
    append(published, "metal", "refusal", actor="eve", reason="no", version=2)
    late = append(published, "metal", "promotion", actor="cyd", reason="newer", version=2)
    ids = [FIRST[:-1] + str(number) for number in range(4)]
    _log(published, "2000-01-01T00:00:00.000000+00:00", ids[0])
    _log(published, then.at, ids[1])
    _log(published, late.at, ids[2])
    _log(published, then.at, ids[3], shadow=True)
    approvals = [_prediction(published, each).approval for each in ids]
    assert [each and (each.approver, each.reason, each.sequence, each.until) for each in approvals] == [
        None,
        ("bob", "again", 2, None),
        ("bob", "again", 2, late.at),
        None,
    ]


def test_an_image_leads_to_every_decision_and_every_version_that_used_it(
    make_tracked: Callable[..., Workspace],
) -> None:
    workspace = make_tracked("metal", "fabric")
    publish(workspace, "metal")
    publish(workspace, "fabric")
    write_outputs(workspace, "metal", seed=1)
    publish(workspace, "metal")
    image = workspace.root / "image.png"
    image.write_bytes(b"picture")
    with pytest.raises(ConfigError, match=r"image\.png: no decision"):
        trace(workspace, str(image))
    assert _image(workspace, TRAINED_ON).versions == (
        ImageUse("fabric", 1, "good/0.png", "bank"),
        ImageUse("metal", 1, "good/0.png", "bank"),
        ImageUse("metal", 2, "good/0.png", "bank"),
    )
    told = [_log(workspace, f"203{n}-01-01", FIRST[:-1] + str(n), image_sha256=TRAINED_ON) for n in (0, 1)]
    assert _image(workspace, TRAINED_ON.upper()).decisions == tuple(told)


@pytest.mark.parametrize("what", ["", "no/such.png", "ab" * 20, "nonsense", "\x00", "a" * 5000])
def test_what_is_neither_image_nor_digest_nor_prediction_is_refused(what: str, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="neither"):
        trace(workspace, what)


def test_a_decision_by_a_detector_that_was_never_registered_is_told_apart(published: Workspace) -> None:
    _log(published, "2030-01-01", detector_digest="ee" * 32)
    with pytest.raises(IntegrityError, match="ee" * 32):
        trace(published, FIRST)


def test_no_lineage_is_told_from_a_changed_record_of_images(published: Workspace) -> None:
    _log(published, "2030-01-01")
    folder = run_folder(published, open_client(published), resolve(published, "metal").run_id)
    record = folder / "validate/manifest.parquet"
    frame = pd.read_parquet(record)
    frame.assign(split="test").to_parquet(record)
    for what in (FIRST, TRAINED_ON):
        with pytest.raises(IntegrityError, match="record of images"):
            trace(published, what)
    digests = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(digests | {"validate/manifest.parquet": "0" * 64}))
    with pytest.raises(IntegrityError, match="record of images"):
        trace(published, FIRST)


@pytest.mark.parametrize("name", ["lineage.json", "files.json", "tune_fusion/fusion.json"])
def test_no_lineage_is_told_from_a_changed_file(published: Workspace, name: str) -> None:
    _log(published, "2030-01-01")
    folder = run_folder(published, open_client(published), resolve(published, "metal").run_id)
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(document | {"run/lineage.json": "0" * 64}))
    with pytest.raises(IntegrityError, match=r"is not the (one that was )?published"):
        trace(published, FIRST)
