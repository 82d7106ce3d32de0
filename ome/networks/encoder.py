"""Any segmentation-models-pytorch or timm encoder as the classifier's backbone."""

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from ome.errors import UserError, few, first_line, sharing_words
from ome.networks.features import Backbone, Features, pad_to_multiple, reached, train_only

TIMM_PREFIX = "tu-"
DEEPEST_STRIDE = 32
_PROBE = 64
ALTERNATIVES = "use another, such as resnet50, convnext_tiny or vit_small_patch14_dinov2"
UNSUPPORTED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError, RuntimeError)
"""What the libraries raise for an encoder, an output stride or an image size that they do not support."""


def resolve_encoder(name: str) -> str:
    """Finds the name of an encoder in segmentation-models-pytorch.

    Args:
        name: A segmentation-models-pytorch encoder, or a timm model with or without the prefix `tu-`.

    Returns:
        The name; that of a timm model has the prefix `tu-`.

    Raises:
        UserError: Neither library has such an encoder.
    """
    known = smp.encoders.get_encoder_names()
    if name in known:
        return name
    plain = name.removeprefix(TIMM_PREFIX)
    model, _, tag = plain.partition(".")
    if timm.is_model(model):
        try:
            timm.models.get_pretrained_cfg(plain, allow_unregistered=not tag)
        except RuntimeError as error:
            there = few(timm.list_pretrained(f"{model}.*")) or "none"
            raise UserError(f"{model} has no weights with the tag {tag!r}; there are: {there}") from error
        return TIMM_PREFIX + plain
    names = sorted({"resnet38d", *known, *timm.list_models()})
    close = difflib.get_close_matches(name, names, n=4) or sharing_words(name, names)
    hint = f"did you mean {', '.join(close)}?" if close else f"see timm.list_models(), or {ALTERNATIVES}"
    raise UserError(f"unknown backbone or encoder {name!r}; {hint}")


def encoder_options(name: str) -> dict[str, bool]:
    """The arguments with which an encoder takes images of any size; only Swin needs any."""
    model = resolve_encoder(name).removeprefix(TIMM_PREFIX).split(".")[0]
    windows = timm.models.is_model_in_modules(model, ("swin_transformer", "swin_transformer_v2"))
    return {"strict_img_size": False} if windows else {}


def _make_encoder(name: str, in_channels: int, output_stride: int) -> nn.Module:
    """Builds an encoder with random weights, dilated to an output stride; see `EncoderBackbone`."""
    resolved = resolve_encoder(name)
    if output_stride not in {8, 16, 32}:
        raise UserError(f"backbone.output_stride={output_stride} must be 8, 16 or 32")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            encoder: nn.Module = smp.encoders.get_encoder(
                resolved,
                in_channels=in_channels,
                weights=None,
                output_stride=output_stride,
                **encoder_options(name),
            )
    except UNSUPPORTED_ERRORS as error:
        if output_stride == DEEPEST_STRIDE:
            raise UserError(
                f"encoder {name!r} has no pyramid of feature maps ({first_line(error)}); {ALTERNATIVES}"
            ) from error
        raise UserError(_cannot_dilate(name, in_channels, output_stride)) from error
    return encoder


def _cannot_dilate(name: str, in_channels: int, output_stride: int) -> str:
    """The message for an encoder that cannot be dilated, or that cannot be built at all."""
    try:
        EncoderBackbone(name, DEEPEST_STRIDE, in_channels)
    except UserError as error:
        return str(error)
    return (
        f"encoder {name!r} cannot be dilated to output stride {output_stride}; type "
        f"backbone.output_stride={DEEPEST_STRIDE}, or use another encoder"
    )


class EncoderBackbone(Backbone):
    """An encoder of segmentation-models-pytorch or timm as a backbone.

    `Features.low` is the last but one stage; `.middle` and `.final` are the last one. The stem and every
    stage up to stride 4 are `frozen` when pretrained.

    Args:
        name: Any name `resolve_encoder` accepts.
        output_stride: 8, 16 or 32.
        in_channels: Bands of the input image.

    Raises:
        UserError: The encoder is unknown, has no feature pyramid or does not reach the output stride.
    """

    def __init__(self, name: str, output_stride: int = 8, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = _make_encoder(name, in_channels, output_stride)
        self.name = name
        self.in_channels = in_channels
        self.output_stride = output_stride
        stages = self._probe(name)
        self.channels = (stages[-2].shape[1], stages[-1].shape[1], stages[-1].shape[1])
        if stages[-1].shape[2] != _PROBE // output_stride:
            if output_stride != DEEPEST_STRIDE:
                raise UserError(_cannot_dilate(name, in_channels, output_stride))
            stride = _PROBE // stages[-1].shape[2]
            raise UserError(
                f"encoder {name!r} has a stride of {stride} pixels and no pyramid; {ALTERNATIVES}"
            )
        # Libraries name stages differently: stem and first stage are the layers before the map at stride 4.
        early = next(stage for stage in stages if stage.shape[1] and stage.shape[2] == _PROBE // 4)
        self.frozen = reached(self, early)
        train_only(self, {*reached(self, *stages[-2:])})
        before_final = set(reached(self, stages[-1]))  # HRNet computes its stages side by side
        self.only_low = tuple(name for name in reached(self, stages[-2]) if name not in before_final)
        # PVT and MiT have a separate projection of queries, because their keys are on a coarser grid.
        self._queries = [
            (query, int(getattr(module, "num_heads", 1)))
            for module in self.encoder.modules()
            if isinstance(query := getattr(module, "q", None), nn.Linear)
            and query.out_features == self.channels[0]
        ]
        self.attends = bool(self._queries)

    def _probe(self, name: str) -> list[Tensor]:
        """Computes the maps of a small blank image, in eval mode to leave BatchNorm statistics unchanged."""
        self.encoder.eval()
        try:
            with torch.enable_grad():
                stages: list[Tensor] = self.encoder(torch.zeros(1, self.in_channels, _PROBE, _PROBE))
        except UNSUPPORTED_ERRORS as error:
            raise UserError(
                f"encoder {name!r} does not take images of any size ({first_line(error)}); {ALTERNATIVES}"
            ) from error
        self.encoder.train()
        return stages

    def forward(self, image: Tensor) -> Features:
        """Computes the features; see `Backbone.forward`.

        Several encoders only take sizes divisible by their deepest stride, so the image is padded to such a
        size and each map is cropped.
        """
        padded = pad_to_multiple(image, DEEPEST_STRIDE)
        low, final = (crop_padding(stage, image, padded) for stage in self.encoder(padded)[-2:])
        return Features(low, final, final)

    def features_and_queries(self, image: Tensor) -> tuple[Features, list[Tensor]]:
        """Computes features and queries; see `Backbone.features_and_queries`."""
        padded = pad_to_multiple(image, DEEPEST_STRIDE)
        with _outputs_of([projection for projection, _ in self._queries]) as projected:
            stages = self.encoder(padded)[-2:]
        grid = stages[0].shape[2:]
        queries = []
        for (_, heads), flat in zip(self._queries, projected, strict=True):
            # (B, h w, heads d) on the grid of the padded image.
            maps = crop_padding(flat.transpose(1, 2).reshape(len(image), -1, *grid), image, padded)
            queries.append(maps.reshape(len(image), heads, -1, *maps.shape[2:]))
        low, final = (crop_padding(stage, image, padded) for stage in stages)
        return Features(low, final, final), queries


def crop_padding(stage: Tensor, image: Tensor, padded: Tensor) -> Tensor:
    """Crops a feature map (B, channels, h, w) of a padded image to the part that shows the image."""
    stride = padded.shape[2] // stage.shape[2]
    height, width = (-(-size // stride) for size in image.shape[2:])
    return stage[:, :, :height, :width]


@contextmanager
def _outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects the outputs of modules within the block, in the order in which the modules run."""
    collected: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: collected.append(output))
        for module in modules
    ]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()
