"""SEAM: a multilabel classifier whose class activation maps are refined by pixel correlation.

Wang et al., *Self-supervised Equivariant Attention Mechanism*, CVPR 2020, without a background class as in
Li, Zhang & Xiao, *One Model Is Enough*, IEEE TGRS 61, 2023.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.errors import UserError
from ome.networks.attention import attend
from ome.networks.backbone_network import BackboneNetwork
from ome.networks.features import Backbone, Features, resize_maps
from ome.networks.pcm import ENTRIES, clean_cam, pixel_correlation
from ome.networks.pooling import Pooling


class CamPair(NamedTuple):
    """Raw and refined class activation maps, each (B, C, H, W) at the input's size.

    Without any refinement, both are the raw maps.
    """

    cam: Tensor
    refined: Tensor


class SeamNetwork(BackboneNetwork):
    """A backbone with a CAM head and refinement of the CAM: SEAM's pixel correlation module, or attention.

    Without either it is the plain CAM network (Zhou et al., CVPR 2016).

    Args:
        backbone: Computes the features.
        num_classes: Number of classes C; there is no background class.
        entries: Entries of the affinity matrices computed at a time; None computes them as a whole.
        pcm: Whether to use the pixel correlation module; without it, its three layers do not exist.
        attention: Temperature of the attention between the encoder's queries, by which maps are averaged in
            eval mode; see `attend`. None for no attention.
        zoom: Factor by which images are enlarged bilinearly before the backbone; time and memory grow with
            its square.
        pooling: How maps become scores, see `pool_maps`; not used in `forward`.

    Raises:
        UserError: `attention` is given, but the backbone has none.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        entries: int | None = ENTRIES,
        *,
        pcm: bool = True,
        attention: float | None = None,
        zoom: float = 1.0,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__(backbone)
        for name, parameter in backbone.named_parameters():
            if name in backbone.only_low:  # the pixel correlation module trains no features
                parameter.requires_grad_(False)
        if attention is not None and not backbone.attends:
            raise UserError(
                "classifier.attention needs an encoder whose last but one stage attends to the whole image: "
                "type backbone=mit_b0, or classifier.attention=null"
            )
        self.entries = entries
        self.pcm = pcm
        self.attention = attention
        self.zoom = zoom
        self.pooling: Pooling = pooling
        low, middle, final = backbone.channels
        self.dropout = nn.Dropout2d(0.5)
        self.fc8 = nn.Conv2d(final, num_classes, 1, bias=False)
        if pcm:
            self.f8_3 = nn.Conv2d(low, 64, 1, bias=False)
            self.f8_4 = nn.Conv2d(middle, 128, 1, bias=False)
            self.f9 = nn.Conv2d(backbone.in_channels + 64 + 128, 192, 1, bias=False)
            nn.init.xavier_uniform_(self.fc8.weight)
            nn.init.kaiming_normal_(self.f8_3.weight)
            nn.init.kaiming_normal_(self.f8_4.weight)
            nn.init.xavier_uniform_(self.f9.weight, gain=4)
        else:
            # Large initial weights would remain as noise in directions that the tags do not train.
            nn.init.normal_(self.fc8.weight, std=0.01)

    @property
    def description(self) -> dict[str, Any] | None:
        """See `BackboneNetwork.description`."""
        backbone, classes = super().description, {"num_classes": self.fc8.out_channels}
        switches = {name: getattr(self, name) for name in ("pcm", "attention", "zoom", "pooling")}
        return None if backbone is None else backbone | classes | switches

    def forward(self, image: Tensor) -> CamPair:
        """Computes raw and refined CAMs.

        Gradients of the map refined by pixel correlation reach f8_3, f8_4 and f9 only: the CAM and the
        features are detached. Attention refines in eval mode only; it is not part of any loss.

        Args:
            image: Normalised images (B, bands, H, W), float.

        Returns:
            Both maps (B, C, H, W), at least float32, upsampled bilinearly (align_corners) to the input's
            size. The raw map may be negative.
        """
        size = image.shape[2:]
        if self.zoom != 1:
            enlarged = [max(1, round(self.zoom * length)) for length in size]
            image = F.interpolate(image, enlarged, mode="bilinear", align_corners=False)
        queries: list[Tensor] = []
        if self.attention is None or self.training:
            features = self.backbone(image)
        else:
            features, queries = self.backbone.features_and_queries(image)
        cam = self.fc8(self.dropout(features.final))
        # Under autocast the maps would be half precision, too coarse for the 1e-5 terms of the refinement.
        cam = cam.to(torch.promote_types(cam.dtype, torch.float32))
        refined = self._correlate(image, features, cam) if self.pcm else cam
        if self.attention is not None and queries:
            finest = resize_maps(F.relu(refined), queries[0].shape[3:])
            refined = attend(finest, queries, self.attention, self.entries)
        return CamPair(resize_maps(cam, size), resize_maps(refined, size))

    def _correlate(self, image: Tensor, features: Features, cam: Tensor) -> Tensor:
        """Refines a CAM (B, C, h, w) by pixel correlation."""
        grid = cam.shape[2:]
        low = F.relu(self.f8_3(resize_maps(features.low.detach(), grid)))
        middle = F.relu(self.f8_4(resize_maps(features.middle.detach(), grid)))
        embedding = self.f9(torch.cat([resize_maps(image, grid), low, middle], dim=1))
        return pixel_correlation(clean_cam(cam), embedding, self.entries)
