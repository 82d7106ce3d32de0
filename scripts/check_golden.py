"""Checks golden vectors: compares outputs of the original implementation with those of this one.

    python scripts/check_golden.py tests/golden

Prints one line per quantity: file, quantity, largest error, tolerance, ok or FAIL. The exit status is 0 only
if every kind of file exists, every array of every file was used in a check, and all checks passed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from golden_arrays import Arrays, Check, disagreement, rule_weights, worst
from torch.nn import functional as F

from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters
from ome.data.array_files import read_arrays
from ome.networks.pcm import pixel_correlation
from ome.networks.resnet38d import ResNet38d
from ome.networks.seam import SeamNetwork
from ome.pseudo.fusion import normalise_cam
from ome.pseudo.uncertainty import pseudo_label
from ome.scoring.confusion import confusion_matrix
from ome.scoring.cooccurrence import cooccurrence
from ome.scoring.scores import Scores
from ome.training.schedule import poly_lr
from ome.training.seam_losses import min_pool_loss, multilabel_loss, seam_loss

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ISPRS_IGNORE = 255


def check_forward(file: Arrays) -> Iterator[Check]:
    """Both outputs of the whole network in eval mode, relative to the largest golden value."""
    image = file.tensor("image")
    seed = int(file["seed"])
    with torch.device("meta"):
        network = SeamNetwork(ResNet38d(), file["cam"].shape[1])
    network = network.to_empty(device="cpu").eval()
    network.load_state_dict(
        {name: rule_weights(name, tensor.shape, seed) for name, tensor in network.state_dict().items()}
    )
    normalised = (image / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    with torch.inference_mode():
        output = network(normalised.permute(2, 0, 1)[None])
    for name, computed in (("cam", output.cam), ("cam_rv", output.refined)):
        absolute = worst(f"{name} (relative)", computed, file[name], 1e-4)
        yield absolute._replace(error=absolute.error / float(np.abs(file[name]).max()))


def check_state_dict(path: Path) -> Iterator[Check]:
    """Names and shapes of the network's tensors; the number of classes is read from the file."""
    golden: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    with torch.device("meta"):
        network = SeamNetwork(ResNet38d(), golden["fc8.weight"][0])
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    differing = sum(shapes.get(name) != golden.get(name) for name in shapes.keys() | golden.keys())
    yield Check("names and shapes that differ", differing, 0)


def check_pcm(file: Arrays) -> Iterator[Check]:
    """The pixel correlation module, with the affinity as a whole and in blocks of columns."""
    cam, refined = file.tensor("cam"), file["refined"]
    embedding = F.conv2d(file.tensor("features"), file.tensor("f9_weight"))
    block = max(1, cam.shape[2] * cam.shape[3] // 3)
    yield worst("refined", pixel_correlation(cam, embedding, None), refined, 1e-5)
    yield worst(f"refined in blocks of {block}", pixel_correlation(cam, embedding, block), refined, 1e-5)


def check_losses(file: Arrays) -> Iterator[Check]:
    """Every term of SEAM's loss."""
    view1, view2 = ((file.tensor(f"cam{i}"), file.tensor(f"cam_rv{i}")) for i in (1, 2))
    tags = file.tensor("label")
    for index, (cam, refined) in enumerate((view1, view2), start=1):
        multilabel, min_pool = f"loss_multilabel_{index}", f"loss_min_pool_{index}"
        yield worst(multilabel, multilabel_loss(cam.mean(dim=(2, 3)), tags), file[multilabel], 1e-5)
        yield worst(min_pool, min_pool_loss(refined, tags), file[min_pool], 1e-5)
    loss = seam_loss(view1, view2, tags)
    for name, term in (("loss_cls", loss.classification), ("loss_er", loss.er), ("loss_ecr", loss.ecr)):
        yield worst(name, term, file[name], 1e-5)


def check_fusion(file: Arrays) -> Iterator[Check]:
    """Fused multi-scale CAM and its argmax; every second map is that of the flipped image."""
    maps = file.tensor("upsampled").clone()
    maps[1::2] = maps[1::2].flip(-1)
    fused = normalise_cam(maps.sum(0), file.tensor("label")).numpy()
    yield worst("norm_cam", fused, file["norm_cam"], 1e-5)
    yield disagreement("pred (share of pixels)", fused.argmax(axis=0), file["pred"], 0.0)


def check_uncertainty(file: Arrays) -> Iterator[Check]:
    """CRF, pseudo mask and uncertainty weight of one tile."""
    maps = file["cam"]
    cam = np.zeros((int(file["num_classes"]), *maps.shape[1:]), np.float32)
    cam[file["classes"]] = maps
    label = pseudo_label(DenseCrf(file["image"], CrfParameters()), cam)
    yield worst("crf_prob", label.probabilities, file["crf_prob"], 5e-3)
    yield disagreement("argmax (share of pixels)", label.cam_argmax, file["argmax"], 0.0)
    yield disagreement("crf (share of pixels)", label.mask, file["crf"], 1e-3)
    yield disagreement("weight (share of pixels)", label.weight, file["weight"], 5e-3)


def check_cooccurrence(file: Arrays) -> Iterator[Check]:
    """Conditional probabilities of classes given others."""
    yield worst("matrix", cooccurrence(file["labels"]), file["matrix"], 1e-12)


def check_metrics(file: Arrays) -> Iterator[Check]:
    """The confusion matrix and every score derived from it; 0 is clutter and ignored, class k is k + 1."""
    reference = file["gt_with_zero_clutter"].astype(np.int64)
    ignored = (reference == 0) | (reference == ISPRS_IGNORE)
    reference = np.where(ignored, ISPRS_IGNORE, reference - 1)
    num_classes = len(file["confusion"])
    matrix = confusion_matrix(file["pred"], reference, num_classes)
    scores = Scores(matrix, tuple(str(index) for index in range(num_classes)))
    yield worst("confusion", matrix, file["confusion"], 1e-12)
    for name in ("iou", "miou", "f1", "oa", "kappa", "fwiou"):
        yield worst(name, getattr(scores, name), file[name], 1e-12)
    # Precision divides by the column sums of predictions, recall by the row sums of the reference.
    yield worst("precision_axis0", scores.precision, file["precision_axis0"], 1e-12)
    yield worst("recall_axis1", scores.recall, file["recall_axis1"], 1e-12)


def check_poly_lr(file: Arrays) -> Iterator[Check]:
    """The learning rate at every step, including steps after the last."""
    base, last, power = float(file["base_lr"]), int(file["max_step"]), float(file["power"])
    rates = [poly_lr(base, step, last, power) for step in range(len(file["lr"]))]
    yield worst("lr", rates, file["lr"], 1e-9)


ARRAY_KINDS: dict[str, Callable[[Arrays], Iterator[Check]]] = {
    "seam_forward_*c.npz": check_forward,
    "pcm*.npz": check_pcm,
    "seam_losses*.npz": check_losses,
    "msf_fusion*.npz": check_fusion,
    "uncertainty_*.npz": check_uncertainty,
    "cooccurrence*.npz": check_cooccurrence,
    "metrics*.npz": check_metrics,
    "poly_lr*.npz": check_poly_lr,
}
STATE_DICT = "seam_state_dict_*c.json"
KINDS = (STATE_DICT, *ARRAY_KINDS)


def run_checks(path: Path, kind: str) -> Iterator[Check]:
    """Runs the checks of one file; an array that none of them reads is a failed check."""
    if kind == STATE_DICT:
        yield from check_state_dict(path)
        return
    file = Arrays(read_arrays(path))
    yield from ARRAY_KINDS[kind](file)
    for name in sorted(file.unread):
        yield Check(f"{name} is in no check", float("inf"), 0)


def check_file(path: Path, kind: str) -> bool:
    """Prints a line for each check of one file; returns whether all passed."""
    passed = True
    try:
        for check in run_checks(path, kind):
            measured = f"{check.error:9.2e}  tolerance {check.tolerance:.0e}"
            print(f"{path.name:24} {check.quantity:30} {measured}  {'ok' if check.passed else 'FAIL'}")
            passed &= check.passed
    except Exception as error:  # noqa: BLE001 - a changed file can break a check anywhere
        reason = " ".join(str(error).split())[:160]
        print(f"{path.name:24} {type(error).__name__}: {reason}  FAIL")
        return False
    return passed


def check_folder(folder: Path) -> bool:
    """Checks every file of every kind in a folder; a kind without any file fails."""
    passed = True
    for kind in KINDS:
        paths = sorted(folder.glob(kind))
        if not paths:
            print(f"{kind:24} no such file in {folder}  FAIL")
        failed = [path for path in paths if not check_file(path, kind)]
        passed &= bool(paths) and not failed
    return passed


def main() -> int:
    """Reads the command line and returns the exit status."""
    parser = argparse.ArgumentParser(description="Checks golden vectors of the original implementation.")
    parser.add_argument("folder", type=Path, help="folder of golden files, such as tests/golden")
    passed = check_folder(parser.parse_args().folder)
    print("all checks passed" if passed else "some checks FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
