"""B-cos explanation: the network's own linear map, by one vector-Jacobian product."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from novad.errors import ConfigError
from novad.vision.backbones import Backbone, BcosBackbone
from novad.vision.explainers.explanation import Explainer, Explanation
from novad.vision.explainers.memory import MEMORY, Memory

__all__ = ["BcosExplainer"]

Features = dict[str, Tensor]


class BcosExplainer(Explainer):
    """Exact explanations of B-cos features (Böhle, Fritz, Schiele 2022; Sivaprasad and Fritz 2023).

    With z = W(x) x at every position p of a layer and the cotangent v_p = z_p / |z_p|, the row
    w = sum_p W_p(x)^T v_p gives contributions <w, x> that sum to sum_p |z_p|.

    The target ``memory`` asks what the memory bank leaves unexplained: the cotangent is the gap g_p between
    a whitened patch M z_p and its nearest normal vector m_p. Contributions sum to sum_p <g_p, M z_p>, which
    is the familiarity gap sum_p |g_p|^2 plus sum_p <g_p, m_p>, what the memory itself brings along.

    Raises:
        ConfigError: the backbone is not a B-cos network.
    """

    method = "bcos"
    exact = True
    statistics = ("contribution", "weight_norm", "alignment", "colour_residual", "joint")
    reference = ("weight_norm", "high")

    def __init__(self, backbone: Backbone, memory: Memory | None = None) -> None:
        if not isinstance(backbone, BcosBackbone):
            raise ConfigError(
                f"explainer.method: 'bcos' explains B-cos networks, not {backbone.architecture}; "
                "give it a B-cos backbone or choose a Captum method"
            )
        super().__init__(backbone)
        self.network, self.memory = backbone, memory
        stages = tuple(backbone.available)
        self.targets = (*((MEMORY,) if memory else ()), *stages, "+".join(stages))

    def without(self, images: Sequence[int]) -> "BcosExplainer":
        other = copy.copy(self)
        other.memory = self.memory.without(images) if self.memory else None
        return other

    def explain(self, images: Tensor, target: str) -> Explanation:
        parts = target.split("+")
        encoded, features = self._forward(images, parts)
        row = _row(encoded, [self._aim(features, part) for part in parts])
        return self._explanation(encoded, features, row)

    def explain_each(self, images: Tensor, targets: Sequence[str]) -> Iterator[Explanation]:
        """One forward pass for all targets, one way back to the input per part: joined rows are sums."""
        parts = list(dict.fromkeys(part for target in targets for part in target.split("+")))
        encoded, features = self._forward(images, parts)
        rows = {part: _row(encoded, [self._aim(features, part)], again=part != parts[-1]) for part in parts}
        for target in targets:
            joined = [rows[part] for part in target.split("+")]
            weight = torch.stack([row.weight for row in joined]).sum(0)
            total = torch.stack([row.total for row in joined]).sum(0)
            yield self._explanation(encoded, features, _Row(weight, total))

    def _forward(self, images: Tensor, parts: list[str]) -> tuple[Tensor, Features]:
        explained = {layer for part in parts for layer in (self.network.layers if part == MEMORY else [part])}
        with torch.enable_grad():
            encoded = self.network.encode(images).requires_grad_()
            layers = {*explained, *self.network.layers}
            return encoded, self.network.stage_features(encoded, layers, explained)

    def _aim(self, features: Features, part: str) -> tuple[Tensor, Tensor]:
        """What is explained, and its cotangent, both (N, ...)."""
        if part != MEMORY:
            return features[part], (features[part] / _lengths(features[part]).clamp_min(1e-12)).detach()
        if self.memory is None:
            raise ConfigError("the target 'memory' needs a memory bank of the explained network's features")
        with torch.enable_grad():
            return self.memory.gaps({name: features[name] for name in self.network.layers})

    def _explanation(self, encoded: Tensor, features: Features, row: "_Row") -> Explanation:
        encoded = encoded.detach()
        return Explanation(
            contribution=(row.weight * encoded).sum(1),
            total=row.total,
            encoded=encoded,
            weight=row.weight,
            features={name: features[name].detach() for name in self.network.layers},
        )


@dataclass(frozen=True)
class _Row:
    """(N, C, H, W) row of the network's linear map, and (N,) its product with the input."""

    weight: Tensor
    total: Tensor


def _row(encoded: Tensor, aims: list[tuple[Tensor, Tensor]], again: bool = False) -> _Row:
    (weight,) = torch.autograd.grad(
        [output for output, _ in aims], encoded, [cotangent for _, cotangent in aims], retain_graph=again
    )
    products = [(output.detach() * cotangent).flatten(1).sum(1) for output, cotangent in aims]
    return _Row(weight, torch.stack(products).sum(0))


def _lengths(features: Tensor) -> Tensor:
    return features.square().sum(dim=1, keepdim=True).sqrt()
