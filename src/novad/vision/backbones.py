"""Backbones: one interface over the bundled B-cos network, the B-cos zoo and timm, from local checkpoints."""

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from novad.errors import ConfigError
from novad.vision.bcos_network import ARCHITECTURE, Layout, bcos_encoding, build_bcos_network
from novad.vision.bcos_zoo import PREFIX, named_after, zoo_network
from novad.vision.tensor_files import read_tensors
from novad.vision.tiling import Tiling, measure_margins

__all__ = [
    "Backbone",
    "BcosBackbone",
    "TimmBackbone",
    "describe_checkpoint",
    "file_sha256",
    "load_backbone",
]


class Backbone(nn.Module):
    """A frozen network that gives the feature maps of named layers.

    Attributes:
        architecture: what ``load_backbone`` builds.
        layers: names of the layers that are read, fine to coarse.
        available: those that could be, and the pixels per position of each.
        network: that computes them.
        exact: whether features are W(x) x of the encoding, so that explanations are complete.
        tiling: how images are cut for the network; None where they go through whole.
    """

    architecture: str
    layers: tuple[str, ...]
    available: Mapping[str, int]
    network: nn.Module
    exact: bool = False
    tiling: Tiling | None = None

    @property
    def readable(self) -> Mapping[str, int]:
        """Layers that can be named: those available, and the stem of a network that has one."""
        return self.available

    @property
    def runnable(self) -> tuple[str, ...]:
        """Names of the layers that ``run`` can give."""
        return self.layers

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] as the network's own input (N, C, H, W)."""
        raise NotImplementedError

    def run(self, encoded: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Feature map (N, C_l, H_l, W_l) of each of some layers, from an encoded batch as a whole."""
        raise NotImplementedError

    def features(self, encoded: Tensor) -> dict[str, Tensor]:
        """Feature map (N, C_l, H_l, W_l) of each layer, from an encoded batch; the same if it is cut."""
        if self.tiling is None:
            return self.run(encoded, self.layers)
        return self.tiling(self.run, encoded, self.layers)

    def cut(self, side: int) -> None:
        """Let images go through in tiles of ``side`` pixels and what they depend on around.

        Raises:
            ConfigError: features depend on the whole image or on their place; names network and layer.
        """
        strides = {name: self.readable[name] for name in self.runnable}
        exactly = copy.deepcopy(self).double()
        margins = measure_margins(
            lambda images: exactly.run(exactly.encode(images), tuple(strides)), strides, self.architecture
        )
        self.tiling = Tiling(side, strides, margins)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of images (N, 3, H, W) in [0, 1]."""
        return self.features(self.encode(images))

    def ordinary(self) -> "Backbone":
        """The same network with gradients of its features, where this one's are something else."""
        return self


class BcosBackbone(Backbone):
    """A B-cos network in explanation mode: features are unchanged, gradients are the dynamic weights W(x)."""

    exact = True

    def __init__(self, architecture: str, network: nn.Module, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = network.requires_grad_(False).eval()
        self._steps = _bcos_steps(network)
        strides = self._strides()
        self.available, self._stem = _stages(strides), _stem(strides)
        # The bundled network's deepest stage makes familiarity worse (docs/research/familiarity.md).
        default = ["layer2"] if architecture == ARCHITECTURE else _middle(self.available)
        self.layers = _chosen(layers, self.runnable, default)
        self._explain(True)

    def ordinary(self) -> "BcosBackbone":
        other = copy.deepcopy(self)
        other._explain(False)
        return other

    def _explain(self, mode: bool) -> None:
        for module in self.network.modules():
            if hasattr(module, "set_explanation_mode"):
                module.set_explanation_mode(mode)  # type: ignore[operator]

    def _strides(self) -> dict[str, int]:
        """Pixels per position after each step, measured on a black image."""
        side, strides = 64, {}
        x = self.encode(torch.zeros(1, 3, side, side))
        with torch.inference_mode():
            for name, step in self._steps.items():
                x = step(x)
                strides[name] = side // x.shape[-1]
        return strides

    @property
    def readable(self) -> Mapping[str, int]:
        return self._stem | dict(self.available)

    @property
    def runnable(self) -> tuple[str, ...]:
        return tuple(self.readable)

    def encode(self, images: Tensor) -> Tensor:
        return bcos_encoding(images)

    def stage_features(
        self, encoded: Tensor, layers: Collection[str], explained: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Feature maps of any of the network's stages; see ``run``."""
        if self.tiling is None:
            return self.run(encoded, layers, explained)
        return self.tiling(self.run, encoded, layers)

    def run(
        self, encoded: Tensor, layers: Collection[str], explained: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Feature maps of any of the network's stages, run no deeper than needed.

        Args:
            encoded: (N, 6, H, W).
            layers: names of the stages to return.
            explained: those among them that gradients are wanted of; deeper stages then run without the
                cost of remembering. None: all.
        """
        x, found = encoded, {}
        remembered = set(layers if explained is None else explained)
        for name, step in self._steps.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(remembered)):
                x = step(x)
            remembered.discard(name)
            if name in layers:
                found[name] = x
            if len(found) == len(set(layers)):
                break
        return found


class TimmBackbone(Backbone):
    """A timm network as feature extractor.

    Args:
        architecture: its timm name.
        weights: of the whole network, by their names in it.
        checkpoint: the file they come from.
        layers: module names as in timm's feature info; by default those at strides 8 and 16.
        metadata: of the checkpoint: ``pad_type``, ``num_classes``, ``mean``, ``std`` where they differ.
    Raises:
        ConfigError: timm does not know the architecture, the layers, or the weights do not fit exactly.
    """

    def __init__(
        self,
        architecture: str,
        weights: dict[str, Tensor],
        checkpoint: Path,
        layers: Sequence[str],
        metadata: dict[str, str],
    ) -> None:
        super().__init__()
        import timm

        if not timm.is_model(architecture):
            raise ConfigError(f"{checkpoint}: timm has no architecture '{architecture}'")
        options: dict[str, Any] = {"pad_type": metadata["pad_type"]} if "pad_type" in metadata else {}
        whole = timm.create_model(architecture, num_classes=int(metadata.get("num_classes", 1000)), **options)
        _load_strictly(whole, weights, checkpoint)
        probe = timm.create_model(architecture, features_only=True, **options)
        info: Any = probe.feature_info
        names = info.module_name()
        self.available = dict(zip(names, info.reduction(), strict=True))
        self.architecture = architecture
        self.layers = _chosen(layers, names, _middle(self.available) or names[-2:])
        self.network = timm.create_model(
            architecture,
            features_only=True,
            out_indices=[names.index(name) for name in self.layers],
            **options,
        )
        # Where a stage is not a child of the network, timm makes it one: ``stem.0`` becomes ``stem_0``.
        known = whole.state_dict()
        known |= {name.replace(".", "_", 1): tensor for name, tensor in known.items()}
        absent = self.network.load_state_dict(known, strict=False).missing_keys
        if absent:
            raise ConfigError(f"{checkpoint}: no weights for {', '.join(absent[:3])}")
        if (order := getattr(self.network, "output_fmt", "NCHW")) != "NCHW":
            raise ConfigError(f"{checkpoint}: {architecture} gives feature maps as {order}, not as NCHW")
        self.network.requires_grad_(False).eval()
        pretrained: dict[str, Any] = vars(whole)["pretrained_cfg"]
        self.register_buffer("mean", _per_channel(metadata.get("mean"), pretrained.get("mean", 0.5)))
        self.register_buffer("std", _per_channel(metadata.get("std"), pretrained.get("std", 0.5)))

    def encode(self, images: Tensor) -> Tensor:
        return (images - self.get_buffer("mean")) / self.get_buffer("std")

    def run(self, encoded: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        return dict(zip(self.layers, self.network(encoded), strict=True))


def load_backbone(
    architecture: str,
    checkpoint: Path,
    sha256: str,
    layers: Sequence[str] = (),
    tile: int = 0,
    device: str = "cpu",
) -> Backbone:
    """Build a backbone from a local checkpoint whose digest is known.

    Args:
        architecture: ``novad-bcos``, ``bcos:NAME`` (of the B-cos zoo) or a timm name.
        checkpoint: safetensors file.
        sha256: expected digest of the file.
        layers: names of the layers to read; empty means the architecture's mid layers.
        tile: side of the parts in which images go through, in pixels; 0 for whole images.
        device: where it is to run.
    Raises:
        ConfigError: no such file or architecture, weights that do not fit exactly, or no network to tile.
        IntegrityError: the file is not the one that the digest names.
    """
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint}: no such backbone checkpoint")
    weights = {name: tensor.float() for name, tensor in read_tensors(checkpoint, sha256).items()}
    backbone: Backbone
    if architecture == ARCHITECTURE or architecture.startswith(PREFIX):
        bundled = architecture == ARCHITECTURE
        network = (
            build_bcos_network(layout=Layout.of(weights))
            if bundled
            else zoo_network(architecture.removeprefix(PREFIX)).build()
        )
        _load_strictly(network, weights, checkpoint)
        backbone = BcosBackbone(architecture, network, layers)
    else:
        backbone = TimmBackbone(architecture, weights, checkpoint, layers, _metadata(checkpoint))
    if tile:
        backbone.cut(tile)
    return backbone.to(device)


def describe_checkpoint(checkpoint: Path) -> tuple[str, str]:
    """Architecture and sha256 of a safetensors checkpoint.

    The architecture comes from the file's metadata (``novad``, ``bcos`` or ``timm``), else from its name,
    up to the first dot where timm knows that, up to the first dash where the B-cos zoo does.

    Raises:
        ConfigError: no such file, not safetensors, or nothing says which architecture it is.
    """
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint}: no such backbone checkpoint")
    metadata = _metadata(checkpoint)
    named = metadata.get("novad") or metadata.get("bcos") or metadata.get("timm")
    if named is None:
        import timm

        stem = checkpoint.name.split(".")[0]
        if timm.is_model(stem):
            named = stem
        elif zoo := named_after(checkpoint):
            named = PREFIX + zoo
        else:
            raise ConfigError(
                f"{checkpoint}: nothing says which architecture this is; name the file after its timm "
                "architecture or its network in the B-cos zoo, or add the safetensors metadata key 'timm' or "
                "'bcos'"
            )
    return named, file_sha256(checkpoint)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bcos_steps(network: nn.Module) -> dict[str, nn.Module]:
    """The network up to its classifier, as modules that run one after the other, by their names in it."""
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential):
        return {f"features.{name}": step for name, step in features.named_children()}
    names = ("conv1", "bn1", "pool", "layer1", "layer2", "layer3", "layer4")
    return {name: step for name in names if (step := getattr(network, name, None)) is not None}


def _stages(strides: Mapping[str, int]) -> dict[str, int]:
    """The deepest step at each of the strides 4, 8, 16 and 32."""
    deepest = {stride: name for name, stride in strides.items()}
    return {deepest[stride]: stride for stride in (4, 8, 16, 32) if stride in deepest}


def _stem(strides: Mapping[str, int]) -> dict[str, int]:
    """The first step at stride 4, which sees a few pixels around each position and no more."""
    return dict.fromkeys([name for name, stride in strides.items() if stride == 4][:1], 4)


def _metadata(checkpoint: Path) -> dict[str, str]:
    try:
        with safe_open(checkpoint, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{checkpoint}: not a safetensors file: {error}") from None


def _load_strictly(network: nn.Module, weights: dict[str, Tensor], checkpoint: Path) -> None:
    counters = {
        name: tensor for name, tensor in network.state_dict().items() if "num_batches_tracked" in name
    }
    try:
        network.load_state_dict(counters | weights, strict=True)
    except RuntimeError as error:
        raise ConfigError(f"{checkpoint}: the weights do not fit: {str(error)[:400]}") from None


def _chosen(layers: Sequence[str], available: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in layers if name not in available]
    if unknown:
        raise ConfigError(f"backbone.layers: no layer {', '.join(unknown)}; there are {', '.join(available)}")
    wanted = layers or default
    return tuple(name for name in available if name in wanted)


def _middle(available: Mapping[str, int]) -> list[str]:
    """Layers at strides 8 and 16."""
    return [name for name, stride in available.items() if stride in (8, 16)]


def _per_channel(own: str | None, default: float | Sequence[float]) -> Tensor:
    if own is not None:
        default = [float(part) for part in own.replace(",", " ").split()]
    return (
        torch.as_tensor(default, dtype=torch.float32).reshape(-1).expand(1, -1).reshape(1, -1, 1, 1).clone()
    )
