"""Layer-wise relevance propagation by Captum, of networks rewritten into layers that it has rules for."""

import copy
import operator

import torch
from torch import Tensor, fx, nn

from novad.errors import ConfigError
from novad.vision.backbones import Backbone
from novad.vision.explainers.post_hoc import FeatureLength, PostHocExplainer

__all__ = ["LayerwiseRelevanceExplainer"]

# Between layers relevance travels as a gradient does, so that joining maps needs no rule.
_JOINING = (torch.cat, operator.getitem)
_ADDING = (torch.add, operator.add, operator.iadd)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU)
_RULED = (
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(nn.Identity, nn.Dropout),
)


class LayerwiseRelevanceExplainer(PostHocExplainer):
    """Layer-wise relevance propagation by the epsilon rule (Bach et al. 2015).

    Activations hand their relevance on as it is. In a network of ReLUs this is the input times its gradient
    (Ancona et al. 2018); biases keep their share, so that contributions sum to less or more than the total.

    Raises:
        ConfigError: the network has a layer or an operation without a rule; the message names it.
    """

    method = "lrp"
    adds_up = False

    def prepare(self, backbone: Backbone) -> Backbone:
        ruled = copy.deepcopy(backbone)
        _split_norms(ruled.network)
        _refuse_layers(ruled)
        ruled.network = _with_gains(_traced(ruled))
        return ruled

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        from captum.attr import LRP
        from captum.attr._utils.lrp_rules import EpsilonRule

        for layer in length.modules():
            if not any(layer.children()):
                layer.rule = EpsilonRule()
        attribution: Tensor = LRP(length).attribute(encoded)
        return attribution


class Gain(nn.Module):
    """An activation a(x) as a constant factor a(x) / x: all relevance of its output is its input's."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        # In a tuple, for Captum would look for a rule of a child.
        self._activation = (activation,)

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        gain = torch.where(x == 0, 0, self._activation[0](x.detach().clone()) / x)
        return x * gain.detach()


def _split_norms(module: nn.Module) -> None:
    """Undo timm's union of batch norm and activation in one module."""
    from timm.layers.norm_act import BatchNormAct2d

    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d):
            norm = nn.BatchNorm2d(child.num_features, child.eps, affine=child.affine)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, nn.Sequential(norm, child.act).requires_grad_(False).eval())
        else:
            _split_norms(child)


def _refuse_layers(backbone: Backbone) -> None:
    from timm.layers.conv2d_same import Conv2dSame

    # Heirs of these layers may compute something else; this one only pads otherwise.
    known = (*_RULED, *_ACTIVATIONS, Conv2dSame)
    for name, layer in backbone.network.named_modules():
        if not any(layer.children()) and type(layer) not in known:
            raise _refusal(backbone, f"layer {name} ({type(layer).__name__})")


def _refusal(backbone: Backbone, what: str) -> ConfigError:
    return ConfigError(
        f"explainer.method: 'lrp' cannot explain {backbone.architecture}: there is no rule for {what}"
    )


class _LeafTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children())


def _traced(backbone: Backbone) -> fx.GraphModule:
    """The network's computation, with every sum as a module of its own."""
    from captum.attr._utils.custom_modules import Addition_Module

    try:
        graph = _LeafTracer().trace(backbone.network)
    except fx.proxy.TraceError as error:
        raise _refusal(backbone, f"a way through it that depends on its input: {error}") from None
    network = fx.GraphModule(backbone.network, graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _ADDING:
            network.add_submodule(node.name, Addition_Module())
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_module(node.name, node.args))
            graph.erase_node(node)
        elif node.op == "call_method" or (node.op == "call_function" and node.target not in _JOINING):
            where = list(node.meta.get("nn_module_stack", {"": None}))[-1]
            raise _refusal(backbone, f"operation {node.name} in {where}")
    network.recompile()
    return network


def _with_gains(network: fx.GraphModule) -> fx.GraphModule:
    for name, layer in list(network.named_modules()):
        if isinstance(layer, _ACTIVATIONS):
            network.set_submodule(name, Gain(layer))
    return network
