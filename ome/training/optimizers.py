"""The lineage's optimiser, shared by the classifier and AffinityNet."""

from dataclasses import dataclass

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from ome.networks.backbone_network import BackboneNetwork
from ome.training.schedule import poly_lr


@dataclass(frozen=True)
class PolySgd:
    """SGD with the lineage's four parameter groups, whose rates decay polynomially at every step.

    Attributes:
        lr: Base learning rate of the backbone; new layers have ten times as much.
        momentum: Of SGD.
        weight_decay: Of everything but biases.
        power: Of the decay, see `poly_lr`.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9

    def configure(self, network: BackboneNetwork, total_steps: int) -> OptimizerLRScheduler:
        """Makes what `LightningModule.configure_optimizers` returns.

        Args:
            network: Names its parameter groups; empty ones are left out.
            total_steps: Optimiser steps of the whole training.
        """
        groups = network.parameter_groups(self.lr, self.weight_decay)
        used = [group for group in groups if group["params"]]
        optimizer = torch.optim.SGD(used, momentum=self.momentum, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: poly_lr(1.0, step, total_steps, self.power)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
