"""A second, shallow head for training a segmenter's encoder; prediction does not need it."""

from torch import nn


class AuxiliaryHead(nn.Sequential):
    """FCN head on an encoder's third stage, as in mmsegmentation's PSPNet: 3x3 convolution, dropout, 1x1.

    It computes logits (B, num_classes, h, w) of features (B, channels, h, w).

    Args:
        channels: Channels of the features; inside, the head has a quarter of them.
        num_classes: Number of classes C.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        width = max(1, channels // 4)
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        classifier = nn.Conv2d(width, num_classes, 1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.normal_(classifier.weight, std=0.01)
        super().__init__(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1), classifier)
