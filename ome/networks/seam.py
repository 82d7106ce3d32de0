"""SEAM: a multilabel classifier whose class activation maps are refined by pixel correlation.

Wang et al., *Self-supervised Equivariant Attention Mechanism*, CVPR 2020, without a background class as in
Li, Zhang & Xiao, *One Model Is Enough*, IEEE TGRS 61, 2023.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.networks.features import Backbone, freeze_batchnorm
from ome.networks.pcm import ENTRIES, clean_cam, pixel_correlation

_PREFIX = "backbone."


class CamPair(NamedTuple):
    """Class activation maps (B, C, H, W) at the input's size: the raw ones and the refined ones."""

    cam: Tensor
    refined: Tensor


class SeamNetwork(nn.Module):
    """A backbone with the CAM head and the pixel correlation module.

    The state dict holds the backbone's tensors without a prefix, as published SEAM checkpoints do.

    Args:
        backbone: Gives the features.
        num_classes: Number of classes C; there is no background class.
        entries: Affinity entries built at once in the pixel correlation module; None builds it whole.
    """

    def __init__(self, backbone: Backbone, num_classes: int, entries: int | None = ENTRIES) -> None:
        super().__init__()
        self.backbone = backbone
        self.entries = entries
        self._frozen = False
        low, middle, final = backbone.channels
        self.dropout = nn.Dropout2d(0.5)
        self.fc8 = nn.Conv2d(final, num_classes, 1, bias=False)
        self.f8_3 = nn.Conv2d(low, 64, 1, bias=False)
        self.f8_4 = nn.Conv2d(middle, 128, 1, bias=False)
        self.f9 = nn.Conv2d(backbone.in_channels + 64 + 128, 192, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)
        nn.init.kaiming_normal_(self.f8_3.weight)
        nn.init.kaiming_normal_(self.f8_4.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)
        self.register_state_dict_post_hook(_strip_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> CamPair:
        """Computes raw and refined CAMs.

        Gradients of the refined map reach f8_3, f8_4 and f9 only: its CAM and its features are detached.

        Args:
            image: Normalised images (B, bands, H, W), float.

        Returns:
            Both maps (B, C, H, W), upsampled bilinearly (align_corners) to the input's size. The raw map may
            be negative.
        """
        features = self.backbone(image)
        cam = self.fc8(self.dropout(features.final))
        # Under autocast the maps would be half precision, too coarse for the 1e-5 terms of what follows.
        cam = cam.to(torch.promote_types(cam.dtype, torch.float32))
        grid = cam.shape[2:]
        embedding = self.f9(
            torch.cat(
                [
                    _resize(image, grid),
                    F.relu(self.f8_3(_resize(features.low.detach(), grid))),
                    F.relu(self.f8_4(_resize(features.middle.detach(), grid))),
                ],
                dim=1,
            )
        )
        refined = pixel_correlation(clean_cam(cam), embedding, self.entries)
        size = image.shape[2:]
        return CamPair(_resize(cam, size), _resize(refined, size))

    def freeze(self) -> Self:
        """Freezes what a pretrained backbone keeps: all BatchNorm and the backbone's `frozen` parameters.

        BatchNorm stays in eval mode through later calls of `train()`. A network trained from scratch is not
        frozen: its BatchNorm statistics have yet to be learnt.
        """
        self._frozen = True
        for name, parameter in self.backbone.named_parameters():
            if name.startswith(self.backbone.frozen):
                parameter.requires_grad_(False)
        freeze_batchnorm(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Switches the mode as torch does; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self._frozen:
            freeze_batchnorm(self)
        return self

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Splits the trainable parameters into the lineage's four groups.

        Args:
            lr: Base learning rate.
            weight_decay: Weight decay of everything but biases.

        Returns:
            Groups for a torch optimizer: backbone weights at `lr`, backbone biases at 2 lr without decay, new
            layers at 10 lr, their biases at 20 lr without decay. A group may be empty.
        """
        trainable = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        groups = []
        for layers, factor in (("backbone", 1.0), ("head", 10.0)):
            for kind, times, decay in (("weight", 1.0, weight_decay), ("bias", 2.0, 0.0)):
                chosen = [
                    parameter
                    for name, parameter in trainable
                    if name.startswith(_PREFIX) == (layers == "backbone")
                    and name.endswith(".bias") == (kind == "bias")
                ]
                groups.append(
                    {
                        "name": f"{layers}_{kind}",
                        "params": chosen,
                        "lr": lr * factor * times,
                        "weight_decay": decay,
                    }
                )
        return groups


def _resize(x: Tensor, size: Iterable[int]) -> Tensor:
    target = list(size)
    if list(x.shape[2:]) == target:
        return x
    return F.interpolate(x, target, mode="bilinear", align_corners=True)


def _strip_prefix(
    _module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict[str, Any]
) -> None:
    start = prefix + _PREFIX
    for key in [key for key in state if key.startswith(prefix)]:
        # Taking each key out and putting it back keeps the order of the tensors.
        tensor = state.pop(key)
        state[prefix + key.removeprefix(start) if key.startswith(start) else key] = tensor


def _add_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, *_others: object) -> None:
    own = {name for name, _ in module.named_children()}
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.split(".")[0] not in own:
            state[prefix + _PREFIX + name] = state.pop(key)
