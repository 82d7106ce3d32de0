"""What settings say together is known before the first stage starts."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ome.cli.runner import selected_stages
from ome.config.checks import check_settings, numbers_to_text, type_faults
from ome.config.schema import Settings
from ome.config.schema.hints import addresses as settings_below
from ome.config.schema.hints import expected, parse
from ome.config.trainer_checks import check_training
from ome.errors import UserError
from ome.networks.backbones import build_backbone
from ome.networks.features import Backbone, Features
from ome.pipeline.artifacts import plain
from ome.pipeline.config_guard import UndeclaredError, declared_config
from tests.conftest import compose_config, tiny

RESNET38D = ("backbone=resnet38d", "backbone.name=resnet38d")


def composed(*overrides: str) -> DictConfig:
    return compose_config([*tiny("all"), *overrides])


class SameImage(nn.Module):
    """A network of a user that computes no logits."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["segmenter.recipe.warmup_steps=9", "segmenter.recipe.steps=9"],
            "warmup_steps=9 must be below",
        ),
        (["segmenter=deeplabv3plus", "segmenter.recipe.batch=1"], "batch=1: deeplabv3plus normalises maps"),
        (["segmenter=upernet", "segmenter.recipe.batch=1"], "batch=1: upernet normalises maps"),
        (["trainer=ddp_cpu", "trainer.compile=true"], "compile=true is for a single process"),
        (["trainer.devices=2"], "trainer.devices=2: more than one needs trainer=ddp"),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2: more than one needs trainer=ddp"),
        (
            ["trainer=ddp_cpu", "segmenter.recipe.batch=3"],
            "segmenter.recipe.batch=3 cannot be split evenly among 2",
        ),
        (
            ["trainer=ddp_cpu", "trainer.devices=3", "segmenter.recipe.batch=3"],
            "stage.cam.batch=4 cannot be split",
        ),
        (["+dataset.images.rgb.chanels=[1]"], "unknown key chanels: known are archive, pattern, channels"),
        (["stage.seg.targets=[full]"], "stage=refine starts from the segmenter weak"),
        ([f"dataset.raw={__file__}", "dataset.town=null"], "is a file, not a folder: type dataset.raw=/path"),
        (["+segmenter._target_=no.Net"], "segmenter._target_=no.Net cannot be imported"),
        (["+segmenter._target_=os.getcwd"], "segmenter._target_=os.getcwd is not a segmenter"),
        (["+segmenter._target_=torch.nn.Linear"], "segmenter._target_=torch.nn.Linear is not a segmenter"),
        ([f"+segmenter._target_={__name__}.SameImage"], r"is not a segmenter \(it returns \(1, 3, 64, 64\)"),
        ([f"segmenter.encoder={__name__}.SameImage"], "SameImage is for the classifier only"),
        (["+backbone._target_=torch.nn.Linear"], "backbone._target_=torch.nn.Linear is not a backbone"),
        (["dataset.tile.size={_target_:a.B}"], "'a.B'}: expected a whole number of at least 1"),
        ([*RESNET38D, "backbone.output_stride=16"], "output_stride=16: resnet38d has 8"),
        (["backbone.output_stride=12"], "backbone.output_stride=12"),
        (["backbone=encoder", "backbone.name=resnet19"], "'resnet19'; did you mean"),
        (["segmenter.encoder=resnet38d"], "resnet38d is for the classifier only"),
        (["backbone.weights=/nowhere/w.pth"], "backbone.weights=/nowhere/w.pth does not exist"),
        (
            ["backbone.encoder_weights=/nowhere/w.pth"],
            "backbone.encoder_weights=/nowhere/w.pth does not",
        ),
        (["segmenter.weights=/nowhere/w.pth"], "segmenter.weights=/nowhere/w.pth does not exist"),
        (["stage.cam.checkpoint=/nowhere/c.pth"], "stage.cam.checkpoint=/nowhere/c.pth does not exist"),
        (["dataset.tags=/nowhere/t.csv"], "dataset.tags=/nowhere/t.csv does not exist"),
        (["segmenter.recipe.class_weights=[1,2]"], r"class_weights=\[1.0, 2.0\]: give 5 numbers, not all 0"),
        (["segmenter.recipe.losses=[{weight:1}]"], r"losses\[0\]: give _target_"),
        (["segmenter.recipe.losses=[{_target_:no.such.Loss}]"], "no.such.Loss cannot be imported"),
        (["segmenter.recipe.losses=[{_target_:os.getcwd}]"], r"losses\[0\]: os.getcwd is not a loss of"),
        (["segmenter.recipe.losses=[{_target_:torch.Size}]"], r"losses\[0\]: torch.Size is not a loss of"),
        (
            ["segmenter.recipe.losses=[{_target_:torch.nn.CrossEntropyLoss,weight:x}]"],
            r"losses\[0\].weight=x: expected a number of at least 0",
        ),
        (["segmenter.recipe.losses=[3]"], "expected a list of mappings"),
        (
            ["backbone.name=mobilenet_v2", "backbone.weights=imagnet"],
            "'mobilenet_v2' has no published weights 'imagnet'",
        ),
        (
            ["segmenter.encoder=mobilenet_v2", "segmenter.weights=imagnet"],
            "'mobilenet_v2' has no published weights 'imagnet'",
        ),
        ([*RESNET38D, "backbone.output_stride=8", "backbone.weights=imagenet"], "no published"),
        (
            ["backbone.weights=package"],
            "backbone.weights=package: no package has weights of encoder 'tu-",
        ),
        (["backbone.encoder_weights=package"], "backbone.encoder_weights=package: no package has weights"),
        (["backbone.weights=3", "backbone.encoder_weights=null"], "backbone.weights=3: expected text"),
        (["dataset.display=[1,2,9]"], r"dataset.display=\[1, 2, 9\]: give three positions"),
        (["classifier.zoom=0.05"], "size=64 with classifier.zoom=0.05 is less than a cell"),
        *(
            (["classifier.zoom=" + zoom], f"classifier.zoom={zoom}: expected a number")
            for zoom in ("1000.0", "0.0")
        ),
        (["dataset.bands=xyz"], "dataset.bands=xyz: synthetic has"),
        (["dataset.tile.size=8"], "size=8 with classifier.zoom=1 is less than a cell"),
        (["name=a/../b"], "name=a/../b is not the name of a folder"),
        (["name=''"], "name= is not the name of a folder"),
        (["+prediction.stirde=1"], r"unknown setting prediction.stirde: did you mean prediction.stride\?"),
        (["+crf.foo=3"], "unknown setting crf.foo: known are backend"),
        (["stage.cam.jitter=[0.1,0.1,0.1,5]"], "the last at most 0.5"),
        (["classifier=attention"], "attention needs an encoder whose last but one stage attends"),
        (
            ["classifier=seam", "classifier.ecr_weight=0", "classifier.min_pool_weight=0"],
            "nothing trains the pixel correlation",
        ),
        (["backbone.name=abc"], "backbone.name=abc: unknown backbone or encoder 'abc'"),
        *(
            (
                [f"{key}={name}", weights],
                f"{key}={name}: resnet18 has no weights with the tag",
            )
            for key in ("backbone.name", "segmenter.encoder")
            for name in ("resnet18.abc", "tu-resnet18.abc")
            for weights in ("backbone.weights=null", "backbone.weights=imagenet")
        ),
        (["segmenter.encoder=abc"], "segmenter.encoder=abc: unknown backbone or encoder 'abc'"),
        (["backbone.name=true"], "backbone.name=True: expected text"),
        (["stage.cam.checkpoint="], "stage.cam.checkpoint=: expected text, or null"),
        (["dataset.raw=null"], "dataset.raw is not set: type dataset.raw="),
        (["dataset.masks=abc"], "dataset.masks=abc: expected a mapping of kinds"),
        (
            ["+dataset.images.more=3"],
            "dataset.images and dataset.masks: expected {archive, pattern} and not 3",
        ),
        (["classifier=one_vs_all", "stage.pseudo.cams=affinity"], "AffinityNet starts from the"),
        (["classifier.one_vs_all=true"], "type classifier.pooling=mean"),
        (["classifier=one_vs_all", f"stage.cam.checkpoint={__file__}"], "is one network of all classes"),
    ],
)
def test_a_fault_is_one_line_before_the_first_stage(overrides: list[str], line: str) -> None:
    config = composed(*overrides)
    with pytest.raises(UserError, match=line.replace("+", r"\+")) as raised:
        check_settings(config, selected_stages(config))
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("dataset.raw=2023", "dataset.raw", "2023"),
        ("scenes=3", "scenes", "3"),
        ("inherit=[2023,runs]", "inherit", ["2023", "runs"]),
        ("stage.predict.scene=7", "stage.predict.scene", "7"),
        ("stage.cam.epochs=7", "stage.cam.epochs", 7),
    ],
)
def test_a_name_may_look_like_a_number(override: str, key: str, value: object) -> None:
    numbers_to_text(config := composed(override))
    assert plain(config, key) == value


def test_all_faults_are_said_at_once_and_only_those_of_stages_that_run() -> None:
    overrides = ["segmenter.recipe.warmup_steps=9", "segmenter.recipe.steps=9", "stage.cam.lr=-1"]
    config = composed(*overrides, "dataset.tags=/nowhere/t.csv")
    with pytest.raises(UserError) as raised:
        check_settings(config, selected_stages(config))
    assert len(str(raised.value).splitlines()) == 3
    config = composed(*overrides[:2], "stage.until=pseudo")
    check_settings(config, selected_stages(config))


def test_weights_that_cannot_be_downloaded_stop_a_command_before_its_first_stage(
    run_here: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    line = r"backbone\.encoder_weights=imagenet: cannot download .* encoder 'resnet18' .*/path/file\.pth$"
    with pytest.raises(UserError, match=line):
        run_here(*tiny(), "segmenter.encoder=resnet18", "backbone.encoder_weights=imagenet")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "scenes").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_of_any_setting_is_without_end(value: float) -> None:
    """What a number may be is decided in one place, so that none of the settings takes nan."""
    addresses = [
        address
        for address, hint in settings_below(Settings)
        if any("a number" in expected(parse(option)) for option in hint.options if option is not type(None))
        and address != "dataset.nodata"
    ]
    assert len(addresses) > 40
    config = composed()
    for address in addresses:
        OmegaConf.update(config, address, value)
    wrong = dict(type_faults(config))
    assert not {*addresses} - {*wrong}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    config = composed("trainer.accelerator=gpu")
    with pytest.raises(UserError, match="torch finds no GPU: type trainer=cpu"):
        check_settings(config, selected_stages(config))


@pytest.mark.skipif(find_spec("pydensecrf") is not None, reason="pydensecrf is installed")
def test_an_extra_that_is_not_installed() -> None:
    config = composed("crf.backend=pydensecrf")
    with pytest.raises(
        UserError, match=r'crf.backend=pydensecrf needs pydensecrf: pip install "ome\[reference\]"'
    ):
        check_settings(config, selected_stages(config))


@pytest.mark.parametrize(
    "argument",
    ["limit_val_batches=-1", "gradient_clip_algorithm=foo", "limit_test_batches=-3", "max_time=soon"],
)
def test_values_of_the_trainer_are_looked_at(argument: str) -> None:
    with pytest.raises(UserError, match=f"trainer.{argument}: Lightning's Trainer says"):
        check_training(composed(f"+trainer.{argument}"))


def test_a_stage_cannot_read_what_it_does_not_declare() -> None:
    declared = declared_config(composed(), ("seed", "dataset.tile.size", "segmenter"))
    assert declared.seed == 0
    assert declared.dataset.tile.size == 64
    assert declared.segmenter.encoder == "tu-test_resnet", "what a key refers to need not be declared"
    assert declared.run_dir
    for read in (
        lambda: declared.crf.iterations,
        lambda: declared.dataset.tile.stride,
        lambda: declared.dataset.get("channels"),
        lambda: declared.trainer.precision,
        lambda: dict(declared.classifier),
        lambda: "iterations" in declared.crf,
        lambda: OmegaConf.to_container(declared.crf, resolve=True),
    ):
        with pytest.raises(UndeclaredError, match="without declaring it: add it to"):
            read()


class OwnBackbone(Backbone):
    """A backbone of a user."""

    def __init__(self, in_channels: int, output_stride: int) -> None:
        super().__init__()
        self.in_channels, self.output_stride, self.channels, self.frozen = (
            in_channels,
            output_stride,
            (4,) * 3,
            (),
        )
        self.conv1 = nn.Conv2d(in_channels, 4, 3, output_stride, 1)

    def forward(self, image: torch.Tensor) -> Features:
        return Features(*[self.conv1(image)] * 3)


@pytest.fixture
def own_images(tmp_path: Path) -> list[str]:
    """Settings of images whose number of bands is not known before they are read."""
    (tmp_path / "tags.csv").write_text("image,split,tags\n")
    return ["dataset=custom", f"dataset.raw={tmp_path}", f"dataset.tags={tmp_path}/tags.csv"]


RANDOM = (
    "backbone=resnet18",
    "segmenter.encoder=resnet18",
    "backbone.weights=null",
    "segmenter.weights=null",
)
PLUGIN = f"+backbone._target_={__name__}.OwnBackbone"


@pytest.mark.parametrize("channels", ["null", "[1,2,3]"])
@pytest.mark.parametrize("keys", [["backbone.weights"], ["segmenter.weights"], [PLUGIN, "backbone.weights"]])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "is truncated or not a checkpoint"),
        ({"other.weight": torch.zeros(2, 2)}, "these are another network's weights"),
        ({"conv1.weight": torch.zeros(5, 3, 7, 7)}, "1 tensors have another shape than in the network"),
        ({}, "contains no named tensors"),
    ],
)
def test_weights_that_do_not_fit_are_known_before_the_first_stage(
    tmp_path: Path,
    own_images: list[str],
    keys: list[str],
    channels: str,
    content: dict[str, torch.Tensor] | None,
    line: str,
) -> None:
    file = tmp_path / "weights.pth"
    if content is None:
        file.write_bytes(b"PK\x03\x04 and no more")
    else:
        torch.save(content, file)
    config = compose_config(
        [*own_images, f"dataset.channels={channels}", *RANDOM, *keys[:-1], f"{keys[-1]}={file}"]
    )
    with pytest.raises(UserError, match=line):
        check_settings(config, ["cam", "seg"])


@pytest.mark.parametrize("dataset", [[], [PLUGIN]])
def test_weights_may_be_for_any_bands_if_only_the_images_know_theirs(
    tmp_path: Path, own_images: list[str], dataset: list[str]
) -> None:
    backbone = OwnBackbone(5, 16) if dataset else build_backbone("resnet18", None, 16, in_channels=5)
    torch.save(backbone.state_dict(), tmp_path / "five.pth")
    settings = [*own_images, *RANDOM, *dataset, f"backbone.weights={tmp_path}/five.pth"]
    check_settings(compose_config(settings), ["cam"])
    with pytest.raises(UserError, match="is for images of 5 bands, but the dataset has 3"):
        check_settings(compose_config([*settings, "dataset.channels=[1,2,3]"]), ["cam"])


def weighed(
    logits: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, of_class: list[float]
) -> torch.Tensor:
    """A loss that knows how many classes there are, and needs more than a few pixels."""
    entropy = nn.functional.cross_entropy(logits, mask, torch.tensor(of_class), reduction="none")
    return nn.functional.avg_pool2d(entropy * factor, 16).mean()


@pytest.mark.parametrize(("classes", "fits"), [(5, True), (4, False)])
def test_a_loss_is_tried_with_the_classes_of_the_dataset(classes: int, fits: bool) -> None:
    term = f"segmenter.recipe.losses=[{{_target_:{__name__}.weighed,of_class:{[1.0] * classes}}}]"
    config = compose_config(["dataset=synthetic", term])
    with nullcontext() if fits else pytest.raises(UserError, match="weighed is not a loss of"):
        check_settings(config, ["seg"])


def of_pixels(logits: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, mask, reduction="none") * factor


def undefined(logits: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return of_pixels(logits, mask, factor).mean().neg().log()


def constant(logits: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return of_pixels(logits.detach(), mask, factor).mean()


def number(logits: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> float:
    return float(constant(logits, mask, factor))


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        (of_pixels, r"a tensor of the shape \(2, 64, 64\): give one number"),
        (undefined, "nan for random logits"),
        (constant, "a value that does not depend on the logits"),
        (number, "float, not a scalar tensor"),
    ],
)
def test_a_loss_that_trains_nothing_is_refused(loss: Callable[..., object], fault: str) -> None:
    term = f"segmenter.recipe.losses=[{{_target_:{__name__}.{loss.__name__}}}]"
    with pytest.raises(UserError, match=f"{loss.__name__} returns {fault}"):
        check_settings(compose_config(["dataset=synthetic", term]), ["seg"])


def test_a_loss_waits_for_classes_that_the_table_tells() -> None:
    term = f"segmenter.recipe.losses=[{{_target_:{__name__}.weighed,of_class:[1.0,2.0]}}]"
    check_settings(compose_config(["dataset=custom", term, "segmenter.recipe.class_weights=[1,2]"]), ["seg"])
    check_settings(compose_config(["dataset=custom", term]), ["seg"])
