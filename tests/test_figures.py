import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ome.plots.figures import (
    confusion_figure,
    cooccurrence_figure,
    curves_figure,
    spreads_figure,
    tag_counts_figure,
)
from ome.plots.letters import letter_spots
from ome.plots.panels import CELL, GAP, LINE, class_legend, heat_legend, panel, save_panel
from ome.plots.saving import DPI, save_figure, save_png
from ome.plots.thumbnails import class_picture, heat_picture, heat_pictures, photo, weight_picture
from ome.scoring.spread import Spread

NAMES = ("impervious surface", "building", "car")
COLOURS = ((255, 255, 255), (0, 0, 255), (255, 255, 0))
MATRIX = np.array([[1, 0.25, 0.5], [0.75, 1, 0], [np.nan] * 3])
TILES, DROPPED = (
    {"impervious surface": 1500, "building": 800, "car": 40},
    {"impervious surface": 0, "building": 30, "car": 25},
)
CURVES = {
    "loss": ([0, 10, 20], [3.0, 2.0, 1.0]),
    "val/mAP": ([10, 20], [0.5, float("nan")]),
    "empty": ([], []),
}


def halves() -> np.ndarray:
    """Building on the left, car on the right, nothing in the top rows."""
    mask = np.ones((64, 64), dtype=np.uint8)
    mask[:, 32:] = 2
    mask[:8] = 255
    return mask


def tile() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def texts_at(figure: Figure, axes: int = 0) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in figure.axes[axes].texts}


@pytest.mark.parametrize("name", ["$x^$ {", "US$5 to US$9", "$$", "$"])
def test_names_with_dollars_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    save_figure(tmp_path / "tags.png", tag_counts_figure([name], {name: 3}, {name: 1}))
    escaped = name.replace("$", r"\$")
    figure = tag_counts_figure([escaped], {escaped: 3}, {escaped: 1})
    figure.savefig(tmp_path / "escaped.png", dpi=DPI, metadata={"Software": None})
    assert (tmp_path / "tags.png").read_bytes() == (tmp_path / "escaped.png").read_bytes()


def test_letters_that_no_font_has_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("\U00013000 reeds", "\U00013000 huts"):
            save_figure(tmp_path / "tags.png", tag_counts_figure([name], {name: 3}, {name: 1}))
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        "no installed font has \U00013000, which figures lack: install one, such as Noto Sans CJK"
    )


def test_cooccurrence_shows_each_number_in_its_cell() -> None:
    shown = texts_at(cooccurrence_figure(MATRIX, NAMES))
    assert (shown[1, 0], shown[0, 1], shown[2, 1]) == ("0.25", "0.75", "0.00")  # (column, row)
    assert shown[0, 2] == "–"  # noqa: RUF001 - a dash for no value


@pytest.mark.parametrize("number", [50, 51, pytest.param(253, marks=pytest.mark.slow)])
def test_heat_maps_of_many_classes_fit_into_memory(tmp_path: Path, number: int) -> None:
    names = [f"class {index}" for index in range(number)]
    figure = cooccurrence_figure(np.eye(number), names)
    assert len(figure.axes[0].texts) == (number**2 if number <= 50 else 0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert max(figure.get_size_inches()) * DPI < 6000
    if number == 253:
        save_png(tmp_path / "heat.png", figure)
        with Image.open(tmp_path / "heat.png") as image:
            assert max(image.size) < 6000


def test_confusion_is_in_percent_of_the_reference() -> None:
    shown = texts_at(confusion_figure(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), NAMES))
    assert (shown[0, 0], shown[1, 0], shown[0, 1], shown[1, 1]) == ("75.0", "25.0", "25.0", "75.0")
    assert shown[2, 2] == "–"  # noqa: RUF001 - a dash for no value


def test_bars_add_up_to_the_tiles_of_a_class() -> None:
    axes = tag_counts_figure(NAMES, TILES, DROPPED).axes[0]
    learnt, small = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert learnt == [1500, 770, 15]
    assert small == [0, 30, 25]
    assert [text.get_text() for text in axes.texts] == ["1,500", "800 (−30)", "40 (−25)"]  # noqa: RUF001 - a minus
    assert axes.figure.legends
    assert not tag_counts_figure(NAMES, TILES, dict.fromkeys(NAMES, 0)).legends


@pytest.mark.parametrize("bars", [1, 30])
def test_bars_keep_half_the_width_however_long_their_names(bars: int) -> None:
    settings = (
        "segmenter.recipe.weighting=continuous, pseudo.response_scales=[0.15, 0.2, 0.25, 4.0, 5.0, 6.0]"
    )
    spreads = {f"weak segmentation, {settings}, seed={n}": Spread(0.4, 0.02, 3) for n in range(bars)}
    figure = spreads_figure(spreads, "mIoU, %")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    box, labels = axes.get_window_extent(), axes.get_yticklabels()
    assert box.width > 0.5 * figure.bbox.width
    places = [label.get_window_extent() for label in labels]
    assert min(place.x0 for place in places) >= 0
    assert all(below.y1 <= above.y0 for above, below in pairwise(places))


def test_curves_leave_out_what_is_not_finite() -> None:
    lines = [axes.lines[0].get_xydata().tolist() for axes in curves_figure(CURVES).axes]
    assert lines == [[[0, 3], [10, 2], [20, 1]], [[10, 0.5]], []]


def test_a_panel_has_the_columns_that_are_there_in_the_palettes_colours() -> None:
    first = [photo("image", tile()), class_picture("pseudo mask", halves(), COLOURS)]
    second = [photo("image", tile()), class_picture("reference", halves(), COLOURS)]
    sheet = np.asarray(panel([("a", first), ("b", second)]))
    assert sheet.shape[1] == GAP + 3 * (CELL + GAP)
    columns = [sheet[:, GAP + 1 + place * (CELL + GAP) :][:, :CELL] for place in range(3)]
    drawn_at = [np.flatnonzero((column == [0, 0, 255]).all(axis=-1).any(axis=1)) for column in columns]
    assert drawn_at[0].size == 0
    assert 0 < drawn_at[1].min() < drawn_at[1].max() < drawn_at[2].min()  # one row below the other
    for column in columns[1:]:
        for colour, pixels in (((0, 0, 255), 56 * 32), ((255, 255, 0), 56 * 32), ((0, 0, 0), 8 * 64)):
            cells = (column == colour).all(axis=-1).sum() / 4**2  # 64 pixels fit four times into a cell
            assert cells == pytest.approx(pixels, rel=0.2)  # the rest is letters


def test_pictures_of_a_panel_are_those_of_the_page() -> None:
    layer = photo("image", tile())
    sheet = np.asarray(panel([("a", [layer])]))
    large = np.kron(tile(), np.ones((4, 4, 1), dtype=np.uint8))
    column = sheet[:, GAP + 1 : GAP + 257]  # a frame of one pixel
    rows = [top for top in range(len(sheet) - 255) if (column[top : top + 256] == large).all()]
    assert len(rows) == 1


def test_a_legend_goes_on_in_the_next_line_and_shows_every_class() -> None:
    classes = dict(zip(NAMES, [(255, 0, 1), (0, 0, 255), (255, 255, 0)], strict=True))
    bare, wide = panel([("a", [photo("image", tile())])]), [("a", [photo("image", tile())])]
    sheet = panel(wide, class_legend(classes))
    assert sheet.height - bare.height >= 2 * LINE
    shown = set(sheet.crop((0, bare.height - GAP, *sheet.size)).getdata())
    assert {*classes.values(), (0, 0, 0)} <= shown
    for name in ("ö", "лес", "a" * 500, ""):
        assert panel([(name, [photo(name, tile())])], [(Image.new("RGB", (9, 9)), name)]).width == bare.width


def test_letters_stand_well_inside_each_large_part() -> None:
    region = np.zeros((64, 64), dtype=bool)
    region[4:24, 4:24] = region[40:60, 30:50] = True
    region[0, 60] = True
    spots = letter_spots(region)
    assert len(spots) == 2
    for row, column in spots:
        assert region[row - 4 : row + 5, column - 4 : column + 5].all()
    single = np.zeros((64, 64), dtype=bool)
    single[63, 0] = True
    assert letter_spots(single) == [(63, 0)]


def test_cams_are_shown_for_present_classes_only() -> None:
    maps = np.linspace(0, 1, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64)
    shown = heat_pictures(tile(), maps, np.array([1, 0, 1], dtype=np.uint8), NAMES)
    assert [layer.name for layer in shown] == ["impervious surface", "car"]
    expected = heat_picture("car", tile(), maps[2]).picture
    assert shown[1].picture.tobytes() == expected.tobytes()
    assert heat_pictures(tile(), maps, np.zeros(3, dtype=np.uint8), NAMES) == []


def write_all(folder: Path) -> None:
    save_png(folder / "cooccurrence.png", cooccurrence_figure(MATRIX, NAMES))
    save_figure(folder / "confusion.png", confusion_figure(np.eye(3, dtype=np.int64), NAMES))
    save_png(folder / "tags.png", tag_counts_figure(NAMES, TILES, DROPPED))
    save_figure(folder / "curves.png", curves_figure(CURVES))
    layers = [class_picture("mask", halves(), COLOURS), weight_picture("weight", tile()[..., 0])]
    save_panel(folder / "panel.png", [("a", layers)], class_legend(dict(zip(NAMES, COLOURS, strict=True))))
    cams = np.zeros((3, 64, 64), np.float32)
    heat = heat_pictures(tile(), cams, np.array([1, 0, 1], dtype=np.uint8), NAMES)
    save_panel(folder / "cam.png", [("a", heat)], heat_legend())


def test_figures_have_the_same_bytes_every_time_and_leave_nothing_else(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_all(tmp_path / name)
    charts, pictures = ("confusion", "cooccurrence", "curves", "tags"), ("cam", "panel")
    drawn = ("confusion", "curves")  # as PDF too
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {*(f"{name}.png" for name in (*charts, *pictures)), *(f"{name}.pdf" for name in drawn)}
    for name in drawn:
        content = (tmp_path / "first" / f"{name}.pdf").read_bytes()
        assert content == (tmp_path / "second" / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/Type /Font" in content  # letters, not outlines
    for name in (f"{name}.png" for name in (*charts, *pictures)):
        content = (tmp_path / "first" / name).read_bytes()
        assert content == (tmp_path / "second" / name).read_bytes()
        assert b"Software" not in content
        with Image.open(tmp_path / "first" / name) as image:
            assert np.array(image.convert("L")).std() > 5, "blank"


@pytest.mark.parametrize("num_classes", [2, 7])
def test_labels_neither_overlap_nor_leave_the_figure(num_classes: int) -> None:
    names = [f"impervious surface {index}" for index in range(num_classes)]
    matrix = np.full((num_classes, num_classes), 0.5)
    tiles = dict.fromkeys(names, 40_000)
    for figure in (cooccurrence_figure(matrix, names), tag_counts_figure(names, tiles, tiles)):
        FigureCanvasAgg(figure).draw()
        axes = figure.axes[0]
        for labels in (axes.get_yticklabels(), axes.texts, [axes.title, axes.xaxis.label]):
            boxes = [label.get_window_extent() for label in labels]
            assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
            assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


def test_a_panel_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        panel([])
