"""DVC's graph as the flow sees it, whichever folder the caller stands in."""

import pytest

from novad.errors import ConfigError
from novad.pipeline.graph import line_stages, stale_stages
from novad.pipeline.reproduce import reproduce
from novad.tracking.digests import STAGES
from tiny_pipeline import MakeTiny


def test_stages_come_in_an_order_that_respects_what_they_need(make_tiny: MakeTiny) -> None:
    stages = line_stages(make_tiny("metal", "fabric", "board"), ["metal", "fabric"])
    addresses = [stage.address for stage in stages]
    assert sorted(addresses) == sorted(f"{name}@{line}" for name in STAGES for line in ("metal", "fabric"))
    for stage in stages:
        before = STAGES[: STAGES.index(stage.name)][-1:]
        assert stage.upstream == tuple(f"{name}@{stage.line}" for name in before)
        assert all(addresses.index(each) < addresses.index(stage.address) for each in stage.upstream)


@pytest.mark.parametrize("folder", [".", "input", "/"])
def test_stale_is_what_a_change_concerns_from_every_folder(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    workspace = make_tiny("metal", "fabric")
    monkeypatch.chdir(workspace.root / folder)
    assert len(stale_stages(workspace, ["metal", "fabric"])) == 10
    for line in ("metal", "fabric"):
        assert reproduce(workspace, f"validate@{line}")
    assert "validate@metal" not in stale_stages(workspace, ["metal"])
    (workspace.root / "input/metal").write_text("another batch of parts")
    assert "validate@metal" in stale_stages(workspace, ["metal", "fabric"])
    assert "validate@fabric" not in stale_stages(workspace, ["metal", "fabric"])
    (workspace.artifacts("fabric", "validate") / "report.json").unlink()
    assert "validate@fabric" in stale_stages(workspace, ["fabric"])


def test_a_line_without_stages_is_named(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    with pytest.raises(ConfigError, match=r"dvc\.yaml: no stage for the line 'cups'"):
        line_stages(workspace, ["metal", "cups"])


def test_settings_that_dvc_watches_must_be_written_and_the_default_is_told(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    path = workspace.root / "dvc.yaml"
    watched = "".join(f"        - lines.${{key}}.{name}\n" for name in ("layout", "seed", "evaluate"))
    path.write_text(path.read_text().replace("      outs:", f"      params:\n{watched}      outs:", 1))
    with pytest.raises(ConfigError) as caught:
        line_stages(workspace, ["metal"])
    default = '{"bootstrap": 1000, "heatmaps": 24}'
    assert str(caught.value).splitlines() == [
        f"{workspace.params}: lines.metal.evaluate: missing; the default is {default}",
        f"{workspace.params}: lines.metal.seed: missing; the default is 0",
    ]
    text = workspace.params.read_text()
    workspace.params.write_text(text + f"    evaluate: {default}\n    seed: 0\n")
    assert len(line_stages(workspace, ["metal"])) == 5


def test_a_folder_that_is_not_dvcs_is_wrong_use(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    (workspace.root / ".dvc").rename(workspace.root / "elsewhere")
    with pytest.raises(ConfigError, match="not a DVC workspace"):
        stale_stages(workspace, ["metal"])


@pytest.mark.parametrize(
    "text", ["stages: [", "stages: 7\n", "stages:\n  a: {foreach: '${lines}', do: {cmd: '${x}'}}\n"]
)
def test_a_wrong_pipeline_file_is_wrong_use_in_dvcs_words(make_tiny: MakeTiny, text: str) -> None:
    workspace = make_tiny("metal")
    (workspace.root / "dvc.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        line_stages(workspace, ["metal"])
