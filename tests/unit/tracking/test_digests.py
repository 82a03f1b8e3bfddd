"""The output digest: equal for equal results, different for any other."""

import json

import pytest

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking import output_digest


def test_costs_and_data_docs_do_not_change_the_digest(workspace: Workspace) -> None:
    before = output_digest(workspace, "metal")
    (workspace.artifacts("metal", "evaluate") / "cost.json").write_text('{"seconds": 99}')
    (workspace.artifacts("metal", "validate") / "docs" / "index.html").write_text("another run")
    metrics = workspace.artifacts("metal", "evaluate") / "metrics.json"
    document = json.loads(metrics.read_text())
    document["cost"] = {"seconds_per_stage": {"validate": 77}}
    metrics.write_text(json.dumps(document))
    assert output_digest(workspace, "metal") == before


@pytest.mark.parametrize(
    "name",
    [
        "validate/manifest.parquet",
        "validate/report.json",
        "memory_bank/bank.safetensors",
        "calibrate_explainer/candidates.json",
        "tune_fusion/fusion.json",
        "evaluate/scores.parquet",
        "evaluate/detector/bank.safetensors",
        "evaluate/heatmaps/a.png",
    ],
)
def test_any_changed_output_changes_the_digest(workspace: Workspace, name: str) -> None:
    before = output_digest(workspace, "metal")
    with (workspace.root / "artifacts" / "metal" / name).open("ab") as stream:
        stream.write(b" ")
    assert output_digest(workspace, "metal") != before


def test_a_changed_figure_changes_the_digest(workspace: Workspace) -> None:
    before = output_digest(workspace, "metal")
    metrics = workspace.artifacts("metal", "evaluate") / "metrics.json"
    document = json.loads(metrics.read_text())
    document["scores"]["hybrid"]["image_auroc"] = 0.999
    metrics.write_text(json.dumps(document))
    assert output_digest(workspace, "metal") != before


def test_a_renamed_output_changes_the_digest(workspace: Workspace) -> None:
    before = output_digest(workspace, "metal")
    heatmap = workspace.artifacts("metal", "evaluate") / "heatmaps" / "a.png"
    heatmap.rename(heatmap.with_name("b.png"))
    assert output_digest(workspace, "metal") != before


def test_half_written_hidden_folders_are_no_outputs(workspace: Workspace) -> None:
    before = output_digest(workspace, "metal")
    hidden = workspace.artifacts("metal", "evaluate") / ".partial"
    hidden.mkdir()
    (hidden / "scores.parquet").write_bytes(b"half")
    assert output_digest(workspace, "metal") == before


def test_an_untrained_line_is_named(workspace: Workspace) -> None:
    for file in workspace.artifacts("metal", "tune_fusion").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"tune_fusion.*novad train metal"):
        output_digest(workspace, "metal")


def test_damaged_metrics_are_named(workspace: Workspace) -> None:
    (workspace.artifacts("metal", "evaluate") / "metrics.json").write_text('{"line": ')
    with pytest.raises(IntegrityError, match=r"metrics\.json"):
        output_digest(workspace, "metal")
