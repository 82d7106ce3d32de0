"""Optimisers and schedules of the classifier, AffinityNet and the segmenter."""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ome.training.schedule import ScheduleName, rate_factor

OptimizerName = Literal["sgd", "adamw"]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
_SIDE = 224  # pixels of the image with which the order of the layers is determined; every patch divides it


@dataclass(frozen=True)
class Optimization:
    """Settings of an optimiser and its schedule; the defaults are those of the published classifier.

    Attributes:
        lr: Base learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.
        power: Exponent of the polynomial decay, see `poly_lr`.
        name: SGD, or AdamW, which transformers need.
        schedule: Learning-rate schedule, see `rate_factor`.
        warmup: Steps of the warm-up, see `linear_warmup`.
        norm_decay: Whether the weight decay applies to normalisation layers too.
        layer_decay: Factor on the rate from each layer of the encoder to the one below; 1 for none.
        minimum_lr: Limit of the decay; a lower rate, such as that of a low layer, stays as it is.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    name: OptimizerName = "sgd"
    schedule: ScheduleName = "poly"
    warmup: int = 0
    norm_decay: bool = True
    layer_decay: float = 1.0
    minimum_lr: float = 0.0

    def configure(
        self, network: nn.Module, encoder: nn.Module, groups: Iterable[Mapping[str, Any]], total_steps: int
    ) -> OptimizerLRScheduler:
        """Builds the return value of `LightningModule.configure_optimizers`.

        Args:
            network: Has all parameters.
            encoder: The part whose rates fall from layer to layer, see `layer_scales`.
            groups: `name`, `params`, `lr` and `weight_decay` of each group of parameters; empty ones are
                skipped.
            total_steps: Optimiser steps of the whole training.
        """
        scales = layer_scales(encoder, self.layer_decay) if self.layer_decay != 1 else {}
        norms = set() if self.norm_decay else norm_parameters(network)
        parts = [part for group in groups for part in _divided(group, scales, norms)]
        factors: list[Callable[[int], float]] = [
            partial(
                rate_factor,
                self.schedule,
                total_steps=total_steps,
                power=self.power,
                floor=min(1.0, self.minimum_lr / part["lr"]),
                warmup=self.warmup,
            )
            for part in parts
        ]
        optimizer = build_optimizer(self.name, parts, self.lr, self.momentum)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], lr: float, momentum: float
) -> torch.optim.Optimizer:
    """SGD or AdamW over parameter groups with their own learning rates and weight decays."""
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)


def norm_parameters(network: nn.Module) -> set[int]:
    """The `id` of every parameter of a normalisation layer."""
    norms = (layer for layer in network.modules() if isinstance(layer, _NORMS))
    return {id(parameter) for layer in norms for parameter in layer.parameters()}


def layer_scales(encoder: nn.Module, decay: float) -> dict[int, float]:
    """Factors on the rates of an encoder's parameters: decay^(layers above, its own included).

    A layer is a block such as `layer1.0` or `block2.3`, or a module outside of blocks; layers are counted in
    the order of the forward pass (Bao et al., BEiT, ICLR 2022).

    Args:
        encoder: Takes an image (B, bands, H, W); the bands are read from its first convolution.
        decay: In (0, 1].

    Returns:
        The factor of each parameter by its `id`.
    """
    order: dict[str, None] = {}
    owners = {name: module for name, module in encoder.named_modules() if [*module.parameters(recurse=False)]}

    def visit(layer: str, _module: nn.Module, _arguments: object) -> None:
        order.setdefault(layer)

    hooks = [
        module.register_forward_pre_hook(partial(visit, _layer(name))) for name, module in owners.items()
    ]
    training = {module: module.training for module in encoder.modules()}
    bands = next(module.in_channels for module in encoder.modules() if isinstance(module, nn.Conv2d))
    device = next(encoder.parameters()).device
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, bands, _SIDE, _SIDE, device=device))
    for hook in hooks:
        hook.remove()
    for module, mode in training.items():
        module.training = mode
    depth = {layer: len(order) - place for place, layer in enumerate(order)}
    return {
        id(parameter): decay ** depth.get(_layer(name), 0)
        for name, module in owners.items()
        for parameter in module.parameters(recurse=False)
    }


def _layer(name: str) -> str:
    """The block that a module belongs to: its path up to the first number, or to its parent."""
    block = re.match(r"(?:.*?\.)?\d+(?=\.|$)", name)
    return block[0] if block else name.rpartition(".")[0] or name


def _divided(
    group: Mapping[str, Any], scales: Mapping[int, float], norms: Container[int]
) -> list[dict[str, Any]]:
    """Splits a group of parameters by learning rate and weight decay; empty groups are skipped."""
    parts: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in group["params"]:
        decay = 0.0 if id(parameter) in norms else group["weight_decay"]
        parts.setdefault((group["lr"] * scales.get(id(parameter), 1.0), decay), []).append(parameter)
    if len(parts) < 2:
        return [{**group, "params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in parts.items()]
    return [  # learning-rate monitors need a name for each
        {**group, "name": f"{group['name']}_{number}", "params": p, "lr": lr, "weight_decay": decay}
        for number, ((lr, decay), p) in enumerate(parts.items())
    ]
