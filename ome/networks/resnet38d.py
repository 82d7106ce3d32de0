"""ResNet38d: the wide pre-activation ResNet A1 with dilation, output stride 8, 105 M parameters.

Architecture: Wu, Shen & van den Hengel, *Wider or Deeper*, 2016 (model A1), dilated as in AffinityNet
(Ahn & Kwak, CVPR 2018). Tensor names follow the published checkpoints.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ome.networks.features import Backbone, Features
from ome.networks.strips import empty_like_part, in_strips, strips

STRIP_PIXELS = 1 << 19
"""Pixels of the images whose largest maps are computed at a time in inference."""

_EARLY = ("b2", "b2_1", "b2_2", "b3")
_LATER = ("b3_1", "b3_2", "b4", "b4_1", "b4_2", "b4_3", "b4_4", "b4_5")
_EARLY_HALO = 18
"""Reach of the 3x3 convolutions in rows of the image: conv1a 1, b2 1 + 2, b2_1, b2_2 2 + 2 each, b3 2 + 4."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, added to the input or its 1x1 projection."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, *, stride: int = 1, dilation: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv(inputs, middle, 3, stride, dilation[0])
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = _conv(middle, outputs, 3, dilation=dilation[1])
        if inputs != outputs or stride != 1:
            self.conv_branch1: nn.Conv2d | None = _conv(inputs, outputs, 1, stride)
        else:
            self.conv_branch1 = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block's output and its activated (BatchNorm, ReLU) input."""
        activated = F.relu(self.bn_branch2a(x), inplace=True)
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(activated)), inplace=True)
        total = self.conv_branch2b1(branch)
        total += x if self.conv_branch1 is None else self.conv_branch1(activated)
        return total, activated


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with dropout before the last two, added to a 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv(inputs, outputs // 4, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.conv_branch2b1 = _conv(outputs // 4, outputs // 2, 3, dilation=dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.conv_branch2b2 = _conv(outputs // 2, outputs, 1)
        self.conv_branch1 = _conv(inputs, outputs, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, above: int = 0, below: int = 0) -> tuple[Tensor, Tensor]:
        """Computes the block.

        Args:
            x: (B, inputs, h, w).
            above: Number of first rows of `x` that are only context and have no output, at most the
                dilation; fewer mean that the image begins there.
            below: The same for the last rows.

        Returns:
            The output and the activated (BatchNorm, ReLU) input, both without the context rows.
        """
        activated = F.relu(self.bn_branch2a(x), inplace=True)
        branch = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(activated)), inplace=True))
        if above or below:
            (reach, _), weight = self.conv_branch2b1.dilation, self.conv_branch2b1.weight
            activated = activated[:, :, above : activated.shape[2] - below]
            branch = F.pad(branch, (reach, reach, reach - above, reach - below))
            branch = F.conv2d(branch, weight, dilation=reach)
        else:
            branch = self.conv_branch2b1(branch)
        branch = self.dropout(F.relu(self.bn_branch2b2(branch), inplace=True))
        total = self.conv_branch2b2(branch)
        total += self.conv_branch1(activated)
        return total, activated


class ResNet38d(Backbone):
    """The backbone of AffinityNet, SEAM and OME.

    `Features.low` (512 channels) and `.middle` (1024) are the activated inputs of b5 and b6; `.final` (4096)
    is the activated output of b7. All three lie on the stride-8 grid.

    In eval mode without gradients, memory is saved in two ways: a large batch is computed a few images at a
    time, and in large images the maps up to b3 (many pixels) and from b6 on (many channels) are computed
    strip by strip.

    Args:
        in_channels: Bands of the input image.
    """

    channels = (512, 1024, 4096)
    output_stride = 8
    frozen = ("conv1a", "b2")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.name = "resnet38d"
        self.in_channels = in_channels
        self.strip_pixels = STRIP_PIXELS
        self.conv1a = _conv(in_channels, 64, 3)
        inputs = 64
        for name, outputs, count in (("b2", 128, 3), ("b3", 256, 3), ("b4", 512, 6)):
            self.add_module(name, ResidualBlock(inputs, outputs, outputs, stride=2))
            for index in range(1, count):
                self.add_module(f"{name}_{index}", ResidualBlock(outputs, outputs, outputs))
            inputs = outputs
        self.b5 = ResidualBlock(512, 512, 1024, dilation=(1, 2))
        self.b5_1 = ResidualBlock(1024, 512, 1024, dilation=(2, 2))
        self.b5_2 = ResidualBlock(1024, 512, 1024, dilation=(2, 2))
        self.b6 = BottleneckBlock(1024, 2048, dilation=4, dropout=0.3)
        self.b7 = BottleneckBlock(2048, 4096, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(4096)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image: Tensor) -> Features:
        """Computes the features; see `Backbone.forward`."""
        if self.training or torch.is_grad_enabled():
            x, low = self._inner(self._early(image))
            x, middle = self.b6(x)
            x, _ = self.b7(x)
            return Features(low, middle, self._activated(x))
        batch = max(1, self.strip_pixels // (image.shape[2] * image.shape[3]))
        if len(image) > batch:
            return self._in_batches(image, batch)
        rows = max(8, self.strip_pixels // (len(image) * image.shape[3]))
        x, low = self._inner(in_strips(self._early, image, rows=rows, halo=_EARLY_HALO, stride=4))
        middle = F.relu(self.b6.bn_branch2a(x), inplace=True)
        # Only one layer of these blocks needs context rows, so narrow strips cost little.
        rows = max(1, rows // 32)
        x = _bottleneck_in_strips(self.b6, nn.Identity(), x, rows)
        return Features(low, middle, _bottleneck_in_strips(self.b7, self._activated, x, rows))

    def _in_batches(self, image: Tensor, batch: int) -> Features:
        """Computes a few images at a time; strips of all of them would be narrow and mostly halo."""
        whole: Features | None = None
        for first in range(0, len(image), batch):
            features = self(image[first : first + batch])
            whole = whole or Features(*(empty_like_part(maps, 0, len(image)) for maps in features))
            for target, maps in zip(whole, features, strict=True):
                target[first : first + batch] = maps
        assert whole is not None  # noqa: S101 - there is an image
        return whole

    def _early(self, image: Tensor) -> Tensor:
        """Computes the output of b3 on the stride-4 grid from the image."""
        x: Tensor = self.conv1a(image)
        return self._through(x, _EARLY)

    def _inner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the output of b5_2 and the activated input of b5, both on the stride-8 grid, from b3's."""
        x, low = self.b5(self._through(x, _LATER))
        return self._through(x, ("b5_1", "b5_2")), low

    def _through(self, x: Tensor, names: Sequence[str]) -> Tensor:
        for name in names:
            x, _ = self.get_submodule(name)(x)
        return x

    def _activated(self, x: Tensor) -> Tensor:
        return F.relu(self.bn7(x), inplace=True)


def _bottleneck_in_strips(
    block: BottleneckBlock, after: Callable[[Tensor], Tensor], x: Tensor, rows: int
) -> Tensor:
    """Computes `after(block(x)[0])` strip by strip; `after` is a pixelwise layer."""
    (reach, _), height = block.conv_branch2b1.dilation, x.shape[2]
    if rows >= height:
        return after(block(x)[0])
    whole: Tensor | None = None
    for strip in strips(height, rows, reach):
        part = after(block(strip.of(x), strip.above, strip.below)[0])
        whole = empty_like_part(part, 2, height) if whole is None else whole
        whole[:, :, strip.top : strip.bottom] = part
    assert whole is not None  # noqa: S101 - an image has rows
    return whole
