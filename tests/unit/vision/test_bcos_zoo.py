"""The B-cos zoo: its networks as they were trained, from local files or on request from its address."""

import hashlib
from pathlib import Path

import bcos.models.pretrained
import pytest
import torch
from safetensors import safe_open
from torch import nn

from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.vision.backbones import BcosBackbone, describe_checkpoint, file_sha256, load_backbone
from novad.vision.bcos_zoo import zoo_network, zoo_networks
from novad.vision.explainers import BcosExplainer
from novad.vision.hub import download_zoo, import_zoo

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def untrained(name: str) -> nn.Module:
    """A network of the zoo with random weights and random, non-trivial norms."""
    torch.manual_seed(0)
    network = zoo_network(name).build()
    for key, tensor in network.state_dict().items():
        if key.endswith(("running_var", "layer_scale")) or (key.endswith("weight") and tensor.ndim == 1):
            tensor.uniform_(0.5, 2.0)
    return network


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as the zoo gives them out: a .pth file named after network and digest."""
    folder = tmp_path_factory.mktemp("zoo")
    torch.save(untrained("resnet_18").state_dict(), folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    return (folder / "new.pth").rename(folder / f"resnet_18-{digest[:10]}.pth")


def test_a_zoo_file_becomes_a_checkpoint_that_names_network_and_source(
    zoo_file: Path, tmp_path: Path
) -> None:
    kept = import_zoo(zoo_file, tmp_path)
    architecture, sha256 = describe_checkpoint(kept)
    assert architecture == "bcos:resnet_18"
    with safe_open(kept, framework="pt") as file:
        assert file.metadata()["source_sha256"] == file_sha256(zoo_file)
    backbone = load_backbone(architecture, kept, sha256)
    whole = untrained("resnet_18").eval()
    with torch.no_grad():
        expected = whole.get_feature_extractor()(backbone.encode(IMAGES))  # type: ignore[operator]
        found = load_backbone(architecture, kept, sha256, ("layer4",))(IMAGES)["layer4"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert backbone.exact
    assert backbone.layers == ("layer2", "layer3")
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet_18", {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}),
        (
            "densenet_121",
            {
                "features.denseblock1": 4,
                "features.denseblock2": 8,
                "features.denseblock3": 16,
                "features.norm5": 32,
            },
        ),
        ("convnext_tiny_pn", {"features.2": 4, "features.4": 8, "features.6": 16, "features.8": 32}),
    ],
)
def test_explanations_of_zoo_networks_are_complete_at_every_stage(name: str, stages: dict[str, int]) -> None:
    backbone = BcosBackbone(f"bcos:{name}", untrained(name))
    assert dict(backbone.available) == stages
    explainer = BcosExplainer(backbone)
    for target in (*stages, "+".join(stages)):
        explanation = explainer.explain(IMAGES, target)
        assert float(explanation.completeness_error().max()) < 1e-4
        with torch.no_grad():
            features = backbone.stage_features(backbone.encode(IMAGES), target.split("+"))
            expected = sum(each.norm(dim=1).sum(dim=(1, 2)) for each in features.values())
        assert torch.allclose(explanation.total, torch.as_tensor(expected), rtol=1e-4)


def test_no_network_of_the_zoo_has_a_bias_before_its_classifier() -> None:
    """So that features are W(x) x and nothing else contributes."""
    networks = zoo_networks()
    assert len({network.name for network in networks}) == len(networks) == 18
    with torch.device("meta"):
        for network in networks:
            assert not [name for name, _ in network.build().named_parameters() if "bias" in name]


def test_underscores_may_be_left_out_and_what_is_not_there_is_refused_with_what_is() -> None:
    assert zoo_network("resnet50_long").name == "resnet_50_long"
    with pytest.raises(ConfigError, match=r"bcos:vitc_ti: the B-cos zoo has no .*densenet_121, "):
        zoo_network("vitc_ti")


def test_a_file_that_is_not_what_its_name_says_is_refused(zoo_file: Path, tmp_path: Path) -> None:
    content = zoo_file.read_bytes()
    mine, other = tmp_path / "mine.pth", tmp_path / "resnet_34.pth"
    false, broken = tmp_path / "resnet_18-0123456789.pth", tmp_path / "resnet_18.pth"
    for path in (mine, other, false):
        path.write_bytes(content)
    broken.write_bytes(content[: len(content) // 2])
    for path, error, words in (
        (mine, ConfigError, "nothing says which architecture"),
        (other, ConfigError, "do not fit bcos:resnet_34"),
        (false, IntegrityError, "its name says sha256 0123456789"),
        (broken, ConfigError, "cannot be read as weights"),
    ):
        with pytest.raises(error, match=words) as refused:
            import_zoo(path, tmp_path / "weights")
        assert str(path) in str(refused.value)
    assert not (tmp_path / "weights").exists()


class Trap:
    """What a pickle runs when it is read as one."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_code_in_a_weight_file_is_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "resnet_18.pth", tmp_path / "was-here"
    torch.save({"conv1.linear.weight": Trap(mark)}, path)
    with pytest.raises(ConfigError, match="cannot be read as weights and nothing else"):
        import_zoo(path, tmp_path)
    torch.save(["conv1"], path)
    with pytest.raises(ConfigError, match="not a dictionary of tensors"):
        import_zoo(path, tmp_path)
    assert not mark.exists()


def test_a_download_is_checked_and_made_once(
    zoo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = bcos.models.pretrained.URLS["bcos_final"]
    monkeypatch.setitem(urls, "resnet_18", zoo_file.as_uri())
    kept = download_zoo("resnet18", tmp_path)
    assert describe_checkpoint(kept)[0] == "bcos:resnet_18"
    monkeypatch.setitem(urls, "resnet_18", zoo_file.as_uri().replace("/zoo", "/nowhere"))
    assert download_zoo("resnet_18", tmp_path) == kept
    with pytest.raises(ServiceError, match=r"bcos:resnet_18: .*--backbone PATH/resnet_18-\w{10}\.pth"):
        download_zoo("resnet_18", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
