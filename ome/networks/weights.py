"""Loading weights: published checkpoints, files converted from other libraries, and the hubs."""

import logging
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ome.errors import UserError
from ome.networks.hub import download_encoder
from ome.networks.packaged import PACKAGE, packaged_encoder
from ome.networks.statistics import check_convertible, converted, statistics_of
from ome.progress import console

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors", ".params")
# What checkpoints and wrappers put before a network's own names; ignored on both sides of the comparison.
_WRAPPERS = frozenset({"module", "model", "network", "backbone", "encoder", "state_dict", "net", "_orig_mod"})
_BRANCHES = (
    *("teacher", "student", "encoder_q", "online_encoder", "base_encoder"),
    *("encoder_k", "target_encoder", "momentum_encoder"),
)
"""What self-supervised training calls its networks, the one to take first."""
_ENOUGH = 0.9


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave a network.

    Attributes:
        loaded: The network's tensors that were set.
        missing: The network's tensors the checkpoint lacks; they keep their initial values.
        unexpected: The checkpoint's tensors the network has no place for, such as a classifier head.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def looks_like_file(weights: str) -> bool:
    """Tells a path from the name of published weights."""
    return "/" in weights or "\\" in weights or weights.endswith(SUFFIXES) or Path(weights).is_file()


def load_weights(module: nn.Module, source: Path | str) -> LoadReport:
    """Loads a local checkpoint into a network.

    Tensors are matched by name after wrapper prefixes ("module.", "backbone.", "encoder.", ...) are taken
    off on both sides. A first convolution for three bands is spread over any other number of bands.

    Args:
        module: The network; its tensors are overwritten in place.
        source: A `.pth`-like file (a state dict, bare or under "state_dict") or a `.safetensors` file.

    Returns:
        Which tensors were loaded, which are missing and which were left out. Also written to the log.

    Raises:
        UserError: The file is missing, unreadable, or fits less than nine tenths of the network.
    """
    return load_tensors(module, read_checkpoint(Path(source)), str(source))


def load_classifier(network: nn.Module, source: Path | str, names: Sequence[str]) -> None:
    """Loads a whole trained classifier, such as a published `resnet38_SEAM.pth`.

    Args:
        network: A `SeamNetwork`; its tensors are overwritten in place.
        source: See `load_weights`.
        names: The C class names. A checkpoint says how many classes it knows, not which: their order has to
            be the same.

    Raises:
        UserError: The file cannot be read, tells another number of classes apart, or is not the whole of this
            network and nothing else.
    """
    tensors = read_checkpoint(Path(source), "stage.cam.checkpoint")
    classes = [len(tensor) for name, tensor in tensors.items() if _bare(name) == "fc8.weight"]
    if classes and classes != [len(names)]:
        raise UserError(
            f"{source} has {classes[0]} classes and the dataset has {len(names)} "
            f"({', '.join(names)}): stage.cam.checkpoint has to know these classes, without background"
        )
    first = first_convolution(network)
    given, wanted = _by_bare_name(tensors).get(_alike(first)), network.state_dict()[first].shape[1]
    if given is not None and given[1].ndim == 4 and given[1].shape[1] != wanted:
        raise UserError(
            f"{source} is for images of {given[1].shape[1]} bands, and the dataset's have {wanted} "
            "(dataset.channels): a whole classifier fits its own number only"
        )
    report = load_tensors(network, tensors, str(source))
    if report.missing or report.unexpected:
        raise UserError(
            f"{source} does not fit the classifier: missing keys {_few(report.missing) or 'none'}, "
            f"unexpected keys {_few(report.unexpected) or 'none'}; for a backbone's weights type "
            "backbone.weights=..."
        )


def load_encoder(encoder: nn.Module, name: str, weights: str) -> LoadReport:
    """Loads a local file or published weights into a segmentation-models-pytorch or timm encoder.

    Args:
        encoder: What `segmentation_models_pytorch.encoders.get_encoder` built.
        name: The encoder's name.
        weights: A path, "package" (see `packaged_encoder`), or a name such as "imagenet" (timm: also a tag
            such as "a1_in1k").

    Raises:
        UserError: There are no such weights, the hub cannot be reached, or the file does not fit.
    """
    source = weights if looks_like_file(weights) else f"{name} {weights}"
    check_convertible(encoder, name, weights)
    if looks_like_file(weights):
        tensors = read_checkpoint(Path(weights))
    elif weights == PACKAGE:
        tensors = packaged_encoder(name)
    else:
        tensors = download_encoder(name, weights)
    report = load_tensors(encoder, tensors, source)
    if report.missing:
        raise UserError(
            f"{source} does not fit encoder {name!r}: missing keys {_few(report.missing)}, unexpected keys "
            f"{_few(report.unexpected, 8) or 'none'}; give the weights of this encoder"
        )
    converted(encoder, statistics_of(name, weights))
    return report


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copies tensors into a network by name; see `load_weights`.

    Dots and underscores in names are alike, as timm's networks of feature maps write `stem_0` for `stem.0`.

    Args:
        module: The network.
        tensors: The checkpoint's tensors by name.
        source: What to call the checkpoint in messages.

    Raises:
        UserError: The number of bands or another shape differs, or fewer than nine tenths of the network's
            tensors are there.
    """
    own, given = _by_bare_name(module.state_dict()), _by_bare_name(tensors)
    fitting: dict[str, Tensor] = {}
    misfits = []
    first = first_convolution(module)
    for bare, (name, tensor) in own.items():
        if bare in given:
            value = _spread_bands(given[bare][1], tensor.shape)
            if value.shape == tensor.shape:
                fitting[name] = value
            elif name == first and value.shape[1:2] != tensor.shape[1:2]:
                raise UserError(
                    f"{source} is for images of {value.shape[1]} bands, and the dataset's have "
                    f"{tensor.shape[1]} (dataset.channels): only weights for 3 bands fit other numbers"
                )
            else:
                misfits.append(f"{name} {list(value.shape)} instead of {list(tensor.shape)}")
    if misfits:
        raise UserError(
            f"{source}: {len(misfits)} tensors have another shape than the network's: {_few(misfits)}"
        )
    # Checkpoints older than the counter lack it, and nothing but training with momentum=None reads it.
    required = [name for name, _ in own.values() if not name.endswith("num_batches_tracked")]
    missing = tuple(name for name in required if name not in fitting)
    if len(missing) > (1 - _ENOUGH) * len(required):
        raise UserError(
            f"{source}: {len(missing)} of the network's {len(required)} tensors are not in it "
            f"({_few(missing)}); it has {_few(tensors)}: these are another network's weights"
        )
    module.load_state_dict(fitting, strict=False)
    unexpected = tuple(name for bare, (name, _) in given.items() if bare not in own)
    logger.info("%s: %d tensors loaded, left out: %s", source, len(fitting), _few(unexpected) or "none")
    if missing:
        logger.warning("%s: %d tensors keep random values: %s", source, len(missing), _few(missing))
    return LoadReport(tuple(fitting), missing, unexpected)


def read_checkpoint(path: Path, option: str = "backbone.weights") -> dict[str, Tensor]:
    """Reads a checkpoint's tensors without unpickling anything but tensors and plain containers.

    Args:
        path: The file.
        option: The configuration key that names it, for messages.

    Raises:
        UserError: The file does not exist, or it holds no tensors that can be read safely.
    """
    if not path.is_file():
        raise UserError(f"weights file does not exist: {path}; give another: {option}=/path/file.pth")
    if path.suffix == ".params":
        raise UserError(
            f"{path} is an MXNet file; convert it once: "
            f"python scripts/convert_mxnet.py {path} {path.with_suffix('.pth')}"
        )
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a checkpoint of plain tensors; save its state dict alone: "
            "torch.save(model.state_dict(), 'file.pth')"
        ) from error
    except Exception as error:  # whatever the bytes of another kind of file make of the reader
        raise UserError(f"{path} is truncated or not a checkpoint; copy or download it again") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = _one_branch(_named_tensors(content), path) if isinstance(content, Mapping) else {}
    if not tensors:
        raise UserError(
            f"{path} holds no named tensors; give a file written by torch.save(model.state_dict(), ...)"
        )
    return tensors


def _named_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors, also those one level below a network's name."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for branch in _BRANCHES:
        below = content.get(branch)
        if isinstance(below, Mapping):
            tensors |= {f"{branch}.{key}": value for key, value in below.items() if isinstance(value, Tensor)}
    return tensors


def _one_branch(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of one network, where the file has several, such as student and teacher."""
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        branch, _, rest = _bare(name).partition(".")
        if branch in _BRANCHES and rest:
            branches.setdefault(branch, {})[rest] = tensor
    if not branches:
        return tensors
    chosen, *others = sorted(branches, key=_BRANCHES.index)
    if others:
        console.print(
            f"[yellow]{path} holds several networks[/]: {chosen} is taken, not {' or '.join(others)}; for "
            f"another one save it alone, e.g. torch.save(content['{others[0]}'], 'file.pth')",
            highlight=False,
        )
    return branches[chosen]


def first_convolution(module: nn.Module) -> str:
    """Name of the kernel (out, bands, k, k) that takes the image."""
    return next((name for name, tensor in module.state_dict().items() if tensor.ndim == 4), "")


def _bare(name: str) -> str:
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


def _alike(name: str) -> str:
    return _bare(name).replace(".", "_")


def _by_bare_name(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    bare = {_alike(name): (name, tensor) for name, tensor in tensors.items()}
    if len(bare) == len(tensors):
        return bare
    return {name.replace(".", "_"): (name, tensor) for name, tensor in tensors.items()}


def _few(names: Iterable[str], count: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")


def _spread_bands(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Spreads a kernel (out, 3, k, k) over another number of bands; a grey image's response stays alike."""
    if tensor.ndim != 4 or tensor.shape[1] != 3 or shape[1] == 3 or len(shape) != 4:
        return tensor
    if (tensor.shape[0], *tensor.shape[2:]) != (shape[0], *shape[2:]):
        return tensor
    if shape[1] == 1:
        return tensor.sum(dim=1, keepdim=True)
    return tensor[:, torch.arange(shape[1]) % 3] * (3 / shape[1])
