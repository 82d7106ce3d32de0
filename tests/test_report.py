"""The parts of the report's page: pictures within bounds, charts, the worst tiles, and nothing unescaped."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from ome.config.schema.stages import MOST_TILES
from ome.files import write_csv
from ome.pipeline.manifest import Manifest
from ome.plots.charts import BOTTOM, LEFT, RIGHT, TOP, heat_cells, line_chart, percent_bars
from ome.plots.thumbnails import (
    class_picture,
    encode,
    error_picture,
    heat_picture,
    photo,
    thinned,
    weight_picture,
)
from ome.report.contents import tag_scores
from ome.report.histories import training_curves
from ome.report.layered_tiles import LayeredTile
from ome.report.mask_quality import uncertainty
from ome.report.page import encode_layered, legend, write_page
from ome.report.provenance import commands, recorded, version_rows
from ome.scoring.calibration import merged_levels
from ome.stages.report import SECTIONS
from tests.browser import complaints
from tests.conftest import compose_config

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

COLOURS = ((255, 255, 255), (0, 0, 255), (255, 255, 0))
HOSTILE = """<img src=x onerror="document.title='owned'">'"&{{ 7 * 7 }}"""


def decoded(address: str) -> Image.Image:
    kind, _, data = address.partition(";base64,")
    assert kind in {"data:image/png", "data:image/webp"}
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_masks_keep_their_colours_but_for_the_letters() -> None:
    mask = np.ones((40, 80), dtype=np.uint8)
    mask[:, 40:] = 2
    mask[:8] = 255
    shown = np.asarray(decoded(encode(class_picture("mask", mask, COLOURS), 10**6)).convert("RGB"))
    table = np.array([*COLOURS, *[(0, 0, 0)] * 253])
    expected = np.kron(mask, np.ones((3, 3), dtype=np.uint8))  # 80 pixels are enlarged towards 256
    assert shown.shape == (120, 240, 3)
    coloured = (shown == table[expected]).all(axis=-1)
    lettered = shown[~coloured]
    assert 0 < len(lettered) < 0.06 * coloured.size
    # Letters are black on white, and no colour stands between two classes.
    assert set(map(tuple, lettered.tolist())) <= {(0, 0, 0), (255, 255, 255)}
    assert not coloured[8 * 3 :, :120].all()
    assert not coloured[8 * 3 :, 120:].all()


def test_errors_are_black_and_pixels_that_do_not_count_grey() -> None:
    mask, reference = np.array([[0, 1, 255, 1]], np.uint8), np.array([[0, 2, 0, 255]], np.uint8)
    assert np.asarray(error_picture("errors", mask, reference).picture).tolist() == [[255, 0, 128, 128]]


def test_heat_lets_the_image_show_where_the_map_says_nothing() -> None:
    image = np.full((4, 4, 3), 200, dtype=np.uint8)
    values = np.zeros((4, 4), dtype=np.float32)
    values[0] = 1
    shown = np.asarray(heat_picture("heat", image, values).picture)
    assert shown[3].tolist() == [[140, 140, 141]] * 4  # 70 % of 200, and 30 % of inferno's (0, 0, 4)
    assert shown[0, 0].tolist() == [239, 241, 173]  # a quarter of 200, the rest (252, 255, 164)


def test_tags_of_val_are_shares_of_what_was_counted(tmp_path: Path) -> None:
    assert tag_scores(tmp_path) is None
    (tmp_path / "tag_scores.csv").write_text("class,shown,given,right\nroad,8,4,3\ncar,0,2,0\ntree,1,0,0\n")
    shown = tag_scores(tmp_path)
    assert shown is not None
    assert shown["rows"] == [
        ["road", "75 % (3 of 4)", "38 % (3 of 8)"],
        ["car", "0 % (0 of 2)", "in no tile of val"],
        ["tree", "never predicted", "0 % (0 of 1)"],
    ]


@pytest.mark.parametrize("shape", [(3, 5), (2000, 30), (1, 4000), (1500, 1500)])
def test_pictures_of_any_size_fit_their_bytes(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    layers = [class_picture("a", noise, COLOURS), weight_picture("b", noise * 100)]
    layers.append(photo("c", np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)))
    for layer in layers:
        for most in (4000, 40_000):
            address = encode(layer, most)
            assert len(address) <= most
            width, height = decoded(address).size
            assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1) or 1 in {width, height}


@pytest.mark.parametrize("shape", [(3, 5), (384, 200), (2000, 30), (1, 4000), (1000, 717), (717, 1001)])
@pytest.mark.parametrize("rows", [1, 100, 3000])
def test_pictures_from_strips_are_those_of_the_whole(shape: tuple[int, int], rows: int) -> None:
    generator = np.random.default_rng(0)
    image, mask = (generator.integers(0, 256, size).astype(np.uint8) for size in ((*shape, 3), shape))
    for layer, pixels in ((photo, image), (weight_picture, mask)):
        strips = np.split(pixels, range(rows, shape[0], rows))
        found, whole = (
            np.asarray(layer("", values).picture).astype(int)
            for values in (thinned(strips, shape[0]), pixels)
        )
        assert found.shape == whole.shape
        assert np.abs(found - whole).max() <= (1 if layer is photo and max(shape) > 384 else 0)


def test_bars_ticks_and_cells_by_hand() -> None:
    empty, quarter = percent_bars({"a": float("nan"), "b": 0.25})
    assert (empty.text, empty.length, quarter.text, quarter.length) == ("–", 0, "25.0 %", 0.25)  # noqa: RUF001
    assert [(cell.text, cell.level) for cell in heat_cells(np.array([[0.5, np.nan]]), decimals=2)[0]] == [
        ("0.50", 5),
        ("–", None),  # noqa: RUF001 - a dash for no value
    ]
    chart = line_chart("loss", {"loss": ([0, 10, 20], [4.0, float("nan"), 2.0])})
    # From 0, so that small differences look small.
    assert [line.points for line in chart.lines] == [[(LEFT, TOP), (RIGHT, (TOP + BOTTOM) / 2)]]
    assert (chart.x_ticks[0].text, chart.x_ticks[-1].text) == ("0", "20")
    assert (chart.y_ticks[0].text, chart.y_ticks[-1].text) == ("0", "4")
    for curves in ({}, {"none": ([], [])}, {"one": ([5], [0.5])}):
        for line in line_chart("few", curves).lines:  # type: ignore[arg-type]
            assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in line.points)
    long = line_chart("long", {"long": (range(9999), range(9999))}).lines[0].points
    assert (len(long), long[0]) == (120, (LEFT, BOTTOM))


@pytest.mark.parametrize(
    ("most", "texts"),
    [
        (4.0, ["0", "1", "2", "3", "4"]),
        (2e-4, ["0", "5.0e-5", "1.0e-4", "1.5e-4", "2.0e-4"]),
        (4e-4, ["0", "0.0001", "0.0002", "0.0003", "0.0004"]),
        (4e-5, ["0", "1e-5", "2e-5", "3e-5", "4e-5"]),
        (1e-4, ["0", "2.5e-5", "5.0e-5", "7.5e-5", "1.0e-4"]),
        (3.2e-3, ["0", "0.0008", "0.0016", "0.0024", "0.0032"]),
        (1000, ["0", "250", "500", "750", "1000"]),
        (2e6, ["0", "5.0e5", "1.0e6", "1.5e6", "2.0e6"]),
        (2e-9, ["0", "5.0e-10", "1.0e-9", "1.5e-9", "2.0e-9"]),
    ],
)
def test_the_numbers_of_an_axis_have_one_notation(most: float, texts: list[str]) -> None:
    ticks = line_chart("rate", {"rate": ([0, 1], [0, most])}).y_ticks
    assert [tick.text for tick in ticks] == texts


def test_a_curve_that_repeats_another_or_says_nothing_is_not_drawn(tmp_path: Path) -> None:
    values = {"train/multilabel": 0.5, "train/total": 0.5, "train/ecr": 0.0, "learning_rate": 0.1}
    rows = [(step, name, value) for step in (0, 10) for name, value in values.items()]
    write_csv(tmp_path / "history.csv", ("step", "name", "value"), rows)
    assert list(training_curves({"cam": tmp_path})["cam"]) == ["train/multilabel", "learning_rate"]


def test_errors_by_weight_are_told_in_words() -> None:
    counts = np.zeros((256, 2), dtype=np.int64)
    counts[255], counts[28], counts[0] = (90, 10), (3, 7), (0, 10)
    section = uncertainty({"weight": counts}, "2 tiles")
    assert section is not None
    assert section["verdict"] == (
        "Of the pixels with the largest weight, 255 (83.33 % of all), 10.00 % are wrong, "
        "of the others 85.00 %: here a low weight means an error more often."
    )
    assert [(bar.label, bar.length) for bar in section["charts"]["weight"]] == [
        ("level 0", 1),
        ("level 28", 0.7),
        ("level 255", 0.1),
    ]
    flipped = uncertainty({"weight": counts[:, ::-1]}, "2 tiles")
    assert flipped is not None
    assert flipped["verdict"].endswith("does not mean an error more often.")
    counts[255] = 0
    of_absolute = uncertainty({"weight": counts}, "2 tiles")
    assert of_absolute is not None
    assert of_absolute["verdict"].startswith(
        "Of the pixels with the largest weight, 28 (50.00 % of all), 70.00 % are wrong, of the others 100"
    )
    counts[28] = 0
    of_one = uncertainty({"weight": counts}, "2 tiles")
    assert of_one is not None
    assert of_one["verdict"] == "All pixels have the weight 0; 100.00 % are wrong."
    assert uncertainty({}, "none") is None
    many = np.ones((256, 2), dtype=np.int64)
    merged = merged_levels(many)
    assert (len(merged), sum(map(sum, merged.values()))) == (12, 512)


def test_rare_levels_are_joined_with_their_neighbours() -> None:
    counts = np.zeros((256, 2), dtype=np.int64)
    counts[28], counts[95], counts[113], counts[255] = (600, 400), (0, 1), (900, 100), (2, 0)
    assert merged_levels(counts) == {"28": (600, 400), "95-255": (902, 101)}
    counts[255] = (2000, 5)
    assert merged_levels(counts) == {"28": (600, 400), "95-113": (900, 101), "255": (2000, 5)}
    counts[:255] = counts[:255, ::-1] + [1, 0]  # every level occurs: ranges
    assert list(merged_levels(counts, 3)) == ["0-85", "86-170", "171-255"]
    assert merged_levels(np.zeros((256, 2), dtype=np.int64)) == {}


def content(**parts: Any) -> dict[str, Any]:  # noqa: ANN401
    """What the template names, with as little as can be there."""
    texts = dict.fromkeys(("no_scores", "scored_on"), "")
    absent = dict.fromkeys(("scores", "tag_scores", "uncertainty", "ablation"))
    mappings = ("facts", "cards", "class_bars", "trainings", "versions", "settings")
    lists = ("confusions", "remarks", "tags", "legend", "areas", "worst", "times", "commands", "inputs")
    empty: dict[str, Any] = texts | absent | {"layered_tiles": {"tiles": []}}
    empty |= {name: {} for name in mappings} | {name: [] for name in lists}
    cooccurrence = {"title": "", "note": "", "names": [], "cells": []}
    return empty | {"title": "t", "sections": SECTIONS, "cooccurrence": cooccurrence} | parts


def layered_tiles(number: int, layers: int) -> list[LayeredTile]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (400, 400, 3)).astype(np.uint8)
    pictures = [photo(f"layer {index}", noise) for index in range(layers)]
    return [LayeredTile(f"tile {index}", layers=pictures) for index in range(number)]


def test_the_page_stays_below_its_bound_with_the_most_it_may_show(tmp_path: Path) -> None:
    shown = encode_layered({"tiles": layered_tiles(MOST_TILES, 1), "maps": layered_tiles(4, 1)})
    sections = {name: SECTIONS[name] for name in ("scores", "tags", "tiles", "maps", "time", "again")}
    write_page(tmp_path / "page.html", content(layered_tiles=shown, sections=sections))
    size = (tmp_path / "page.html").stat().st_size
    assert 2_500_000 < size < 5_000_000


def test_names_cannot_become_markup_and_the_page_cannot_load_anything(
    tmp_path: Path,
    browser: "Chrome",
) -> None:
    shown = encode_layered({"tiles": layered_tiles(1, 2)})
    shown["tiles"][0] |= {"title": HOSTILE, "note": HOSTILE, "left": HOSTILE}
    shown["tiles"][0]["layers"][0]["name"] = HOSTILE
    sections = {name: SECTIONS[name] for name in ("scores", "tags", "tiles", "time", "again")}
    hostile = content(
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        legend=legend({HOSTILE: (0, 0, 0)}),
        layered_tiles=shown,
        sections=sections,
        tags=percent_bars({HOSTILE: 0.5}),
        commands=[HOSTILE],
        settings={HOSTILE: HOSTILE},
    )
    write_page(tmp_path / "page.html", hostile)
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.title == HOSTILE
    assert browser.find_element("css selector", "h1").text == HOSTILE
    assert browser.find_element("css selector", ".bars th").text == HOSTILE
    assert len(browser.find_elements("css selector", "img")) == 2 + 2  # the layers, and the viewer's two
    assert complaints(browser) == []
    for tag, address in (("img", "http://127.0.0.1:9/x.png"), ("script", "data:text/javascript,0")):
        browser.execute_script(
            "const made = document.createElement(arguments[0]); made.src = arguments[1]; "
            "document.body.append(made);",
            tag,
            address,
        )
    browser.implicitly_wait(1)
    refused = [line for line in complaints(browser) if "Content Security Policy" in line]
    assert len(refused) == 2


def test_commands_are_those_typed_each_once(tmp_path: Path) -> None:
    typed = {"2026-01-01": "- stage=all\n- 'name=a b'\n", "2026-01-02": "- stage=report\n"}
    for day, text in (typed | {"2026-01-03": typed["2026-01-01"], "2026-01-04": "[]\n"}).items():
        path = tmp_path / "logs" / day / "config/overrides.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert commands(tmp_path) == [
        "python -m ome.run stage=report",
        "python -m ome.run stage=all 'name=a b'",
        "python -m ome.run",
    ]
    assert commands(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", [r"caf\udce9.tif", r"caf\udce9\udcff.tif", r"\udce9/caf.tif"])
def test_a_command_that_named_a_file_outside_utf_8_does_not_stop_the_page(tmp_path: Path, name: str) -> None:
    """It was refused itself, but Hydra keeps its words."""
    path = tmp_path / "logs" / "2026-01-01" / "config/overrides.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f'- "stage.predict.scene={name}"\n')
    (line,) = commands(tmp_path)
    line.encode()
    assert "stage.predict.scene=" in line


def test_what_a_stage_recorded_wins_over_what_is_configured_now() -> None:
    config = compose_config(["backbone=resnet50", "seed=9"])
    trained = {"seed": 3, "backbone": {"name": "resnet18"}}
    manifests = {
        "labels": Manifest("labels", "", {"stage": {}}, {}, versions={"torch": "1", "numpy": "2"}),
        "cam": Manifest("cam", "", trained, {}, versions={"torch": "1", "numpy": "3"}),
    }
    assert [recorded(manifests, config, key) for key in ("seed", "backbone.name")] == [3, "resnet18"]
    assert [recorded({}, config, key) for key in ("seed", "backbone.name")] == [9, "resnet50"]
    assert version_rows(manifests) == {"torch": "1", "numpy": "2 (labels); 3 (cam)"}
