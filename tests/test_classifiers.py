"""The variants of the classifier: which modules exist, what trains them, and what refines the CAM."""

import errno
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any, Self, cast, get_args

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ome.config.classifying import classifier_learner
from ome.config.schema.general import Precision
from ome.config.sections import scene_reader, settings_of
from ome.data.cams import read_cams
from ome.data.datasets import Batch
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.tiles import Tile
from ome.data.transforms import to_tensor
from ome.errors import UserError
from ome.files import read_csv
from ome.inference.classifier import CamPredictor, build_classifier, members
from ome.inference.tag_probabilities import tag_probabilities
from ome.networks.attention import attend
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pipeline.layout import cam_path, read_tag_table
from ome.pipeline.manifest import Manifest
from ome.pseudo.fusion import competing_cams, normalise_cam
from ome.stages import cam as cam_stage
from ome.training.optimizers import Optimization, OptimizerName
from ome.training.seam import SeamClassifier
from tests.conftest import compose_config, tiny
from tests.test_networks import TinyBackbone
from tests.test_training import reloaded

Run = Callable[..., DictConfig]
CLASSIFIERS = ("seam", "cam", "attention", "one_vs_all")
BACKBONES = ("resnet38d", "resnet18", "resnet50", "mobilenet_v2", "mit_b0")
EXPORT: dict[str, Any] = {"scales": [1.0], "flip": True, "precision": "32-true", "compete": False}


def classifier(*, pcm: bool = True, **weights: float) -> SeamClassifier:
    torch.manual_seed(0)
    module = SeamClassifier(
        SeamNetwork(TinyBackbone(), 3, pcm=pcm), ("a", "b", "c"), total_steps=10, **weights
    )
    module.log_dict = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    return module


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 32, 24, generator=generator)
    return {"image": image, "tags": torch.tensor([[1.0, 0, 1], [0, 1, 1]])}


@pytest.mark.parametrize(
    ("pcm", "er", "ecr", "min_pool"), list(product([True, False], [0, 1], [0, 1], [0, 1]))
)
def test_every_combination_trains_all_that_exists(pcm: bool, er: float, ecr: float, min_pool: float) -> None:
    weights = {"er_weight": er, "ecr_weight": ecr, "min_pool_weight": min_pool}
    if pcm and not ecr and not min_pool:
        with pytest.raises(UserError, match=r"set classifier\.pcm=false"):
            classifier(pcm=pcm, **weights)
        return
    module = classifier(pcm=pcm, **weights)
    of_pcm = {"f8_3.weight", "f8_4.weight", "f9.weight"}
    assert of_pcm & set(module.network.state_dict()) == (of_pcm if pcm else set())
    module.training_step(batch()).backward()  # type: ignore[no-untyped-call]
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_transformer_has_no_parameter_without_gradient() -> None:
    network = SeamNetwork(build_backbone("mit_b0", None, 16), 3, pcm=False, attention=0.1)
    module = SeamClassifier(network, ("a", "b", "c"), total_steps=10, er_weight=0, ecr_weight=0)
    module.log_dict = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    module.training_step(batch()).backward()  # type: ignore[no-untyped-call]
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "views"),
    [
        ({"pcm": False, "er_weight": 0, "ecr_weight": 0}, 1),
        ({"pcm": False, "er_weight": 0, "ecr_weight": 1}, 1),  # ECR has nothing to train without PCM
        ({"pcm": False, "er_weight": 1, "ecr_weight": 0}, 2),
        ({"pcm": True, "er_weight": 0, "ecr_weight": 0}, 1),
        ({"pcm": True, "er_weight": 0, "ecr_weight": 1}, 2),
        ({"pcm": True}, 2),
    ],
)
def test_a_second_view_is_computed_only_where_two_are_compared(
    settings: dict[str, float], views: int
) -> None:
    module = classifier(**settings)  # type: ignore[arg-type]
    sizes: list[torch.Size] = []
    module.network.backbone.register_forward_hook(
        lambda _module, inputs, _output: sizes.append(inputs[0].shape[2:])
    )
    module.training_step(batch())
    assert sizes == [(32, 24), (16, 12)][:views]


def test_plain_cam_starts_undecided_and_seam_as_published() -> None:
    torch.manual_seed(0)
    plain, seam = (
        SeamNetwork(build_backbone("resnet18", None, 16), 5, pcm=pcm).fc8.weight for pcm in (False, True)
    )
    assert plain.std().item() == pytest.approx(0.01, rel=0.1)
    bound = math.sqrt(6 / (512 + 5))  # Glorot & Bengio, AISTATS 2010
    assert 0.95 * bound < seam.abs().max().item() <= bound


def test_a_batch_is_resized_as_a_whole_to_few_sizes() -> None:
    torch.manual_seed(0)
    module = SeamClassifier(SeamNetwork(TinyBackbone(), 2), ("a", "b"), total_steps=9, rescale=(0.5, 2.0))
    column = torch.arange(64.0).expand(2, 3, 64, 64)
    sizes = set()
    for _ in range(60):
        resized = module._rescaled(column)
        sizes.add(resized.shape[-1])
        # From edge to edge: nothing is cut off and nothing is added.
        assert resized[0, 0, 0, 0] <= 1
        assert resized[0, 0, 0, -1] >= 62
    assert sizes == {32, 48, 64, 80, 96, 112, 128}
    unscaled = SeamClassifier(SeamNetwork(TinyBackbone(), 2), ("a", "b"), total_steps=9)
    assert unscaled._rescaled(column) is column


@pytest.mark.parametrize("pcm", [False, True])
@pytest.mark.parametrize("precision", [name for name in get_args(Precision) if name != "auto"])
def test_a_step_is_made_in_every_precision(precision: Any, *, pcm: bool) -> None:  # noqa: ANN401
    torch.manual_seed(0)
    network = SeamNetwork(TinyBackbone(), 3, pcm=pcm)
    weights = {} if pcm else {"er_weight": 0.0}
    module = SeamClassifier(network, ("a", "b", "c"), total_steps=9, rescale=(0.75, 1.33), **weights)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, enable_progress_bar=False, precision=precision, **quiet
    )
    samples: Any = [{name: part[i] for name, part in batch().items()} for i in range(2)]
    trainer.fit(module, DataLoader(samples, 2))
    assert any((old != new).any() for old, new in zip(before, network.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("clip", "scale"), [(None, None), (1e-3, None), (1e3, None), (1e-3, 512.0)])
def test_a_step_is_as_long_as_the_clipped_gradient(clip: float | None, scale: float | None) -> None:
    """Also where the gradient is kept out of the smallest half-precision numbers by a scale."""
    torch.manual_seed(0)
    plain = Optimization(lr=0.01, momentum=0.0, weight_decay=0.0)
    network = SeamNetwork(TinyBackbone(), 3)
    module = SeamClassifier(network, ("a", "b", "c"), total_steps=9, optimizer=plain, clip=clip)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale or 1.0))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        enable_progress_bar=False,
        plugins=[scaled] if scale else None,
        **quiet,
    )  # type: ignore[arg-type]
    samples: Any = [{name: part[i] for name, part in batch().items()} for i in range(2)]
    trainer.fit(module, DataLoader(samples, 2))
    rates = {id(p): group["lr"] for group in network.parameter_groups(0.01, 0.0) for p in group["params"]}
    moved = [(p.detach() - before[name]) / rates[id(p)] for name, p in network.named_parameters()]
    length = float(torch.cat([step.flatten() for step in moved]).norm())
    if clip == 1e-3:
        assert length == pytest.approx(1e-3, rel=1e-2)
    else:
        assert 0.01 < length < 1e3
    assert ("train/gradient_norm" in trainer.callback_metrics) == (clip is not None)
    if clip is not None:
        assert length == pytest.approx(
            min(float(trainer.callback_metrics["train/gradient_norm"]), clip), rel=1e-2
        )


@pytest.mark.parametrize("settings", [{"pcm": True}, {"pcm": False}])
def test_zoom_is_the_network_on_enlarged_images(settings: dict[str, Any]) -> None:
    network = SeamNetwork(TinyBackbone(), 3, **settings, zoom=1.5).eval()
    image = batch()["image"]
    maps = network(image)
    network.zoom = 1.0
    enlarged = network(F.interpolate(image, (48, 36), mode="bilinear", align_corners=False))
    for zoomed, expected in zip(maps, enlarged, strict=True):
        assert zoomed.shape[2:] == image.shape[2:]
        # Both are linear enlargements of one grid of cells: they agree where their pixels lie on its corners.
        torch.testing.assert_close(zoomed[..., ::31, ::23], expected[..., ::47, ::35])


class Blank:
    """Reads black tiles."""

    def image(self, tile: Tile) -> NDArray[np.uint8]:
        return np.zeros((tile.height, tile.width, 3), np.uint8)


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_no_more_pixels_are_tagged_at_a_time_than_fit(zoom: float) -> None:
    network = SeamNetwork(TinyBackbone(), 2, zoom=zoom)
    pixels: list[int] = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0][:, 0].numel()))
    tiles = [Tile("a", 0, 100 * number, 100, 100) for number in range(31)]
    scores = tag_probabilities(network, cast("SceneReader", Blank()), tiles, torch.device("cpu"), "tags")
    assert scores.shape == (31, 2)
    assert 0.9 * 0.3e6 < max(pixels) <= 0.3e6


def test_tags_are_scored_as_they_are_trained() -> None:
    torch.manual_seed(0)
    network = SeamNetwork(TinyBackbone(), 2, pcm=False, pooling="competing").eval()
    torch.nn.init.normal_(network.fc8.weight)
    image, tags = to_tensor(np.zeros((32, 32, 3), np.uint8))[None], torch.tensor([[1, 0]])
    with torch.no_grad():
        cam = network(image).cam
        weights = cam.softmax(1) + 0.1
        logits = (cam * weights).sum((2, 3)) / weights.sum((2, 3))
    tiles = [Tile("a", 0, 0, 32, 32)]
    scores = tag_probabilities(network, cast("SceneReader", Blank()), tiles, torch.device("cpu"), "tags")
    np.testing.assert_allclose(scores, logits.sigmoid().double().numpy(), rtol=1e-5)
    module = SeamClassifier(network, ("a", "b"), total_steps=1, er_weight=0, ecr_weight=0).eval()
    loss = module.training_step({"image": image, "tags": tags})
    torch.testing.assert_close(loss, F.multilabel_soft_margin_loss(logits, tags.float()))
    with torch.no_grad():
        module.validation_step({"image": image, "tags": tags})
    torch.testing.assert_close(module._predicted[0][0], logits)


def test_plain_cam_is_cross_entropy_of_the_pooled_map() -> None:
    module = classifier(pcm=False, er_weight=0, ecr_weight=0).eval()
    image, tags = batch().values()
    output = module.network(image)
    assert torch.equal(output.refined, output.cam)
    final = module.network.backbone(image).final
    cam = F.interpolate(
        torch.einsum("bdhw,cd->bchw", final, module.network.fc8.weight[:, :, 0, 0]),
        (32, 24),
        mode="bilinear",
        align_corners=True,
    )
    torch.testing.assert_close(output.cam, cam)
    expected = F.binary_cross_entropy_with_logits(cam.mean((2, 3)), tags)
    torch.testing.assert_close(module.training_step(batch()), expected)


def _naive_attention(
    maps: NDArray[np.float64], queries: list[NDArray[np.float64]], temperature: float
) -> NDArray[np.float64]:
    """Place by place, as the formula reads: (C, h, w) maps, (heads, d, h, w) queries."""
    values = maps.reshape(len(maps), -1)
    results = []
    for block in queries:
        of_heads = []
        for head in block.reshape(*block.shape[:2], -1):
            averaged = np.zeros_like(values)
            for i in range(values.shape[1]):
                norms = np.linalg.norm(head[:, i]) * np.linalg.norm(head, axis=0)
                weights = np.exp(head[:, i] @ head / norms / temperature)
                averaged[:, i] = values @ weights / weights.sum()
            of_heads.append(averaged)
        results.append(np.mean(of_heads, axis=0))
    mean: NDArray[np.float64] = np.mean(results, axis=0).reshape(maps.shape)
    return mean


@pytest.mark.parametrize("entries", [None, 1, 300])
def test_attention_is_the_formula_for_every_block(entries: int | None) -> None:
    random = np.random.default_rng(0)
    maps = random.random((2, 3, 4, 3))
    queries = [random.standard_normal((2, heads, 5, 4, 3)) for heads in (2, 1)]
    attended = attend(torch.from_numpy(maps), [torch.from_numpy(q) for q in queries], 0.3, entries).numpy()
    for one in range(2):
        expected = _naive_attention(maps[one], [block[one] for block in queries], 0.3)
        np.testing.assert_allclose(attended[one], expected, atol=1e-12)


def test_attention_by_hand() -> None:
    # Places 0 and 2 are alike whatever the length of their queries; 1 and 3 are like nothing else.
    queries = torch.tensor([[1.0, 0, 5, 0], [0, 1, 0, -2]]).reshape(1, 1, 2, 2, 2)
    maps = torch.tensor([[[4.0, 7.0], [2.0, -1.0]]])[None]
    attended = attend(maps, [queries], 0.01)
    torch.testing.assert_close(attended, torch.tensor([[[3.0, 7.0], [3.0, -1.0]]])[None])


def test_recorded_queries_are_those_of_the_penultimate_stage() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("mit_b0", None, 16).eval()
    image = torch.rand(2, 3, 70, 50)
    with torch.inference_mode():
        features, queries = backbone.features_and_queries(image)
        assert torch.equal(features.final, backbone(image).final)
        # By hand: the stages before, then each block's own normalisation and projection.
        encoder = backbone.get_submodule("encoder")
        x = F.pad(image, (0, 14, 0, 26), mode="replicate")
        for stage in ("1", "2"):
            for part in ("patch_embed", "block", "norm"):
                x = encoder.get_submodule(part + stage)(x)
        x = encoder.get_submodule("patch_embed3")(x)
        for block, recorded in zip(encoder.get_submodule("block3"), queries, strict=True):
            flat = block.attn.q(block.norm1(x.flatten(2).transpose(1, 2)))  # type: ignore[operator, union-attr]
            by_hand = flat.reshape(2, 6, 4, 5, 32)[:, :5].permute(0, 3, 4, 1, 2)
            torch.testing.assert_close(recorded, by_hand)
            x = block(x)


@pytest.mark.parametrize(("name", "stride"), [("mit_b0", 16), ("mit_b0", 32), ("tu-pvt_v2_b0", 32)])
def test_attention_spreads_the_clipped_cam_at_prediction(name: str, stride: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, None, stride)
    network = SeamNetwork(backbone, 2, pcm=False, attention=0.1).eval()
    image = torch.rand(1, 3, 70, 50)
    with torch.inference_mode():
        output = network(image)
        features, queries = backbone.features_and_queries(image)
        cam = F.conv2d(features.final, network.fc8.weight).relu()
        cam = F.interpolate(cam, (5, 4), mode="bilinear", align_corners=True)[0].double().numpy()
    expected = _naive_attention(cam, [block[0].double().numpy() for block in queries], 0.1)
    enlarged = F.interpolate(torch.from_numpy(expected)[None], (70, 50), mode="bilinear", align_corners=True)
    torch.testing.assert_close(output.refined.double(), enlarged, atol=1e-5, rtol=1e-4)
    trained = network.train()(image)
    assert torch.equal(trained.refined, trained.cam)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_classifiers_and_backbones_compose_freely(name: str, backbone: str) -> None:
    config = compose_config(["stage=cam", f"classifier={name}", f"backbone={backbone}"])
    assert config.backbone.name == backbone
    assert config.classifier.name == name
    assert config.classifier.zoom == (1 if name in {"seam", "one_vs_all"} else 2)
    assert config.classifier.pooling == ("mean" if name in {"seam", "one_vs_all"} else "competing")
    others = {"name", "zoom", "pooling"}
    switches = {key: bool(value) for key, value in config.classifier.items() if key not in others}
    assert switches == {
        "er_weight": name in {"seam", "one_vs_all"},
        "ecr_weight": name in {"seam", "one_vs_all"},
        "min_pool_weight": name in {"seam", "one_vs_all"},
        "pcm": name in {"seam", "one_vs_all"},
        "attention": name == "attention",
        "one_vs_all": name == "one_vs_all",
    }


@pytest.mark.parametrize("backbone", ["resnet18", "mit_b0"])
def test_attention_is_refused_where_there_is_none(backbone: str) -> None:
    config = compose_config(["stage=cam", "classifier=attention", f"backbone={backbone}"])
    if backbone == "mit_b0":
        assert build_classifier(config.backbone, config.classifier, 2, 3, None).attention == 0.125
        return
    with pytest.raises(UserError, match=r"type backbone=mit_b0, or classifier\.attention=null"):
        build_classifier(config.backbone, config.classifier, 2, 3, None)


def test_one_vs_all_has_a_member_for_each_class() -> None:
    one, *others = members({"one_vs_all": True}, Path("cam"), ("tree", "car"))
    assert one == (Path("cam/class_tree"), "classifier of tree", slice(0, 1))
    assert others == [(Path("cam/class_car"), "classifier of car", slice(1, 2))]
    assert members({"one_vs_all": False}, Path("cam"), ("tree", "car")) == [
        (Path("cam"), "classifier", slice(0, 2))
    ]


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_a_network_of_one_class_takes_the_steps_of_a_network_of_all(optimizer: str) -> None:
    settings = ["stage.cam.weight_decay=0", "stage.cam.warmup=0"]
    typed = ["stage=cam", f"optimizer={optimizer}", "classifier.pcm=false", *settings]
    config = settings_of(compose_config(typed), "cam")
    weights = []
    for names in ("abcde", "a"):
        torch.manual_seed(0)
        network = SeamNetwork(TinyBackbone(), len(names), pcm=False)
        learner = classifier_learner(config, network, tuple(names), 5, total_steps=1000)
        configured: Any = learner.configure_optimizers()
        weight = next(network.backbone.parameters())
        weight.grad = torch.full_like(weight, 1 / len(names))  # of a loss that is a mean over the classes
        configured["optimizer"].step()
        weights.append(weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "fuse"),
    [({"compete": True}, competing_cams), ({"compete": False}, normalise_cam)],
    ids=["competing", "alone"],
)
def test_cams_are_exported_as_set(
    settings: dict[str, bool], fuse: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(0)
    network = SeamNetwork(TinyBackbone(), 3, pcm=False, zoom=1.0).eval()
    torch.nn.init.normal_(network.fc8.weight)
    image = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    tile, tags = Tile("a", 0, 0, 32, 24), np.array([1.0, 0.0, 1.0], dtype=np.float32)
    export = EXPORT | {"flip": False, "megapixels": None} | settings
    reader: Any = SimpleNamespace(image=lambda _: image, valid=lambda _: np.ones((32, 24), bool))
    tagged: Any = SimpleNamespace(by_name={tile.name: tags}, names=("a", "b", "c"))
    (maps,) = CamPredictor(torch.device("cpu"), network, reader, tagged, export)([tile])
    with torch.inference_mode():
        cam = network(to_tensor(image[None])).refined
        upsampled = F.interpolate(cam, (32, 24), mode="bilinear")[0]
    np.testing.assert_allclose(maps, fuse(upsampled, torch.from_numpy(tags)), atol=1e-5)


@pytest.mark.parametrize(("classes", "most"), [(1, 40), (16, 40), (40, 16), (200, 3)])
def test_a_forward_pass_has_fewer_tiles_where_many_classes_have_maps(classes: int, most: int) -> None:
    network = SeamNetwork(TinyBackbone(), classes, pcm=False, zoom=1.0).eval()
    sizes = []
    network.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    tiles = [Tile("a", row, 0, 8, 8) for row in range(50)]
    export = EXPORT | {"megapixels": 64 * 40 / 1e6}
    reader: Any = SimpleNamespace(
        image=lambda _: np.zeros((8, 8, 3), np.uint8), valid=lambda _: np.ones((8, 8), bool)
    )
    tags = np.ones(classes, np.float32)
    tagged: Any = SimpleNamespace(by_name={tile.name: tags for tile in tiles}, names=range(classes))
    maps = list(CamPredictor(torch.device("cpu"), network, reader, tagged, export)(tiles))
    assert len(maps) == 50
    assert max(sizes) == most


class RecordedReader:
    """A reader of noise that records the threads that use it; a copy records its own."""

    def __init__(self) -> None:
        self.threads = set[int]()

    def __copy__(self) -> Self:
        return type(self)()

    def image(self, tile: Tile) -> NDArray[np.uint8]:
        self.threads.add(get_ident())
        return np.random.default_rng(tile.row).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def valid(self, tile: Tile) -> NDArray[np.bool_]:
        self.threads.add(get_ident())
        return np.ones((tile.height, tile.width), bool)


def exporting() -> tuple[RecordedReader, CamPredictor, Any, list[Tile]]:
    torch.manual_seed(0)
    reader: Any = RecordedReader()
    network = SeamNetwork(TinyBackbone(), 3, pcm=False, zoom=1.0).eval()
    torch.nn.init.normal_(network.fc8.weight)
    tiles = [Tile("a", row, 0, 8, 8) for row in range(90)]
    tags = {tile.name: np.array([1, 0, 1], np.uint8) for tile in tiles}
    tagged: Any = SimpleNamespace(by_name=tags, names=("a", "b", "c"), tiles=tiles)
    export = EXPORT | {"megapixels": 64 * 4 / 1e6}
    return reader, CamPredictor(torch.device("cpu"), network, reader, tagged, export), tagged, tiles


def test_images_are_read_ahead_by_another_reader() -> None:
    # Only one thread may use the files of a reader, and who asks for CAMs reads the same tiles.
    reader, predictor, _, tiles = exporting()
    for tile, _ in zip(tiles, predictor(tiles), strict=True):
        reader.image(tile)
    assert reader.threads == {get_ident()}


def test_an_export_that_fails_while_it_writes_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, predictor, tagged, tiles = exporting()
    whole, broken = (SimpleNamespace(folder=tmp_path / name) for name in ("whole", "broken"))
    cam_stage._export(whole, predictor, tagged)  # type: ignore[arg-type]
    write = cam_stage.write_cams

    def full(path: Path, cams: NDArray[np.float32], tags: NDArray[np.uint8]) -> None:
        if path == cam_path(broken.folder, tiles[2]):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, cams, tags)

    monkeypatch.setattr(cam_stage, "write_cams", full)
    with pytest.raises(OSError, match="No space left"):
        cam_stage._export(broken, predictor, tagged)  # type: ignore[arg-type]
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in broken.folder.rglob("*.npz")}
    assert 0 < len(before) < len(tiles)
    cam_stage._export(broken, predictor, tagged)  # type: ignore[arg-type]
    for tile in tiles:
        one, other = (cam_path(work.folder, tile) for work in (whole, broken))
        assert one.read_bytes() == other.read_bytes()
        assert other.stat().st_mtime_ns == before.get(other, other.stat().st_mtime_ns)


@pytest.mark.slow
def test_one_vs_all_from_tags_to_cams(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        *tiny(),
        "stage.until=cam",
        "dataset.split.train=['2_10']",
        "stage.cam.epochs=1",
        "stage.cam.lr=0.01",
        "stage.cam.batch=8",
        "stage.cam.validation_tiles=2",
        "classifier=cam",
        "classifier.one_vs_all=true",
        "classifier.pooling=mean",
        "stage.cam.export.compete=false",
    ]
    config = run_here(*overrides)
    folder = Path(config.run_dir) / "cam"
    index = SceneIndex.read(Path(config.scenes))
    names = index.palette.names
    trained = {path.parent.name: path for path in folder.glob("class_*/network.pt")}
    assert set(trained) == {f"class_{name}" for name in names}
    states = {name: torch.load(path, weights_only=True) for name, path in trained.items()}
    history = read_csv(trained["class_car"].parent / "history.csv")
    first = next(row for row in history if row["name"] == "learning_rate")
    # A row of the history has the rate of the step that follows it.
    assert float(first["value"]) == pytest.approx(0.01 * 0.5**0.9, rel=1e-4)
    # Same start, same tiles, same order: only the tags differ.
    assert not torch.equal(states["class_tree"]["fc8.weight"], states["class_car"]["fc8.weight"])

    table = read_tag_table(Path(config.run_dir) / "labels", index).select("train", tagged=True)
    reader = scene_reader(config, index)
    tiles = [tile for tile in table.tiles if table.by_name[tile.name].sum() > 1]
    written = [read_cams(cam_path(folder, tile), len(names)) for tile in tiles]
    networks = []
    for name in names:
        alone = SeamNetwork(build_backbone("test_resnet", None, 16), 1, pcm=False).eval()
        alone.load_state_dict(states[f"class_{name}"])
        networks.append(alone)
    responded = 0
    for tile, cams, read in zip(
        tiles, CamPredictor.trained(torch.device("cpu"), folder, reader, table)(tiles), written, strict=True
    ):
        np.testing.assert_allclose(cams, read, atol=1e-3)  # half precision on disk
        image = torch.from_numpy(reader.image(tile)).permute(2, 0, 1)[None] / 255
        normalised = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        with torch.inference_mode():
            maps = torch.cat([alone(normalised).cam for alone in networks], dim=1)
            mirrored = torch.cat([alone(normalised.flip(-1)).cam for alone in networks], dim=1).flip(-1)
            fused = normalise_cam((maps + mirrored)[0], torch.from_numpy(table.by_name[tile.name]))
        # What becomes of a tile to which no network responds is the matter of tests/test_fusion.py.
        if fused.any():
            responded += 1
            np.testing.assert_allclose(fused, cams, atol=1e-3)  # flat maps are stretched a thousandfold
    assert responded >= 2

    # As if the run had been killed before the last class was trained.
    fingerprint = Manifest.read(folder)
    assert fingerprint is not None
    partial = folder.rename(folder.with_name("cam.partial"))
    (partial / "manifest.json").unlink()
    (partial / ".fingerprint").write_text(fingerprint.fingerprint)
    (partial / "class_car/network.pt").unlink()
    times = {
        name: (partial / name / "network.pt").stat().st_mtime_ns for name in set(trained) - {"class_car"}
    }
    capsys.readouterr()
    run_here(*overrides)
    output = capsys.readouterr().out
    assert "classifier of car: " in output
    assert "classifier of tree" not in output
    assert times == {name: (folder / name / "network.pt").stat().st_mtime_ns for name in times}
    with pytest.raises(UserError, match=r"type stage\.pseudo\.cams=cam"):
        run_here(*overrides, "stage.until=affinity", "stage.pseudo.cams=affinity")
    with pytest.raises(UserError, match=r"checkpoint is one network of all classes"):
        run_here(*overrides, "stage.cam.checkpoint=resnet38_SEAM.pth")
    again = torch.load(folder / "class_car/network.pt", weights_only=True)
    assert all(torch.equal(value, again[name]) for name, value in states["class_car"].items())


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("resnet18", {"pcm": True}),
        ("mit_b0", {"pcm": False, "attention": 0.2, "zoom": 2.0, "pooling": "competing"}),
    ],
)
def test_a_checkpoint_reloads_with_nothing_else_at_hand(
    tmp_path: Path, backbone: str, settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = SeamNetwork(build_backbone(backbone, None, 16, in_channels=4), 2, **settings).freeze()
    rates = Optimization(lr=0.02, power=0.8)
    module = SeamClassifier(network, ("a", "b"), total_steps=7, optimizer=rates, er_weight=0.5, clip=2.0)
    loaded = reloaded(module, tmp_path / "any.ckpt")
    assert loaded._optimizer == rates
    assert loaded.network.pooling == settings.get("pooling", "mean")
    image = torch.rand(1, 4, 32, 48)
    with torch.no_grad():
        for before, after in zip(module.eval().network(image), loaded.eval()(image), strict=True):
            assert torch.equal(before, after)
    learnt = [[name for name, p in one.named_parameters() if p.requires_grad] for one in (module, loaded)]
    assert learnt[0] == learnt[1] != [name for name, _ in module.named_parameters()]
