"""Anybody's images from the command line to the report: other sizes, other bands, with masks and without."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from rasterio.transform import Affine
from scipy.special import xlogy

from ome.cli.plan import plan_of
from ome.cli.runner import _tagging
from ome.config import classifying, segmenting
from ome.data.scene_index import SceneIndex
from ome.data.suggestions import read_suggestions
from ome.errors import UserError
from ome.files import read_csv, read_json
from ome.geo.gdal import plain_pixels
from ome.geo.raster import read_png
from ome.geo.reader import Raster
from ome.networks.backbones import build_backbone
from ome.networks.seam import SeamNetwork
from ome.pipeline.manifest import Manifest
from ome.scoring.rows import read_rows
from ome.stages import affinity
from ome.stages.suggest import is_constant
from ome.tagging.options import parser
from tests import archives
from tests.archives import read_class_map
from tests.conftest import TINY, compose_config, tiny

Run = Callable[..., DictConfig]
RUN = Path("runs/custom_tu-test_resnet")
STAGES = ["prepare", "labels", "cam", "pseudo", "seg", "report"]
SIZES = [(48, 64), (70, 50), (64, 64), (90, 100), (40, 44)]
UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_800_000)}

# A tiny run of the town, less what only the town has.
SMALL = [override for override in TINY if not override.startswith("dataset")]
CUSTOM = [*SMALL, "dataset=custom", "dataset.raw=images", "dataset.tags=tags.csv", "dataset.tile.size=64"]


def custom(stage: str, *overrides: str) -> list[str]:
    """The overrides of a tiny run of one stage, or of all."""
    return [*CUSTOM, *(override for override in tiny(stage) if override not in TINY), *overrides]


def halves(
    seed: int, height: int, width: int, bands: int = 3
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """(H, W, bands) in [0, 1], dark left of a random column and bright right of it; and the (H, W) mask."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(width) >= rng.integers(width // 4, width // 2)).astype(np.uint8)
    mask = np.broadcast_to(mask, (height, width)).copy()
    level = np.where(mask[..., None], np.linspace(0.9, 0.6, bands), np.linspace(0.1, 0.4, bands))
    return (level + rng.normal(0, 0.03, (height, width, bands))).clip(0, 1), mask


def write_photographs(folder: Path) -> None:
    """JPEGs of different sizes; four with tags, one without."""
    (folder / "images").mkdir()
    for number, size in enumerate(SIZES):
        pixels, _ = halves(number, *size)
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / f"images/photo {number}.jpg")
    rows = ["photo 0.jpg,field", "photo 1.jpg,field;water", "photo 2.jpg,water|field", "photo 3,water; field"]
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")


def test_tags_are_counted_over_the_training_images(run_here: Run, tmp_path: Path) -> None:
    write_photographs(tmp_path)
    rows = ["photo 0,train,field", "photo 1,train,field;water", "photo 2,val,water", "photo 3,test,water"]
    (tmp_path / "tags.csv").write_text("\n".join(["image,split,tags", *rows]) + "\n")
    run_here(*custom("all"), "stage.until=labels")
    summary = read_json(RUN / "labels/labels.json")
    assert summary["tiles_with_class"] == summary["kept_tiles_with_class"] == {"field": 2, "water": 1}
    assert (RUN / "labels/cooccurrence.csv").read_text().splitlines()[1:] == [
        "field,1.0,0.5",
        "water,1.0,1.0",
    ]


@pytest.mark.slow
def test_photographs_of_different_sizes_with_tags_alone_reach_the_report(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path)
    run_here(*custom("all"))
    output = capsys.readouterr().out
    assert output.count("no reference masks: nothing to train the upper bound on") == 1
    assert "5 images, bands [1, 2, 3]" in output
    assert "more than 2 x" not in output
    sizes = {"photo 0": (48, 64), "photo 1": (70, 50), "photo 2": (64, 64), "photo 3": (90, 100)}
    for name, size in sizes.items():
        assert read_png(RUN / f"pseudo/masks/{name}/{name}_00000_00000.png").shape == size
    # What has no tags is mapped, and nothing else: there is nothing to score elsewhere.
    maps = sorted(RUN.rglob("predictions/*.tif"))
    assert [path.name for path in maps] == ["photo 4.tif"] * 2
    assert all(read_class_map(path).shape == (40, 44) and read_class_map(path).max() <= 1 for path in maps)
    assert all(read_rows(RUN / stage) == [] for stage in ("cam", "pseudo", "seg", "refine", "report"))
    page = (RUN / "report/report.html").read_text()
    assert "no scores: there are no reference masks" in page
    assert "errors are black" not in page
    run_here(*custom("all"))
    assert capsys.readouterr().out.count("up to date") == 7
    with pytest.raises(
        UserError, match=r"nothing to train the upper bound on; use 'stage.seg.targets=\[weak\]'"
    ):
        run_here(*custom("seg", "stage.seg.targets=[full]"))
    check_suggestions(run_here, capsys)
    # Other tags do not touch the images.
    table = tmp_path / "tags.csv"
    table.write_text(table.read_text().replace("0.jpg,field", "0.jpg,water"))
    run_here(*custom("all", "stage.until=labels"))
    output = capsys.readouterr().out
    assert "up to date prepare" in output
    assert "done labels" in output
    # Only the longest side of the largest image, 100 pixels, is more than two crops.
    run_here(*custom("all", "stage.until=labels", "dataset.tile.size=49"))
    assert "1 of 4 tagged images are more than 2 x 49 pixels" in capsys.readouterr().out
    run_here(*custom("all", "stage.until=labels", "dataset.tile.size=50"))
    assert "more than 2 x" not in capsys.readouterr().out


def test_files_that_are_not_read_and_a_copied_table_change_nothing(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path)
    until = [*custom("all"), "stage.until=labels"]
    run_here(*until)
    statistics = "<PAMDataset><PAMRasterBand band='1'><Metadata/></PAMRasterBand></PAMDataset>"
    for name, text in (("notes.txt", "mine"), ("photo 0.jpg.aux.xml", statistics), ("old.csv", "image,tags")):
        (tmp_path / "images" / name).write_text(text)
    shutil.copy(tmp_path / "tags.csv", tmp_path / "images/tags.csv")
    capsys.readouterr()
    run_here(*until, "dataset.tags=images/tags.csv")
    assert capsys.readouterr().out.count("up to date") == 2
    (tmp_path / "images/tags.csv").write_text((tmp_path / "tags.csv").read_text().replace("|", ";"))
    run_here(*until, "dataset.tags=images/tags.csv")
    assert "done labels" in capsys.readouterr().out
    (tmp_path / "images/photo 0.jgw").write_text("2\n0\n0\n-2\n500000\n5800000\n")
    run_here(*until, "dataset.tags=images/tags.csv")
    assert "done prepare" in capsys.readouterr().out


def test_tags_of_val_are_compared_with_those_of_the_classifier(run_here: Run, tmp_path: Path) -> None:
    write_photographs(tmp_path)
    tags = {"photo 2": {"field", "water"}, "photo 3": set()}
    rows = [
        "photo 0,train,1,field",
        "photo 1,train,1,field;water",
        "photo 2,val,1,water;field",
        "photo 3,val,0,",  # none of the classes
        "photo 4,val,,",  # not decided
    ]
    (tmp_path / "tags.csv").write_text("\n".join(["image,split,kept,tags", *rows]) + "\n")
    run_here(*custom("all", "stage.until=cam"))
    run_here(*custom("suggest"))
    probabilities = {
        tile.scene: one.probabilities
        for tile, one in read_suggestions(RUN / "suggest/suggestions.csv").items()
    }
    predicted = {
        image: {name for name, value in probabilities[image].items() if value > 0.5} for image in tags
    }
    for row in read_csv(RUN / "cam/tag_scores.csv"):
        assert int(row["tiles"]) == len(tags)
        for column, counted in (("shown", tags), ("given", predicted)):
            assert int(row[column]) == sum(row["class"] in names for names in counted.values())
        assert int(row["right"]) == sum(row["class"] in tags[image] & predicted[image] for image in tags)
    run_here(*custom("report"))
    assert "Tags predicted by the classifier" in (RUN / "report/report.html").read_text()


def check_suggestions(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every image, tagged or not: the sigmoid of the classifier's response, pooled by hand."""
    run_here(*custom("suggest"))
    printed = capsys.readouterr().out
    suggestions = read_suggestions(RUN / "suggest/suggestions.csv")
    assert {tile.name[:7]: (tile.height, tile.width) for tile in suggestions} == {
        f"photo {number}": size for number, size in enumerate(SIZES)
    }
    network = SeamNetwork(build_backbone("test_resnet", None, 16), 2, pcm=False).eval()
    network.load_state_dict(torch.load(RUN / "cam/network.pt", weights_only=True))
    for tile, (uncertainty, probabilities) in suggestions.items():
        with plain_pixels(), rasterio.open(f"images/{tile.scene}.jpg") as photograph:
            image = photograph.read().transpose(1, 2, 0) / 255  # Pillow decodes colours otherwise
        image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.inference_mode():
            cam = network(torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)[None]).cam[0]
        maps = cam.double().numpy()
        weights = np.exp(maps) / np.exp(maps).sum(axis=0) + 0.1
        expected = 1 / (1 + np.exp(-(weights * maps).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))))
        assert list(probabilities) == ["field", "water"]
        np.testing.assert_allclose(list(probabilities.values()), expected, atol=1e-4)
        bits = -(xlogy(expected, expected) + xlogy(1 - expected, 1 - expected)) / np.log(2)
        # Near 0 and 1 a thousandth more, from another reader of JPEG, is a hundredth of a bit.
        assert uncertainty == pytest.approx(bits.mean(), abs=1e-2)
    spread = np.ptp([list(one.probabilities.values()) for one in suggestions.values()], axis=0).max()
    assert ("predicts the same tags for every image" in printed) == (spread < 0.005)


@pytest.mark.parametrize("table", ["images", "windows"])
def test_the_plan_counts_tagged_tiles_before_anything_is_prepared(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    write_photographs(tmp_path)
    if table == "windows":
        rows = ["0,0,32,32,train,1,0", "8,8,32,40,train,0,1", "0,0,32,32,val,1,1"]
        names = sorted(path.stem for path in (tmp_path / "images").iterdir())
        lines = [f"{name},{row}" for name, row in zip(names, rows, strict=False)]
        (tmp_path / "tags.csv").write_text(
            "\n".join(["scene,row,column,height,width,split,dark,bright", *lines])
        )
    monkeypatch.chdir(tmp_path)
    plans = []
    for _ in ("from headers", "from the results"):
        plan, _ = plan_of(compose_config(custom("all")), STAGES)
        plans.append([(row.amounts.tiles, row.amounts.steps, row.amounts.units) for row in plan[2:]])
        run_here(*custom("all", "stage.until=labels"))
    assert plans[0] == plans[1]
    assert plan[2].amounts.steps


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("image,tags\na,x\n", []),
        ("scene,row,column,height,width,split,x\na,0,0,64,64,train,1\n", ["--tile", "96"]),
        ("scene;row;column;height;width;split;x\na;0;0;64;64;train;1\n", ["--tile", "96"]),
    ],
    ids=["images", "windows", "windows, semicolons"],
)
def test_suggestions_are_opened_by_the_command_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, words: list[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/tags.csv").write_text(table)
    monkeypatch.chdir(tmp_path)
    config = compose_config(
        ["dataset=custom", "dataset.raw=images", "dataset.tags=images/tags.csv", "dataset.tile.size=96"]
    )
    typed = shlex.split(_tagging(config, Path("runs/a/suggest")))
    assert typed == [
        "ome",
        "tags",
        f"{tmp_path}/images",
        "--suggestions",
        "runs/a/suggest/suggestions.csv",
        *words,
    ]
    options = parser().parse_args(typed[2:])
    assert options.tile == (96 if words else None)


def test_a_classifier_that_tells_nothing_apart_is_noticed() -> None:
    one = np.array([0.4, 0.3999, 0.01])
    assert is_constant(np.stack([one, one + 1e-4, one - 1e-3]))
    assert not is_constant(np.stack([one, one, one + np.array([0, 0.01, 0])]))
    assert not is_constant(one[None])


@pytest.mark.slow
def test_four_bands_of_sixteen_bits_with_masks_are_learnt_and_scored(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(4):
        pixels, mask = halves(number, 72, 96, bands=4)
        deep = (300 + pixels * 3000).astype(np.uint16)
        (tmp_path / f"images/s{number}.tif").write_bytes(archives.raster(deep, **UTM))
        Image.fromarray(mask).save(tmp_path / f"masks/s{number}.png")
    rows = ["s0,train,1,1", "s1,train,1,1", "s2,train,1,1", "s3,test,1,1"]
    (tmp_path / "tags.csv").write_text("\n".join(["image,split,field,water", *rows]) + "\n")
    masked = ["dataset.masks=masks", "dataset.display=[4,2,1]"]
    run_here(*custom("all", *masked, "stage.until=seg", "stage.pseudo.cams=affinity"))
    index = SceneIndex.read(Path("scenes/custom_all_full"))
    assert index.channels == (1, 2, 3, 4)
    assert index.unknown.pixels == 0
    for stage, names in {
        "cam": ["CAM"],
        "affinity": ["CAM + random walk"],
        "pseudo": ["pseudo mask"],
        "seg": ["weak segmentation", "pixel-supervised segmentation"],
    }.items():
        rows_of = read_rows(RUN / stage)
        assert [row.name for row in rows_of] == names
        pixels_scored = 72 * 96 * (1 if stage == "seg" else 3)
        assert all(row.scores.matrix.sum() == pixels_scored for row in rows_of)
    with Raster(RUN / "seg/weak/predictions/s3.tif") as raster:
        assert (raster.grid.crs, raster.grid.transform) == (UTM["crs"], UTM["transform"])
    # A network for four bands takes no others.
    chosen = ["dataset.channels=[1,2,3]", "dataset.display=null", "dataset.masks=masks"]
    with pytest.raises(
        UserError, match=r"trained on images of 4 bands, and now they have 3 \(dataset.channels\)"
    ):
        run_here(*custom("refine", *chosen))


def test_settings_typed_as_mappings_and_lists_are_taken(run_here: Run, tmp_path: Path) -> None:
    write_photographs(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((48, 64), 7, dtype=np.uint8)).save(tmp_path / "masks/photo 0.png")
    indices = "dataset.indices={field: 7, water: 9, cloud: 8}"
    classes = "dataset.classes={water: [0, 0, 255], field: [0, 255, 0]}"
    ignored = "dataset.ignored={cloud: [255, 255, 255]}"
    run_here(*custom("prepare", "dataset.masks=masks", indices, classes, ignored, "dataset.range=[0,100]"))
    index = read_json(Path("scenes/custom_all_full/index.json"))
    assert index["class_pixels"] == {"water": 0, "field": 48 * 64}
    assert index["classes"] == {"water": [0, 0, 255], "field": [0, 255, 0]}
    assert index["ignored"] == {"cloud": [255, 255, 255]}


@pytest.mark.parametrize(
    ("stage", "trains"), [("cam", classifying), ("seg", segmenting), ("affinity", affinity)]
)
def test_no_training_pads_tiles_that_are_all_smaller_than_its_crops(
    stage: str, trains: ModuleType, run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_settings: DictConfig, crop: int) -> None:
        raise RuntimeError(f"crop {crop}")

    write_photographs(tmp_path)
    (tmp_path / "masks").mkdir()
    for number, (height, width) in enumerate(SIZES):
        mask = np.full((height, width), number % 2, dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / f"masks/photo {number}.png")
    typed = [
        "dataset.masks=masks",
        "dataset.tile.size=256",
        "stage.seg.targets=[full]",
        "stage.refine.rounds=0",
    ]
    run_here(*custom("all", *typed, "stage.until=cam"))
    shutil.rmtree(RUN / stage, ignore_errors=True)
    monkeypatch.setattr(trains, "augmentation", stop)
    with pytest.raises(RuntimeError, match="crop 128"):  # the largest image has 90 x 100 pixels
        run_here(*custom(stage, *typed))


def test_new_images_are_prepared_and_new_notes_beside_them_change_nothing(
    run_here: Run, tmp_path: Path
) -> None:
    write_photographs(tmp_path)
    moved = custom("prepare", "dataset.raw=moved", "dataset.tags=moved/tags.csv")
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "tags.csv").rename(tmp_path / "moved/tags.csv")
    run_here(*moved)
    before = Manifest.read(Path("scenes/custom_all_full"))
    (tmp_path / "moved/tags.csv").write_text((tmp_path / "moved/tags.csv").read_text() + "\n")
    run_here(*moved)
    assert Manifest.read(Path("scenes/custom_all_full")) == before
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(tmp_path / "moved/photo 9.png")
    run_here(*moved)
    assert SceneIndex.read(Path("scenes/custom_all_full")).scene("photo 9").split == "test"


def test_scenes_follow_the_channels_where_they_name_opacity(
    run_here: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "tags.csv").write_text("image,tags\na,field\nb,field;water\n")
    pixels = np.full((40, 44, 4), 90, np.uint8)
    pixels[:9, :, 3] = 0
    for name in "ab":
        Image.fromarray(pixels, "RGBA").save(tmp_path / f"images/{name}.png")
    for channels, message in [
        ("null", "done"),
        ("[3,2,1]", "up to date"),
        ("[4,1]", "done"),
        ("[4,1]", "up to date"),
    ]:
        run_here(*custom("prepare", f"dataset.channels={channels}"))
        assert f"{message} prepare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (
            [],
            ["dataset.raw is not set: type dataset.raw=/path/to/the/folder/of/images", "dataset.tags is not"],
        ),
        (["dataset.raw=nowhere"], ["nowhere does not exist", "dataset.tags is not set"]),
        (["dataset.raw=."], ["dataset.tags is not set: type dataset.tags=/path/to/tags.csv"]),
        (["dataset.raw=.", "dataset.tags=no.csv"], ["dataset.tags=no.csv does not exist"]),
        (["dataset.raw=.", "dataset.tags=tags.csv"], ["dataset.raw: no GeoTIFF, PNG or JPEG in ."]),
    ],
)
def test_what_is_missing_has_one_line_each(
    run_here: Run, tmp_path: Path, overrides: list[str], messages: list[str]
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na,tree\n")
    with pytest.raises(UserError) as raised:
        run_here("stage=prepare", "dataset=custom", *overrides)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(messages)
    assert all(line.startswith(message) for line, message in zip(lines, messages, strict=True))


def test_wrong_images_and_a_wrong_table_are_named_together(run_here: Run) -> None:
    with pytest.raises(UserError) as raised:
        run_here("stage=prepare", "dataset=custom", "dataset.raw=nowhere", "dataset.tags=no.csv")
    assert str(raised.value).splitlines() == [
        "nowhere does not exist: type dataset.raw=/path/to/the/folder/of/images",
        "dataset.tags=no.csv does not exist: check the path",
    ]


@pytest.mark.parametrize(
    "dataset",
    [
        "custom",
        "loveda",
        "openearthmap",
        "flair",
        "isaid",
        "landcoverai",
        "potsdam",
        "vaihingen",
        "deepglobe",
        "synthetic",
    ],
)
def test_every_dataset_may_choose_channels_and_pictures(dataset: str) -> None:
    config = compose_config([f"dataset={dataset}", "dataset.channels=[1]", "dataset.display=[1]"])
    assert config.dataset.display == [1]
