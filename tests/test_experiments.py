"""The paper's experiments on miniature archives: every stage up to the segmenters, at tiny sizes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from ome.config.sections import settings_of
from ome.data.palette import Palette
from ome.data.scene_index import SceneIndex
from ome.errors import UserError
from ome.files import read_csv
from ome.networks.backbones import build_backbone
from ome.networks.segmenters import build_segmenter
from ome.pipeline.manifest import Manifest
from ome.scoring.rows import read_rows
from ome.training.checkpoints import load_network
from tests import archives
from tests.conftest import compose_config, copy_until, tiny

Run = Callable[..., DictConfig]

SPLITS = {
    "potsdam": "dataset.split={train: ['2_10'], val: [], test: ['5_15']}",
    "vaihingen": "dataset.split={train: ['1'], val: [], test: ['6']}",
    "deepglobe": "dataset.split.numeric=[1,1,1]",
}
SCENES = {"potsdam": ("2_10", "5_15"), "vaihingen": ("1", "6"), "deepglobe": ("119", "855", "10233")}
ODD = (7, 7, 7)
"""A colour that no palette knows."""

SMALL = (
    "dataset.raw=raw",
    "dataset.tile.size=32",
    "dataset.tile.stride=32",
    "dataset.filter.minimum=0.001",
    "backbone=resnet18",
    "backbone.weights=null",
    "backbone.encoder_weights=null",
    "segmenter.recipe.steps=1",
    "segmenter.recipe.batch=2",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.workers=0",
    "stage=all",
    "stage.until=seg",
    "stage.cam.epochs=1",
    "stage.cam.batch=2",
    "stage.cam.crop=48",
    "stage.cam.validation_tiles=2",
    "stage.cam.export.scales=[1.0]",
    "stage.pseudo.threads=1",
)
"""One step of everything, on scenes of 48 x 70 pixels."""


def write_raw(dataset: str, raw: Path, *, odd: bool = False) -> None:
    """Noise in the layout of a dataset; `odd` paints the first row of the references in an unknown colour."""
    facts = archives.facts(dataset)
    image, mask = facts["images"][facts["bands"]], facts["masks"]["full"]
    colours = [tuple(colour) for colour in facts["classes"].values()]
    ignored = [tuple(colour) for colour in facts["ignored"].values()]
    images, masks = {}, {}
    for seed, scene in enumerate(SCENES[dataset]):
        painted, _ = archives.reference(seed, colours, ignored, 48, 70)
        if odd:
            painted[0] = ODD
        for source, pixels, files in (
            (image, archives.image(seed, height=48, width=70), images),
            (mask, painted, masks),
        ):
            driver = {"tif": "GTiff", "jpg": "JPEG", "png": "PNG"}[source["pattern"][-3:]]
            files[source["pattern"].format(scene=scene)] = archives.raster(pixels, driver)
    archives.pack(images, raw, image["archive"])
    archives.pack(masks, raw, mask["archive"])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "network.pt", weights_only=True)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    "dataset", [pytest.param(name, marks=[] if name == "potsdam" else pytest.mark.slow) for name in SPLITS]
)
def test_the_papers_experiments_run(run_here: Run, dataset: str) -> None:
    write_raw(dataset, Path("raw"))
    config = run_here(f"experiment=ome_{dataset}", SPLITS[dataset], *SMALL)
    run = Path(config.run_dir)
    # With the last rows and columns: 2 x 3 tiles; DeepGlobe has a scene for validation too.
    assert len(read_csv(run / "labels/tags.csv")) == (12 if dataset == "deepglobe" else 6)
    assert [row.name for row in read_rows(run / "seg")] == [
        "weak segmentation",
        "pixel-supervised segmentation",
    ]
    network = build_segmenter("pspnet", "resnet18", len(config.dataset.classes))
    load_network(network, run / "seg/weak")


@pytest.mark.parametrize(
    ("dataset", "size", "stride", "classes"),
    [("potsdam", 256, 128, 5), ("vaihingen", 128, 128, 5), ("deepglobe", 306, 306, 6)],
)
def test_the_papers_settings(dataset: str, size: int, stride: int, classes: int) -> None:
    overrides = [f"experiment=ome_{dataset}"]
    composed = compose_config(overrides)
    assert (composed.dataset.name, composed.backbone.name) == (dataset, "resnet38d")
    assert (composed.segmenter.name, composed.segmenter.encoder) == ("pspnet", "resnet50")
    assert composed.dataset.tile == {"size": size, "stride": stride, "cover": True}
    assert len(composed.dataset.classes) == classes
    cam = settings_of(composed, "cam").stage
    assert (cam.epochs, cam.batch, cam.lr, cam.power, cam.weight_decay) == (20, 16, 0.01, 0.9, 5e-4)
    # SEAM: the long side becomes 128 to 384 pixels, of which 256 are cut.
    assert [round(factor * size) for factor in cam.scale] == [128, 384]
    assert (cam.crop or size) == 256
    assert cam.export.scales == [0.5, 1, 1.5, 2]
    crf = composed.crf
    assert (crf.iterations, crf.gaussian_sxy, crf.gaussian_weight) == (10, 1, 3)
    assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_weight) == (67, 3, 4)
    recipe = composed.segmenter.recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.005, 0.9, 5e-4)
    assert (recipe.power, recipe.minimum_lr, recipe.steps, recipe.batch) == (0.9, 1e-4, 20000, 16)
    assert (recipe.weighting, composed.segmenter.auxiliary_weight) == ("threshold", 0.4)
    assert settings_of(composed, "pseudo").stage.response_scales == [0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert settings_of(composed, "refine").stage.response_scales == [0.15, 0.2, 0.25, 4, 5, 6]


def test_urns_recipe_does_not_depend_on_what_a_dataset_or_recipe_says() -> None:
    experiment = ["experiment=urn_reference", "segmenter.recipe.steps_per_epoch=1"]
    below = (["dataset=potsdam"], ["dataset=synthetic"], ["segmenter/recipe=adamw"])
    plain, *others = (compose_config([*experiment, *more]).segmenter.recipe for more in below)
    assert all(other == plain for other in others)


def test_the_paper_needs_pretrained_weights() -> None:
    backbone = compose_config(["experiment=ome_potsdam"]).backbone
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=r"weights file does not exist: resnet38d.*backbone\.weights=/"),
    ):
        build_backbone(backbone.name, backbone.weights)


@pytest.mark.slow
def test_the_mistakes_of_the_public_code_can_be_repeated(run_here: Run) -> None:
    write_raw("deepglobe", Path("raw"), odd=True)
    experiment = [
        "experiment=[ome_deepglobe,reference]",
        SPLITS["deepglobe"],
        *SMALL,
        "+dataset.classes.unknown=[0,0,0]",
        "dataset.ignored=null",
        "backbone.freeze=true",  # without the noise of BatchNorm the loss falls in every epoch
        "stage.until=cam",
    ]
    config = run_here(*experiment, "stage.cam.epochs=3")
    index = SceneIndex.read(Path(config.scenes))
    assert index.palette.names[-1] == "unknown"
    # Every pixel is of some class, the odd ones of the first.
    assert sum(index.class_pixels.values()) == 3 * 48 * 70
    assert index.unknown.counts == ((ODD, 3 * 70),)
    run = Path(config.run_dir)
    assert run.name == "deepglobe_resnet18_reference"
    assert len(read_csv(run / "labels/tags.csv")) == 2 * 2
    manifest = Manifest.read(run / "cam")
    assert manifest is not None
    assert manifest.config["stage"]["momentum"] == 5e-4
    assert manifest.config["classifier"]["er_weight"] == 0
    run_here(*experiment, "stage.cam.epochs=1", "name=first", "quirks.keep_highest_validation_loss=false")
    worst, first = weights(run / "cam"), weights(Path("runs/first/cam"))
    assert worst["fc8.weight"].shape[0] == 7
    assert all(torch.equal(worst[name], first[name]) for name in first)
    assert not (run / "cam/highest_loss.pt").exists()


def test_unknown_colours_are_of_the_first_class_only_when_asked() -> None:
    colours = {"urban": (0, 255, 255), "water": (0, 0, 255)}
    painted, _ = archives.reference(0, list(colours.values()), [(0, 0, 0)], 4, 5)
    painted[0] = ODD
    plain = Palette(colours, {"void": (0, 0, 0)}).encode(painted)
    wrong = Palette(colours, {"void": (0, 0, 0)}, unknown_as_first=True).encode(painted)
    assert (plain.mask[0] == 255).all()
    assert (wrong.mask[0] == 0).all()
    assert (plain.mask[1:] == wrong.mask[1:]).all()
    assert plain.unknown == wrong.unknown == {ODD: 5}


@pytest.fixture(scope="module")
def labelled(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pseudo masks of the tiny town in runs/synthetic_tu-test_resnet."""
    return copy_until("pseudo", tiny_run, tmp_path_factory.mktemp("labelled"))


RECIPES = {
    "urn": ["experiment=urn_reference"],
    "segformer": [
        "segmenter=segformer",
        "segmenter.encoder=mit_b0",
        "segmenter/recipe=adamw",
        "segmenter.recipe.warmup_steps=1",
    ],
    "options": [
        "segmenter.auxiliary_weight=0.4",
        "segmenter.recipe.class_weights=balanced",
        "segmenter.recipe.label_smoothing=0.1",
        "segmenter.recipe.ohem=0.5",
        "segmenter.recipe.dice=0.5",
        "segmenter.recipe.lovasz=0.5",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_recipes_train_and_predict(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run, recipe: str
) -> None:
    monkeypatch.chdir(labelled)
    run = Path(f"runs/{recipe}")
    overrides = tiny("seg")
    if recipe != "options":
        overrides.remove("segmenter=fpn")
    run_here(
        *overrides,
        *RECIPES[recipe],
        f"name={recipe}",
        "inherit=runs/synthetic_tu-test_resnet",
        "segmenter.recipe.steps=2",
        "segmenter.recipe.batch=2",
        "stage.seg.targets=[weak]",
    )
    (row,) = read_rows(run / "seg")
    assert row.name == "weak segmentation"
    assert not [name for name in weights(run / "seg/weak") if "auxiliary" in name]


def test_cams_of_a_published_classifier_need_no_training(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run
) -> None:
    monkeypatch.chdir(labelled)
    trained = Path("runs/synthetic_tu-test_resnet")
    run_here(
        *tiny("cam"),
        "name=published",
        f"inherit={trained}",
        f"stage.cam.checkpoint={trained / 'cam/network.pt'}",
        "stage.cam.lr=1e30",
    )
    cams = sorted(path.relative_to(trained) for path in trained.glob("cam/cams/**/*.npz"))
    assert len(cams) == 32
    for path in cams:
        assert (trained / path).read_bytes() == (Path("runs/published") / path).read_bytes()
    manifest = Manifest.read(Path("runs/published/cam"))
    assert manifest is not None
    assert manifest.counts["training_tiles"] == 0
