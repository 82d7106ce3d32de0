"""Two real processes on the CPU against one: losses, gradients, BatchNorm, counts, and how they end."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from ome.data.datamodules import TileDataModule
from ome.data.datasets import Batch
from ome.data.tiles import Tile
from ome.distributed import local
from ome.distributed.batchnorm import synchronise_batchnorm
from ome.distributed.collectives import all_reduce_sum, barrier, gather, is_rank_zero, rank, shard, world_size
from ome.distributed.local import run_in_processes, why_ended
from ome.distributed.processes import LostProcessError, group
from ome.distributed.rank import Place
from ome.distributed.signals import Stopped
from ome.errors import UserError
from ome.files import read_csv
from ome.networks.affinity import AffinityNetwork
from ome.networks.seam import SeamNetwork
from ome.networks.segmenters import build_segmenter
from ome.scoring.confusion import confusion_matrix
from ome.training.affinity import AffinityLearner
from ome.training.clipping import ClippedModule
from ome.training.fit import CHECKPOINT, fit
from ome.training.hardware import Hardware
from ome.training.optimizers import Optimization
from ome.training.seam import SeamClassifier
from ome.training.segmenter import UncertaintyWeightedSegmenter
from ome.training.segmenter_loss import SegmenterLoss
from ome.training.underfitting import PretendedUnderfitting
from tests.test_affinity import TinyBackbone, two_halves
from tests.test_training import Pixelwise, Tiles

CPU = Hardware(accelerator="cpu", strategy="ddp", devices=2, workers=0)
TILES = 7
"""An odd number: one process has one tile more than the other."""


class TinySeam(nn.Module):
    """A raw and a refined map of two classes, behind a live BatchNorm."""

    pcm, description = True, None
    pooling = "competing"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.raw, self.refining = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(image)
        return self.raw(features), self.refining(features.detach())

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]


class Normalised(Pixelwise):
    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(image))
        return logits


class Pictures(Dataset[Batch]):
    """Seven random pictures with tags and masks; one may have no numbers in it."""

    pixels = 64

    def __init__(self, broken: int | None = None) -> None:
        self.tiles = [Tile("scene", 0, 8 * column, 8, 8) for column in range(TILES)]
        self._broken = broken

    def __len__(self) -> int:
        return TILES

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        index = key[0] if isinstance(key, tuple) else key
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 8, 8, generator=generator) + index
        if index == self._broken:
            image.fill_(torch.nan)
        mask = torch.randint(0, 2, (8, 8), generator=generator)
        batch = {"image": image, "tags": torch.tensor([1.0, float(index % 2)])}
        return batch if isinstance(key, tuple) else batch | {"mask": mask}


def train(folder: Path, epochs: int = 3, broken: int | None = None) -> None:
    """Trains SEAM by real Lightning, in as many processes as there are."""
    torch.manual_seed(3)
    data = TileDataModule(Pictures(broken), Pictures(), batch=2, seed=5, epochs=epochs)  # type: ignore[arg-type]
    module = SeamClassifier(
        TinySeam(),  # type: ignore[arg-type]
        ("a", "b"),
        total_steps=data.total_steps,
        optimizer=Optimization(lr=0.05),
        rescale=(1.0, 6.0),
    )
    fit(
        module,
        data,
        epochs=data.epochs,
        total_steps=data.total_steps,
        folder=folder,
        title="tiny",
        seed=0,
        hardware=CPU,
    )


def train_segmenter(folder: Path) -> None:
    """Trains a segmenter with a frozen encoder."""
    torch.manual_seed(3)
    data = TileDataModule(Tiles(), batch=2, seed=5, epochs=2)  # type: ignore[arg-type]
    module = UncertaintyWeightedSegmenter(
        Normalised(), total_steps=data.total_steps, optimizer=Optimization(lr=0.1), freeze_batchnorm=True
    )
    settings: Any = {"epochs": 2, "total_steps": data.total_steps, "title": "frozen", "seed": 0}
    fit(module, data, folder=folder, hardware=CPU, **settings)


def gradients(module: Any, parts: Batch) -> list[Tensor]:  # noqa: ANN401
    """Gradients of a training step, by real DDP where there are two processes, each with half a batch."""
    module.log = lambda *_args, **_kwargs: None
    step: Callable[..., Tensor] = module.training_step
    if world_size() > 1:
        synchronise_batchnorm(module, torch.device("cpu"))
        # DDP wraps `forward`; Lightning leads it to the training step as well.
        module.forward = step
        step = DistributedDataParallel(module)
        half = len(parts["image"]) // 2
        parts = {name: part[half * rank() : half * (rank() + 1)] for name, part in parts.items()}
    step(parts).backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


def segmenter_gradients() -> list[list[Tensor]]:
    """Of losses with every divisor, and of an under-fitting switched by the mean over all processes."""
    generator = torch.Generator().manual_seed(6)
    image = torch.randn(4, 1, 4, 4, generator=generator)
    mask = torch.randint(0, 2, (4, 4, 4), generator=generator)
    mask[0, 0] = 255
    weight = torch.randint(0, 256, (4, 4, 4), generator=generator)
    # The second process has a tenth of the first one's certainty.
    weight = (weight * torch.tensor([1, 1, 0.1, 0.1])[:, None, None]).to(torch.uint8)
    results = []
    for underfit in (
        None,
        PretendedUnderfitting("ignore", 0.9, 0.5),
        PretendedUnderfitting("ignore", 0.3, 0.5),
    ):
        torch.manual_seed(0)
        module = UncertaintyWeightedSegmenter(
            Pixelwise(),
            total_steps=10,
            loss=SegmenterLoss(underfit=underfit, class_weights=[0.3, 2.0], auxiliary_weight=0.4),
            auxiliary=nn.Conv2d(1, 2, 1),
        )
        module.network.encoder.requires_grad_(requires_grad=False)
        results.append(gradients(module, {"image": image, "mask": mask, "weight": weight}))
    return results


def affinity_gradients() -> list[Tensor]:
    torch.manual_seed(0)
    batch = two_halves()
    batch["mask"][1, 8:] = 1  # the second process has no pair of two classes, and more pairs of one
    module = AffinityLearner(AffinityNetwork(TinyBackbone()), 2, total_steps=30, radius=3)
    module.network.freeze()
    return gradients(module, batch)


def uneven_batchnorm(layer: nn.BatchNorm2d) -> list[Tensor]:
    """The output for eight pixels, its gradient and the statistics; the second process has five of them."""
    synchronise_batchnorm(layer, torch.device("cpu"))
    torch.manual_seed(1)
    pixels, weights = torch.randn(2, 1, 3, 1, 8, dtype=torch.float64) + 2
    parts = (slice(0, 3), slice(3, 8)) if world_size() > 1 else (slice(0, 8),)
    own = pixels[..., parts[rank()]].clone().requires_grad_()
    output = layer(own)
    (output * weights[..., parts[rank()]]).sum().backward()
    assert own.grad is not None
    results = [torch.cat(gather(part), dim=3) for part in (output.detach(), own.grad)]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return [*results, layer.running_mean, layer.running_var]


def maps() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    return random.integers(0, 3, (TILES, 6, 6)), random.integers(0, 3, (TILES, 6, 6))


def counted() -> np.ndarray:
    prediction, reference = maps()
    matrix = np.zeros((3, 3), dtype=np.int64)
    for index in shard(range(TILES)):
        matrix += confusion_matrix(prediction[index], reference[index], 3)
    return all_reduce_sum(matrix)


@dataclass(frozen=True)
class Work:
    """All that two processes do in one start of them."""

    folder: Path

    def __call__(self) -> None:
        train(self.folder)
        train_segmenter(self.folder / "frozen")
        results = {
            "segmenter": segmenter_gradients(),
            "affinity": affinity_gradients(),
            "batchnorm": uneven_batchnorm(nn.BatchNorm2d(3, dtype=torch.float64)),
            "counted": torch.from_numpy(counted()),
        }
        torch.save(results, self.folder / f"result_{rank()}.pt")
        self.break_down()
        barrier()
        if rank() == 1:
            torch.save(time.time(), self.folder / "failed.pt")
            raise UserError("the second process alone has failed")
        barrier()

    def break_down(self) -> None:
        """A picture without numbers reaches one process alone."""
        with pytest.raises(UserError, match="the loss of tiny became nan or infinite by step"):
            train(self.folder / "nan", broken=0)
        checkpoint = self.folder / f"nan/{CHECKPOINT}.ckpt"
        state = torch.load(checkpoint, weights_only=True)["state_dict"] if checkpoint.exists() else {}
        assert all(tensor.isfinite().all() for tensor in state.values())


@dataclass(frozen=True)
class Together:
    folder: Path
    error: UserError
    ended: float

    def result_of(self, name: str) -> Any:  # noqa: ANN401
        both = [torch.load(self.folder / f"result_{index}.pt", weights_only=True)[name] for index in (0, 1)]
        torch.testing.assert_close(both[0], both[1])  # every process has the same
        return both[0]


def forking(*words: Any, start_method: str, **options: Any) -> Any:  # noqa: ANN401
    """Starts copies of this process: new ones would import for seconds."""
    assert start_method == "spawn"
    return start_processes(*words, start_method="fork", **options)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "start_processes", forking)
        with pytest.raises(UserError) as raised:
            run_in_processes(2, Work(folder), gpu=False)
    return Together(folder, raised.value, time.time())


def test_processes_that_start_anew_find_each_other() -> None:
    """As those of users do; every other test here starts copies."""
    run_in_processes(2, barrier, gpu=False)


def test_a_training_by_two_is_the_training_by_one(together: Together, tmp_path: Path) -> None:
    assert is_rank_zero()
    train(tmp_path)
    one, two = (
        torch.load(folder / "network.pt", weights_only=True) for folder in (tmp_path, together.folder)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(one["backbone.1.running_mean"], torch.zeros(4))
    rows, expected = (read_csv(folder / "history.csv") for folder in (together.folder, tmp_path))
    assert [(row["step"], row["name"]) for row in rows] == [(row["step"], row["name"]) for row in expected]
    assert {"train/total", "train/ecr", "validation/f1", "validation/cam_miou"} <= {r["name"] for r in rows}
    values = [[float(row["value"]) for row in table] for table in (rows, expected)]
    assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-5)


def test_two_processes_train_a_frozen_segmenter_as_one_does(together: Together, tmp_path: Path) -> None:
    train_segmenter(tmp_path)
    folders = tmp_path, together.folder / "frozen"
    one, two = (torch.load(folder / "network.pt", weights_only=True) for folder in folders)
    torch.testing.assert_close(two, one)
    assert one["encoder.running_mean"] == 0


def test_the_segmenter_divides_by_the_weights_of_all_processes(together: Together) -> None:
    one = segmenter_gradients()
    torch.testing.assert_close(together.result_of("segmenter"), one)
    assert not all(torch.allclose(a, b) for a, b in zip(one[1], one[2], strict=True))


def test_a_pair_weighs_the_same_on_every_process(together: Together) -> None:
    torch.testing.assert_close(together.result_of("affinity"), affinity_gradients(), rtol=1e-3, atol=1e-6)


def seam(*, frozen: bool = False, **settings: Any) -> SeamClassifier:  # noqa: ANN401
    network = SeamNetwork(TinyBackbone(), 2, pcm=settings.pop("pcm", True))
    return SeamClassifier(network.freeze() if frozen else network, ("a", "b"), total_steps=9, **settings)


def segmenter(**settings: Any) -> UncertaintyWeightedSegmenter:  # noqa: ANN401
    return UncertaintyWeightedSegmenter(build_segmenter("fpn", "test_resnet", 2), total_steps=9, **settings)


LEARNERS: dict[str, Callable[[], ClippedModule]] = {
    "SEAM": seam,
    "SEAM, frozen": lambda: seam(frozen=True),
    "SEAM without ECR": lambda: seam(ecr_weight=0.0),
    "SEAM without min-pooling": lambda: seam(min_pool_weight=0.0),
    "SEAM by min-pooling alone": lambda: seam(er_weight=0.0, ecr_weight=0.0),
    "plain CAM": lambda: seam(pcm=False, er_weight=0.0),
    "plain CAM, frozen": lambda: seam(pcm=False, er_weight=0.0, frozen=True),
    "AffinityNet": lambda: AffinityLearner(AffinityNetwork(TinyBackbone()), 2, total_steps=9),
    "AffinityNet, frozen": lambda: AffinityLearner(
        AffinityNetwork(TinyBackbone()).freeze(), 2, total_steps=9
    ),
    "segmenter": segmenter,
    "segmenter, frozen": lambda: segmenter(freeze_batchnorm=True),
    "segmenter with two heads": lambda: segmenter(
        auxiliary=True, loss={"auxiliary_weight": 0.4}, freeze_batchnorm=True
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_parameter_that_asks_for_a_gradient_when_training_begins_gets_one(name: str) -> None:
    """DDP is built before the hooks of the first step, and waits for all of these gradients."""
    torch.manual_seed(0)
    module = LEARNERS[name]()
    asking = [parameter for parameter, tensor in module.named_parameters() if tensor.requires_grad]
    module.log = module.log_dict = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    mask = torch.randint(0, 2, (2, 32, 32))
    batch = {"image": torch.randn(2, 3, 32, 32), "tags": torch.eye(2), "mask": mask}
    batch["weight"] = torch.full_like(mask, 255, dtype=torch.uint8)
    module.on_train_start()
    module.on_train_epoch_start()
    module.training_step(batch).backward()
    assert [parameter for parameter, tensor in module.named_parameters() if tensor.grad is not None] == asking


def test_batchnorm_counts_the_pixels_of_every_process(together: Together) -> None:
    layer = nn.BatchNorm2d(3, dtype=torch.float64)
    layer.forward = partial(nn.BatchNorm2d.forward, layer)  # type: ignore[method-assign]  # torch's own
    torch.testing.assert_close(together.result_of("batchnorm"), uneven_batchnorm(layer))


def test_an_odd_number_of_maps_is_counted_once(together: Together) -> None:
    prediction, reference = maps()
    expected = np.zeros((3, 3), dtype=np.int64)
    np.add.at(expected, (reference.ravel(), prediction.ravel()), 1)
    np.testing.assert_array_equal(together.result_of("counted").numpy(), expected)
    np.testing.assert_array_equal(counted(), expected)


def test_when_one_process_fails_the_other_ends_and_one_line_is_left(together: Together) -> None:
    assert str(together.error) == "the second process alone has failed"
    failed = torch.load(together.folder / "failed.pt", weights_only=True)
    assert together.ended - failed < 30


def test_a_process_that_cannot_say_why_it_ended_is_named() -> None:
    mistake, stop = UserError("no such scene"), Stopped(signal.SIGTERM)
    assert why_ended([1, -signal.SIGTERM], mistake) is mistake
    assert why_ended([1, -signal.SIGKILL], mistake) is mistake  # whoever took too long to end
    assert why_ended([143, 143], stop) is stop
    assert why_ended([1, 0], None) is None
    for exits in ([0, -signal.SIGTERM], [-signal.SIGTERM, -signal.SIGTERM], [1, -signal.SIGTERM]):
        early = why_ended(exits, None)  # before it could report anything
        assert isinstance(early, Stopped)
        assert early.status == 128 + signal.SIGTERM
    lost = LostProcessError.here()
    assert str(why_ended([1, -signal.SIGKILL], lost)).startswith("process 1 of 2 was killed (SIGKILL)")
    assert why_ended([1, 1], lost) is lost
    killed, aborted = why_ended([143, -signal.SIGKILL], stop), why_ended([-signal.SIGABRT, 143], stop)
    assert str(killed).startswith("process 1 of 2 was killed (SIGKILL), probably out of memory; the same")
    assert str(aborted).startswith("process 0 of 2 was killed (SIGABRT); the same command")
    assert isinstance(why_ended([0, -signal.SIGSEGV], None), UserError)


def die_or_wait(folder: Path) -> None:
    """The second process is killed while the first waits for it."""
    if not is_rank_zero():
        os.kill(os.getpid(), signal.SIGKILL)
    all_reduce_sum(np.ones(3))
    (folder / "went_on").touch()


def test_a_killed_process_is_one_line_though_the_other_loses_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "start_processes", forking)
    line = r"process 1 of 2 was killed \(SIGKILL\), probably out of memory; the same command resumes"
    with pytest.raises(UserError, match=line):
        run_in_processes(2, partial(die_or_wait, tmp_path), gpu=False)
    assert not (tmp_path / "went_on").exists()


@pytest.mark.parametrize(
    ("environment", "neighbours", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, 2, 1),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "17"}, 2, 3),  # of torchrun itself
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "17"}, 1, 1),  # of the user
        ({"OMP_NUM_THREADS": "4", "TORCHELASTIC_RUN_ID": "17"}, 2, 2),
    ],
)
def test_a_process_takes_its_share_of_the_cores(
    environment: dict[str, str], neighbours: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: int(environment["OMP_NUM_THREADS"]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: range(6))
    with group(Place(0, 1, 0, neighbours), HashStore(), gpu=False):
        pass
    assert threads == [expected]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    data = TileDataModule(Pictures(), batch=3, seed=0, epochs=1)  # type: ignore[arg-type]
    data.trainer = type("Two", (), {"world_size": 2, "global_rank": 0, "global_step": 0})()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"a batch of 3 tiles cannot be split evenly among 2 processes"):
        data.train_dataloader()
