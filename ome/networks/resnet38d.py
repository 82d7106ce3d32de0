"""ResNet38d: the wide pre-activation ResNet A1 with dilation, output stride 8, 105 M parameters.

Architecture: Wu, Shen & van den Hengel, *Wider or Deeper*, 2016 (model A1), dilated as in AffinityNet
(Ahn & Kwak, CVPR 2018). Tensor names follow the published checkpoints.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ome.networks.features import Backbone, Features


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
        """Returns the block's output and the activated (BatchNorm, ReLU) input it starts from."""
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block's output and the activated (BatchNorm, ReLU) input it starts from."""
        activated = F.relu(self.bn_branch2a(x), inplace=True)
        branch = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(activated)), inplace=True))
        branch = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch)), inplace=True))
        total = self.conv_branch2b2(branch)
        total += self.conv_branch1(activated)
        return total, activated


class ResNet38d(Backbone):
    """The backbone of AffinityNet, SEAM and OME.

    `Features.low` (512 channels) and `.middle` (1024) are the activated inputs of b5 and b6; `.final` (4096)
    is the activated output of b7. All three lie on the stride-8 grid.

    Args:
        in_channels: Bands of the input image.
    """

    channels = (512, 1024, 4096)
    output_stride = 8
    frozen = ("conv1a", "b2")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1a = _conv(in_channels, 64, 3)
        inputs = 64
        self._blocks: list[str] = []
        for name, outputs, count in (("b2", 128, 3), ("b3", 256, 3), ("b4", 512, 6)):
            self._add(name, ResidualBlock(inputs, outputs, outputs, stride=2))
            for index in range(1, count):
                self._add(f"{name}_{index}", ResidualBlock(outputs, outputs, outputs))
            inputs = outputs
        self._add("b5", ResidualBlock(512, 512, 1024, dilation=(1, 2)))
        self._add("b5_1", ResidualBlock(1024, 512, 1024, dilation=(2, 2)))
        self._add("b5_2", ResidualBlock(1024, 512, 1024, dilation=(2, 2)))
        self._add("b6", BottleneckBlock(1024, 2048, dilation=4, dropout=0.3))
        self._add("b7", BottleneckBlock(2048, 4096, dilation=4, dropout=0.5))
        self.bn7 = nn.BatchNorm2d(4096)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def _add(self, name: str, block: nn.Module) -> None:
        self.add_module(name, block)
        self._blocks.append(name)

    def forward(self, image: Tensor) -> Features:
        """Computes the features; see `Backbone.forward`."""
        x = self.conv1a(image)
        activated: dict[str, Tensor] = {}
        for name in self._blocks:
            x, entering = self.get_submodule(name)(x)
            if name in {"b5", "b6"}:
                activated[name] = entering
        return Features(activated["b5"], activated["b6"], F.relu(self.bn7(x), inplace=True))
