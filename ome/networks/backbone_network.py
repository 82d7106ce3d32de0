"""Base class of the classifier and AffinityNet: a backbone with new layers on top."""

from typing import Any, Self

from torch import Tensor, nn

from ome.networks.features import Backbone, freeze_batchnorm

_PREFIX = "backbone."


class BackboneNetwork(nn.Module):
    """A backbone with new layers on top.

    The state dict names the backbone's tensors without a prefix, as published checkpoints do.

    Args:
        backbone: Computes the features.

    Attributes:
        is_frozen: Whether `freeze` was called.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.is_frozen = False
        self.register_state_dict_post_hook(_strip_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]

    @property
    def description(self) -> dict[str, Any] | None:
        """Plain values from which `ome.networks.descriptions` builds the network; None if it cannot."""
        backbone = self.backbone
        if backbone.name is None:
            return None
        sizes = {"output_stride": backbone.output_stride, "in_channels": backbone.in_channels}
        return {"backbone": backbone.name, **sizes, "frozen": self.is_frozen}

    def freeze(self) -> Self:
        """Freezes every BatchNorm and the backbone's `frozen` parameters, for a pretrained backbone.

        BatchNorm stays in eval mode after later calls of `train()`. A network that is trained from scratch
        must learn its BatchNorm statistics and is not frozen.
        """
        self.is_frozen = True
        for name, parameter in self.backbone.named_parameters():
            if name.startswith(self.backbone.frozen):
                parameter.requires_grad_(False)
        freeze_batchnorm(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as `nn.Module.train` does; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.is_frozen:
            freeze_batchnorm(self)
        return self

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Splits the trainable parameters into four groups, as AffinityNet and SEAM do.

        Args:
            lr: Base learning rate.
            weight_decay: Weight decay of all parameters except biases.

        Returns:
            Groups for a torch optimizer: backbone weights at `lr`, backbone biases at 2 lr without decay,
            weights of new layers at 10 lr, their biases at 20 lr without decay. A group may be empty.
        """
        trainable = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        groups = []
        for layers, factor in (("backbone", 1.0), ("head", 10.0)):
            for kind, times, decay in (("weight", 1.0, weight_decay), ("bias", 2.0, 0.0)):
                of_layers = [p for p in trainable if p[0].startswith(_PREFIX) == (layers == "backbone")]
                chosen = [p for name, p in of_layers if name.endswith(".bias") == (kind == "bias")]
                rates = {"lr": lr * factor * times, "weight_decay": decay}
                groups.append({"name": f"{layers}_{kind}", "params": chosen, **rates})
        return groups


def _strip_prefix(
    _module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict[str, Any]
) -> None:
    start = prefix + _PREFIX
    for key in [key for key in state if key.startswith(prefix)]:
        # Every key is removed and added again, which keeps the order of the tensors.
        tensor = state.pop(key)
        state[prefix + key.removeprefix(start) if key.startswith(start) else key] = tensor


def _add_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, *_others: object) -> None:
    children = {name for name, _ in module.named_children()}
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.split(".")[0] not in children:
            state[prefix + _PREFIX + name] = state.pop(key)
