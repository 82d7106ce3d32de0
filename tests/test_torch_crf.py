"""The CRF in torch: on the CPU against the one in numba and slow twins, on a GPU against the CPU."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from ome.config.objects import crf_of, crf_threads, refined
from ome.config.sections import settings_of
from ome.crf import lattice as numba_lattice
from ome.crf.densecrf import DenseCrf
from ome.crf.inputs import CrfParameters, blockwise_order, kernel_features
from ome.crf.torch_crf import BatchCrf, Engine, TorchCrf
from ome.crf.torch_lattice import TorchLattice, build_lattice, splat_blur_slice, symmetric_kernel
from ome.errors import UserError
from ome.pseudo.labellers import BatchLabeller
from ome.pseudo.uncertainty import Labelling, pseudo_label
from ome.training.hardware import Hardware
from tests.conftest import compose_config
from tests.test_crf import SlowLattice, random_stack, textured_image

GOLDEN = Path(__file__).parent / "golden"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: torch does mean field"
)
ENGINES = ["torch", pytest.param("triton", marks=needs_triton)]
TRITON = "triton.runtime.interpreter", "triton.runtime.jit"
Array = NDArray[Any]


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_lattice_equals_its_slow_twin(dimensions: int) -> None:
    generator = np.random.default_rng(dimensions)
    features = generator.normal(0, 1.5, (150, dimensions)).astype(np.float32)
    values = generator.random((150, 3)).astype(np.float32)
    filtered = splat_blur_slice(build_lattice(torch.from_numpy(features)), torch.from_numpy(values))
    height = 1 / (1 + 2.0**-dimensions)
    np.testing.assert_allclose(
        height * filtered.numpy(), SlowLattice(features).filter(values), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kernel", [0, 1])
def test_points_have_the_vertices_and_weights_of_the_numba_lattice(kernel: int) -> None:
    # Positions of pixels lie on the borders between simplices: ties must be broken in the same way.
    parameters = CrfParameters(gaussian_sxy=np.sqrt(2 / 3), bilateral_sxy=4.0)
    image = textured_image(37, 50, seed=1)
    features = kernel_features(image, parameters, blockwise_order(37, 50))[kernel]
    ours, theirs = build_lattice(torch.from_numpy(features)), numba_lattice.build_lattice(features)
    np.testing.assert_array_equal(ours.weights.numpy(), theirs.weights)
    number = np.full(theirs.num_vertices, -1)
    number[theirs.vertices] = ours.vertices.numpy()
    np.testing.assert_array_equal(number[theirs.vertices], ours.vertices.numpy())
    np.testing.assert_array_equal(np.sort(number), np.arange(len(ours.starts)))


def test_symmetric_kernel_equals_its_slow_twin() -> None:
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 2, (80, 5)).astype(np.float32)
    matrix = splat_blur_slice(symmetric_kernel(torch.from_numpy(features), weight=4.0), torch.eye(80))
    plain = SlowLattice(features).filter(np.eye(80))
    factors = 1 / np.sqrt(plain.sum(1))
    np.testing.assert_allclose(matrix, 4.0 * factors[:, None] * plain * factors, rtol=1e-4, atol=1e-6)


def exact_pairwise(image: Array, parameters: CrfParameters) -> Array:
    """Both kernels with exact Gaussians, one (N, N) matrix."""
    p, (height, width) = parameters, image.shape[:2]
    positions = np.indices((height, width))[::-1].reshape(2, -1).T
    bilateral = np.hstack([positions / p.bilateral_sxy, image.reshape(-1, 3) / p.bilateral_srgb])
    pairwise = np.zeros((height * width, height * width))
    for features, weight in [
        (positions / p.gaussian_sxy, p.gaussian_weight),
        (bilateral, p.bilateral_weight),
    ]:
        plain = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
        factors = 1 / np.sqrt(plain.sum(1))
        pairwise += weight * factors[:, None] * plain * factors
    return pairwise


def dense_mean_field(pairwise: Array, stack: Array, iterations: int) -> Array:
    """Mean field by its definition, in float64, with the kernels as one whole (N, N) matrix."""
    unary = np.log(np.clip(stack.reshape(len(stack), -1), 1e-5, 1)).T
    energy = unary
    for _ in range(iterations):
        energy = unary + pairwise @ softmax(energy, axis=1)
    return np.asarray(softmax(energy, axis=1).T.reshape(stack.shape))


@pytest.mark.parametrize("classes", [2, 4])
def test_equals_dense_mean_field(classes: int) -> None:
    parameters = CrfParameters(iterations=4, bilateral_sxy=8.0, bilateral_srgb=13.0)
    image, stack = textured_image(9, 14, seed=8), random_stack(classes, (9, 14), seed=9)
    powers = np.random.default_rng(10).uniform(0.25, 2, (3, classes)).astype(np.float32)
    crf = TorchCrf(image, parameters)
    lattices = crf._batch._lattices
    pairwise = sum(splat_blur_slice(lattice, torch.eye(126)).double().numpy() for lattice in lattices)
    exact = exact_pairwise(image, parameters)
    assert np.corrcoef(pairwise.ravel(), exact.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(crf.infer(stack), dense_mean_field(pairwise, stack, 4), atol=1e-5)
    dense = np.stack([dense_mean_field(pairwise, stack ** run[:, None, None], 4) for run in powers])
    np.testing.assert_array_equal(crf.winners(stack, powers), dense.argmax(1))


@pytest.mark.parametrize(
    ("size", "classes", "parameters"),
    [
        ((40, 56), 5, CrfParameters()),
        ((33, 17), 2, CrfParameters(iterations=3, gaussian_sxy=2.5, gaussian_weight=1.0)),
        ((24, 40), 6, CrfParameters(bilateral_sxy=20.0, bilateral_srgb=13.0, bilateral_weight=10.0)),
        ((24, 24), 3, CrfParameters(iterations=2, bilateral_weight=900.0)),  # energies beyond exp's range
        ((16, 16), 4, CrfParameters(iterations=0)),
        ((12, 20), 1, CrfParameters()),
        ((1, 1), 3, CrfParameters()),
    ],
)
def test_equals_the_numba_crf(size: tuple[int, int], classes: int, parameters: CrfParameters) -> None:
    image, stack = textured_image(*size, seed=size[1]), random_stack(classes, size, seed=1)
    powers = np.random.default_rng(2).uniform(0.25, 2, (11, classes)).astype(np.float32)
    ours, numba = TorchCrf(image, parameters), DenseCrf(image, parameters)
    refined, winners = ours.infer(stack), ours.winners(stack, powers)
    assert (refined.dtype, winners.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(refined, numba.infer(stack), atol=1e-3)
    assert (winners == numba.winners(stack, powers)).mean() >= 0.999


def tiles_of(size: tuple[int, int], tiles: int) -> Array:
    """So many textured tiles, the last of one colour."""
    images = np.stack([textured_image(*size, seed=tile) for tile in range(tiles)])
    images[-1] = 77
    return images


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("size", "classes", "tiles", "parameters"),
    [
        ((9, 14), 4, 1, CrfParameters(iterations=2)),
        ((17, 13), 2, 3, CrfParameters(iterations=3, bilateral_sxy=8.0, bilateral_srgb=13.0)),
        ((8, 8), 3, 2, CrfParameters(iterations=2, bilateral_weight=900.0)),  # energies beyond exp's range
        ((5, 7), 6, 4, CrfParameters(iterations=1)),
        ((8, 8), 5, 2, CrfParameters(iterations=0)),
        ((12, 20), 1, 2, CrfParameters()),
        ((1, 1), 3, 2, CrfParameters(iterations=1)),
    ],
)
def test_a_batch_gives_what_the_numba_crf_gives_for_each_tile(
    size: tuple[int, int], classes: int, tiles: int, parameters: CrfParameters, engine: Engine
) -> None:
    images = tiles_of(size, tiles)
    stacks = np.stack([random_stack(classes, size, seed=tile) for tile in range(tiles)])
    powers = np.random.default_rng(2).uniform(0.25, 2, (5, classes)).astype(np.float32)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(stacks)
    batch = BatchCrf(tensors[0], parameters, bundle=3, engine=engine)
    singles = [DenseCrf(image, parameters) for image in images]
    refined = np.stack([crf.infer(stack) for crf, stack in zip(singles, stacks, strict=True)])
    winners = np.stack([crf.winners(stack, powers) for crf, stack in zip(singles, stacks, strict=True)])
    np.testing.assert_allclose(batch.infer(tensors[1]), refined, atol=1e-4)
    np.testing.assert_array_equal(batch.winners(tensors[1], powers), winners)


@needs_triton
@pytest.mark.parametrize("flat_columns", [40, 25, 0])
def test_kernels_add_the_pixels_of_large_vertices_in_parts(flat_columns: int) -> None:
    from ome.crf import triton_field  # noqa: PLC0415 - imports Triton, which may not be installed

    image = np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    image[:, :flat_columns] = 90
    stack, parameters = random_stack(3, (24, 40), seed=4), CrfParameters(iterations=1)
    ours, again, plain = (TorchCrf(image, parameters, engine=name) for name in ("triton", "triton", "torch"))
    refined = ours.infer(stack)
    np.testing.assert_allclose(refined, plain.infer(stack), atol=1e-5)
    np.testing.assert_array_equal(again.infer(stack), refined)
    lattice = triton_field.join(*ours._batch._lattices)
    assert lattice.parts.diff().max() <= triton_field.PART
    assert (len(lattice.divided) > 0) == (flat_columns > 0)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_golden(name: str) -> None:
    golden = np.load(GOLDEN / f"uncertainty_{name}.npz", allow_pickle=False)
    cam = np.zeros((int(golden["num_classes"]), *golden["image"].shape[:2]), np.float32)
    cam[golden["classes"]] = golden["cam"]
    ours, numba = (pseudo_label(kind(golden["image"]), cam) for kind in (TorchCrf, DenseCrf))
    assert np.abs(ours.probabilities - golden["crf_prob"]).max() < 5e-3
    for mask, weight in [(golden["crf"], golden["weight"]), (numba.mask, numba.weight)]:
        assert (ours.mask == mask).mean() >= 0.999
        assert (ours.weight == weight).mean() >= 0.995


def test_same_bytes_again_and_in_any_bundles() -> None:
    image, stack = textured_image(32, 48, seed=4), random_stack(4, (32, 48), seed=5)
    powers = np.random.default_rng(6).uniform(0.25, 2, (21, 4))
    winners = TorchCrf(image).winners(stack, powers)
    for bundle in (1, 4, 21, 100):
        np.testing.assert_array_equal(TorchCrf(image, bundle=bundle).winners(stack, powers), winners)
    np.testing.assert_array_equal(TorchCrf(image).infer(stack), TorchCrf(image, bundle=1).infer(stack))


def test_mean_field_waits_for_nothing() -> None:
    # Tensors of the meta device have no values: whatever reads one, on any device, fails on them.
    crf = TorchCrf(textured_image(8, 12, seed=0))._batch
    crf._lattices = [TorchLattice(*(part.to("meta") for part in lattice)) for lattice in crf._lattices]
    crf._agreement = crf._agreement.to("meta")
    energy, powers = torch.empty(96, 4, device="meta"), torch.empty(5, 4, device="meta")
    assert crf._mean_field(energy, powers, False).shape == (96, 5, 4)


def test_ill_formed_arguments_are_refused() -> None:
    crf = TorchCrf(textured_image(8, 8, seed=6))
    with pytest.raises(ValueError, match="at least one map of size"):
        crf.infer(np.ones((3, 8, 9)))
    with pytest.raises(ValueError, match="nan, infinity or negative"):
        crf.winners(np.full((2, 8, 8), np.nan), np.ones((3, 2)))
    with pytest.raises(ValueError, match="at least one run of 2 powers"):
        crf.winners(np.ones((2, 8, 8)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="uint8 image"):
        TorchCrf(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UserError, match="63-bit key"):
        build_lattice(torch.tensor([[0.0] * 5, [1e5] * 5]))
    tiles = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) uint8 images"):
        BatchCrf(tiles.float())
    with pytest.raises(ValueError, match="needs 2 stacks"):
        BatchCrf(tiles).infer(torch.ones(1, 3, 8, 8))


def test_the_configuration_chooses_it_and_its_device() -> None:
    image, stack = textured_image(16, 24, seed=2), random_stack(3, (16, 24), seed=3)
    config = compose_config(["stage=pseudo", "crf.backend=torch", "crf.iterations=2", "trainer=cpu"])
    crf = crf_of(config)(image)
    assert isinstance(crf, TorchCrf)
    assert crf.device.type == "cpu"
    expected = DenseCrf(image, CrfParameters(iterations=2)).infer(stack)
    np.testing.assert_allclose(crf.infer(stack), expected, atol=1e-4)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, kind, threads in [(False, DenseCrf, 3), (True, TorchCrf, 1)]:
        monkeypatch.setattr(Hardware, "uses_gpu", gpu)
        monkeypatch.setattr(Hardware, "device", lambda _: torch.device("cpu"))
        chosen = ["crf.backend=auto", "stage.pseudo.threads=3"]
        config = settings_of(compose_config(chosen), "pseudo")
        assert isinstance(crf_of(config)(textured_image(4, 4, seed=0)), kind)
        assert crf_threads(config) == threads


@pytest.mark.parametrize("backend", ["torch", "lattice"])
def test_windows_of_a_map_are_refined_as_each_alone(backend: str) -> None:
    images = np.stack([textured_image(16, 16, seed=seed) for seed in range(5)])
    stacks = np.stack([random_stack(3, (16, 16), seed=seed) for seed in range(5)])
    config = settings_of(
        compose_config([f"crf.backend={backend}", "crf.iterations=2", "trainer=cpu"]), "predict"
    )
    bands = np.concatenate([np.zeros_like(images[..., :1]), images[..., ::-1]], axis=3)
    windows = refined(lambda _: torch.from_numpy(stacks), config, [3, 2, 1])(bands)
    # Tensors are blended on their device.
    assert isinstance(windows, torch.Tensor if backend == "torch" else np.ndarray)
    of = crf_of(config)
    alone = [of(image).infer(stack) for image, stack in zip(images, stacks, strict=True)]
    np.testing.assert_array_equal(windows, np.stack(alone))


def test_a_gpu_has_one_tile_at_a_time() -> None:
    for backend, trainer, threads in [("torch", "gpu", 1), ("torch", "cpu", 3), ("lattice", "gpu", 3)]:
        chosen = [f"crf.backend={backend}", f"trainer={trainer}", "stage.pseudo.threads=3"]
        config = settings_of(compose_config(chosen), "pseudo")
        assert crf_threads(config) == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU")
def test_a_missing_gpu_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"trainer\.accelerator=gpu, but torch finds no GPU: type trainer=cpu"
    ):
        crf_of(compose_config(["stage=pseudo", "crf.backend=torch", "trainer=gpu"]))


@needs_triton
@pytest.mark.parametrize(("runs", "classes"), [(25, 4), pytest.param(17, 16, marks=pytest.mark.slow)])
def test_kernels_compile_for_a_gpu_without_one(runs: int, classes: int, tmp_path: Path) -> None:
    # The interpreter accepts Python that Triton's compiler refuses.
    script = [sys.executable, "-m", "tests.compile_kernels", str(runs), str(classes)]
    variables = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(script, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    kernels = {line.split()[0] for line in run.stdout.splitlines()}
    assert kernels == {"splat", "add_parts", "blur", "update_pixels"}


@needs_triton
def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    # Triton itself launches on the current device, which in a new thread is the first GPU.
    from ome.crf import triton_field  # noqa: PLC0415 - imports Triton, which may not be installed

    current: list[Any] = []
    launched = set()

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    class Recorded:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(triton_field, name)

        def __getitem__(self, programs: tuple[int]) -> Callable[..., None]:
            def run(*arguments: object, **constants: object) -> None:
                devices = {each.device for each in arguments if isinstance(each, torch.Tensor)}
                assert devices == set(current)
                launched.add(self.name)
                self.kernel[programs](*arguments, **constants)

            return run

    kernels = {name for name, value in vars(triton_field).items() if type(value).__module__ in TRITON}
    for name in kernels:
        monkeypatch.setattr(triton_field, name, Recorded(name))
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    crf = TorchCrf(np.zeros((16, 16, 3), np.uint8), CrfParameters(iterations=1), engine="triton")
    crf.infer(random_stack(3, (16, 16), seed=0))
    assert launched == kernels
    assert len(kernels) > 2


@needs_gpu
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("size", "classes"), [((96, 128), 5), ((33, 17), 2), ((12, 20), 1)])
def test_a_gpu_gives_what_the_cpu_gives(size: tuple[int, int], classes: int, engine: Engine) -> None:
    image, stack = textured_image(*size, seed=size[1]), random_stack(classes, size, seed=1)
    powers = np.random.default_rng(2).uniform(0.25, 2, (21, classes)).astype(np.float32)
    gpu, cpu = TorchCrf(image, device="cuda", engine=engine), TorchCrf(image)
    np.testing.assert_allclose(gpu.infer(stack), cpu.infer(stack), atol=1e-3)
    winners = gpu.winners(stack, powers)
    assert (winners == cpu.winners(stack, powers)).mean() >= 0.999
    again = TorchCrf(image, device="cuda", engine=engine)
    np.testing.assert_array_equal(again.winners(stack, powers), winners)
    np.testing.assert_array_equal(again.infer(stack), gpu.infer(stack))


@needs_gpu
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_works_on_without_the_host(engine: Engine) -> None:
    crf = TorchCrf(textured_image(24, 40, seed=0), device="cuda", engine=engine)._batch
    energy, powers = torch.zeros(960, 4, device="cuda"), torch.ones(5, 4, device="cuda")
    crf._mean_field(energy, powers, True)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        crf._mean_field(energy, powers, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


ALL_VALID = [np.ones((24, 20), bool)] * 5


def shapes_of_tiles() -> list[tuple[Array, Array]]:
    """Images and CAMs of tiles with one, two and four classes that win, and with a class without a tag."""
    tiles = []
    for seed, classes in enumerate([(0, 1, 2, 3), (2,), (1, 3), (0, 1, 2, 3), (0, 2)]):
        cam = np.zeros((5, 24, 20), np.float32)
        cam[list(classes)] = random_stack(len(classes), (24, 20), seed=seed)
        tiles.append((textured_image(24, 20, seed=seed), cam))
    return tiles


@pytest.mark.parametrize("labelling", [Labelling(), Labelling(background=2.0, agreement=0.5, mask="cam")])
def test_labels_of_a_batch_are_those_of_each_tile(labelling: Labelling) -> None:
    images, cams = zip(*shapes_of_tiles(), strict=True)
    parameters = CrfParameters(iterations=3, bilateral_sxy=5.0, bilateral_srgb=20.0)
    labeller = BatchLabeller(partial(BatchCrf, parameters=parameters), labelling, torch.device("cpu"))
    for image, cam, label in zip(images, cams, labeller(images, cams, ALL_VALID), strict=True):
        single = pseudo_label(DenseCrf(image, parameters), cam, labelling)
        np.testing.assert_allclose(label.probabilities, single.probabilities, atol=1e-4)
        for part in ("mask", "weight", "cam_argmax"):
            np.testing.assert_array_equal(getattr(label, part), getattr(single, part), part)


def test_labels_of_a_tile_do_not_depend_on_the_others_in_its_pass() -> None:
    images, cams = zip(*shapes_of_tiles(), strict=True)
    labeller = BatchLabeller(BatchCrf, Labelling(), torch.device("cpu"))
    for image, cam, label in zip(images, cams, labeller(images, cams, ALL_VALID), strict=True):
        (single,) = labeller([image], [cam], ALL_VALID[:1])
        np.testing.assert_array_equal(label.probabilities, single.probabilities)
        np.testing.assert_array_equal(label.weight, single.weight)
