"""Comparing finished runs: what tells them apart, and the mean and spread of repetitions."""

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ome.errors import UserError
from ome.files import read_csv, write_csv
from ome.pipeline.layout import TAG_SCORES
from ome.pipeline.manifest import Manifest
from ome.scoring.pairs import paired_difference
from ome.scoring.rows import Row, read_rows, write_rows
from ome.scoring.scores import Scores
from ome.scoring.spread import distinguishing_keys, flatten, labels, spread

NAMES = ("grass", "road")


def test_mean_and_sample_deviation() -> None:
    values = [0.41, 0.47, 0.44]
    result = spread(values)
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.deviation == pytest.approx(statistics.stdev(values))
    assert str(result) == "44.00 ± 3.00"
    assert str(spread([0.5])) == "50.00"
    assert math.isnan(spread([0.5]).deviation)
    assert str(spread([0.5, math.nan])) == "-"
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_settings_become_one_level() -> None:
    assert flatten({"a": {"b": [1, 2], "c": None}, "d.e": 3}) == {"a.b": "[1, 2]", "a.c": "None", "d.e": "3"}


def test_few_telling_keys_tell_settings_apart() -> None:
    seam = {"classifier.name": "seam", "classifier.pcm": "True", "stage.cam.lr": "0.1"}
    plain = {"classifier.name": "cam", "classifier.pcm": "False", "stage.cam.lr": "0.1"}
    binary = {"classifier.name": "one_vs_all", "classifier.pcm": "True", "stage.cam.lr": "0.1"}
    assert distinguishing_keys([seam, seam]) == []
    assert distinguishing_keys([seam, plain, binary, seam]) == ["classifier.name"]
    slow = seam | {"stage.cam.lr": "0.01"}
    assert distinguishing_keys([seam, plain, binary, slow]) == ["classifier.name", "stage.cam.lr"]
    lacking = {"classifier.name": "seam", "classifier.pcm": "True"}
    assert distinguishing_keys([seam, lacking]) == ["stage.cam.lr"]


def test_a_row_is_named_by_what_it_alone_has() -> None:
    seam = {"classifier.name": "seam", "classifier.er": "1", "classifier.ecr": "1", "classifier.pcm": "True"}
    off = [seam | {"classifier.er": "0"}, seam | {"classifier.ecr": "0"}, seam | {"classifier.pcm": "False"}]
    alone = ["classifier.er=0", "classifier.ecr=0", "classifier.pcm=False"]
    assert labels(off) == alone
    assert labels([*off, off[2], seam]) == [
        *alone,
        alone[2],
        "classifier.ecr=1, classifier.er=1, classifier.pcm=True",
    ]
    plain = {"classifier.name": "cam", "classifier.er": "0", "classifier.ecr": "0", "classifier.pcm": "False"}
    assert labels([seam, plain]) == ["classifier.name=seam", "classifier.name=cam"]
    grid = [{"lr": lr, "tile": tile} for lr in ("1", "2") for tile in ("64", "96")]
    assert labels(grid) == ["lr=1, tile=64", "lr=1, tile=96", "lr=2, tile=64", "lr=2, tile=96"]
    assert labels([seam, seam]) == ["", ""]
    assert labels([{"lr": "1"}, {}]) == ["lr=1", "lr=-"]


def test_rows_can_be_named_by_what_was_varied() -> None:
    """The weight belongs to the classifier, and the random rate tells all rows apart by itself."""
    settings = [
        {"classifier.name": name, "classifier.er": er, "stage.cam.lr": lr}
        for name, er, lr in (("seam", "1", ".11"), ("cam", "0", ".12"), ("cam", "0", ".13"))
    ]
    names = ["classifier.name=seam", "classifier.name=cam", "classifier.name=cam"]
    rates = ["stage.cam.lr=.11", "stage.cam.lr=.12", "stage.cam.lr=.13"]
    assert labels(settings) == rates
    assert labels(settings, ["classifier", "stage.cam.lr"]) == [
        f"{a}, {b}" for a, b in zip(names, rates, strict=True)
    ]
    # What is not named still keeps different runs apart.
    assert labels(settings, ["classifier"]) == [
        names[0],
        f"{names[1]}, stage.cam.lr=.12",
        f"{names[2]}, stage.cam.lr=.13",
    ]
    assert labels(settings, ["nothing"]) == rates


def _run(folder: Path, seed: int, right: int, *, weights: str = "0", **settings: object) -> None:
    """A finished run of one stage: 100 pixels of grass, `right` of them found, and 100 of road, all found."""
    matrix = np.array([[right, 100 - right], [0, 100]])
    config = {"stage": settings, "seed": seed, "sources": [str(folder)]}
    (folder / "cam").mkdir(parents=True)
    write_rows(folder / "cam", [Row("CAM", "train tiles", Scores(matrix, NAMES))])
    Manifest("cam", str(folder), config, {}, hashes=[weights]).write(folder / "cam")


def scored(
    folder: Path, matrix: list[list[int]], names: tuple[str, ...], *, scenes: str, seed: int = 0
) -> None:
    write_rows(folder / "seg", [Row("weak", "test scenes", Scores(np.array(matrix), names))])
    Manifest("seg", str(folder), {"seed": seed}, {"prepare": scenes}).write(folder / "seg")


def test_a_segmenter_of_fewer_tiles_is_named(
    run_here: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(tmp_path / "a", [[9, 1], [2, 8]], NAMES, scenes="one")
    (row,) = read_rows(tmp_path / "a/seg")
    for stage in ("seg", "report"):  # which repeats the row
        (tmp_path / "a" / stage).mkdir(exist_ok=True)
        write_rows(tmp_path / "a" / stage, [replace(row, trained_on="10 of 200 training tiles")])
    Manifest("report", "", {}, {}).write(tmp_path / "a/report")
    run_here("stage=compare", "name=table", "stage.compare.runs=[a]")
    assert capsys.readouterr().out.count("a: weak was trained on 10 of 200 training tiles") == 1


def test_runs_of_other_scenes_or_classes_are_no_repetitions(
    run_here: Callable[..., object], tmp_path: Path
) -> None:
    """Repetitions differ in their seed alone; classes may be in another order."""
    counts = [[9, 1], [2, 8]]
    scored(tmp_path / "a", counts, NAMES, scenes="one")
    scored(tmp_path / "b", [row[::-1] for row in counts[::-1]], NAMES[::-1], scenes="one", seed=1)
    scored(tmp_path / "c", counts, NAMES, scenes="another")
    (tmp_path / "c/logs/then").mkdir(parents=True)
    (tmp_path / "c/logs/then/resolved.yaml").write_text("dataset: {name: elsewhere}\n")
    run_here("stage=compare", "name=table", "stage.compare.runs=[a,b,c]")
    rows = read_csv(tmp_path / "runs/table/compare/comparison.csv")
    assert [(row["settings"], row["runs"]) for row in rows] == [
        ("dataset.name=-", "2"),
        ("dataset.name=elsewhere", "1"),
    ]
    assert rows[0]["grass"] == "75.00 ± 0.00"  # 9 of 12 in both

    (tmp_path / "a/logs/then").mkdir(parents=True)  # b was interrupted before it could tell its data set
    (tmp_path / "a/logs/then/resolved.yaml").write_text("dataset: {name: here}\n")
    run_here("stage=compare", "name=told", "stage.compare.runs=[a,b,c]")
    rows = read_csv(tmp_path / "runs/told/compare/comparison.csv")
    assert [(row["settings"], row["runs"]) for row in rows] == [
        ("dataset.name=here", "2"),
        ("dataset.name=elsewhere", "1"),
    ]
    scored(tmp_path / "d", counts, ("grass", "water"), scenes="one", seed=2)
    with pytest.raises(
        UserError, match=r"a and .*d have other classes \(only in one of them: road, water\): compare"
    ):
        run_here("stage=compare", "name=table", "stage.compare.runs=[a,d]")


def test_what_only_one_run_has_is_named_after_it(run_here: Callable[..., object], tmp_path: Path) -> None:
    scored(tmp_path / "scored", [[9, 1], [2, 8]], NAMES, scenes="one")
    Manifest("labels", "b", {"seed": 0}, {}).write(tmp_path / "tags alone/labels")
    run_here("stage=compare", "name=table", "stage.compare.runs=[scored,'tags alone']")
    (row,) = read_csv(tmp_path / "runs/table/compare/comparison.csv")
    assert (row["settings"], row["runs"]) == ("scored", "1")


@pytest.mark.parametrize(
    ("other", "rows"),
    [
        ("a.tif,1,ab\nindex.json,1,z", [("", "2")]),  # the index names the data set
        ("index.json,1,z\na.tif,1,ab", [("", "2")]),
        ("a.tif,1,other\nindex.json,1,z", [("dataset.name=one", "1"), ("dataset.name=two", "1")]),
        (None, [("dataset.name=one", "1"), ("dataset.name=two", "1")]),
    ],
)
def test_equal_scenes_under_two_names_are_the_same_data_set(
    run_here: Callable[..., object], tmp_path: Path, other: str | None, rows: list[tuple[str, str]]
) -> None:
    """As of two `ome train IMAGES` with another --name and seed."""
    for seed, name, files in ((0, "one", "a.tif,1,ab\nindex.json,1,y"), (1, "two", other)):
        scored(tmp_path / name, [[9, 1], [2, 8]], NAMES, scenes=name, seed=seed)
        (tmp_path / name / "logs/then").mkdir(parents=True)
        resolved = f"scenes: scenes/{name}\ndataset: {{name: {name}}}\n"
        (tmp_path / name / "logs/then/resolved.yaml").write_text(resolved)
        if files is not None:
            (tmp_path / "scenes" / name).mkdir(parents=True)
            (tmp_path / "scenes" / name / "files.csv").write_text(f"name,size,sha256\n{files}\n")
            Manifest("prepare", name, {}, {}).write(tmp_path / "scenes" / name)
    run_here("stage=compare", "name=table", "stage.compare.runs=[one,two]")
    table = read_csv(tmp_path / "runs/table/compare/comparison.csv")
    assert [(row["settings"], row["runs"]) for row in table] == rows


@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_every_setting_in_which_runs_differ_is_listed(
    run_here: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """A label names only what tells the runs apart."""
    names = [f"key{place}" for place in range(number)]
    for place, name in enumerate(("a", "b", "c")):
        _run(tmp_path / name, 0, 90 + place, same=1, **{key: min(place, 1) for key in names})
    run_here("stage=compare", "name=table", "stage.compare.runs=[a,b,c]")
    rows = read_csv(tmp_path / "runs/table/compare/differences.csv")
    assert [(row["setting"], row["values"]) for row in rows] == [
        (f"stage.cam.{key}", "0 | 1") for key in names
    ]
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("the runs differ in") == (number > 1)
    assert printed.count("stage.cam.key4, ...") == (number > 5)


@pytest.mark.parametrize(("form", "suffix"), [("latex", "tex"), ("markdown", "md"), ("table", None)])
def test_a_table_for_a_paper_is_alone_on_standard_output(
    run_here: Callable[..., object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
    suffix: str | None,
) -> None:
    """So that it can be sent to a file; another run without scores is said beside it."""
    _run(tmp_path / "one", 0, 80, lr=0.1)
    Manifest("labels", "x", {}, {}).write(tmp_path / "two/labels")
    for _ in ("first", "up to date"):
        run_here("stage=compare", "name=t", "stage.compare.runs=[one,two]", f"stage.compare.format={form}")
        out, beside = capsys.readouterr()
        said = out if suffix is None else beside
        assert "left out: two has no scores" in said
        assert "runs/t/compare" in said
        if suffix is not None:
            assert out.strip() == (tmp_path / f"runs/t/compare/comparison.{suffix}").read_text().strip()


def test_differences_are_taken_seed_by_seed() -> None:
    """Against scipy's test of two related samples, and by hand: 2, 4 and 6 points, of which the mean is 4."""
    first, second = {"0": 0.50, "1": 0.40, "2": 0.60, "7": 0.1}, {"2": 0.66, "0": 0.52, "1": 0.44, "9": 0.9}
    difference = paired_difference(first, second)
    assert difference is not None
    independent = stats.ttest_rel([0.52, 0.44, 0.66], [0.50, 0.40, 0.60])
    assert (difference.mean, difference.seeds) == (pytest.approx(0.04), 3)
    assert difference.p == pytest.approx(independent.pvalue)
    interval = independent.confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.cells() == ["3", "+4.00", "-0.97", "+8.97", "0.074"]
    assert paired_difference({"0": 0.5, "1": 0.4}, {"0": 0.6, "1": math.nan}) is None
    equal = paired_difference({"0": 0.5, "1": 0.4}, {"0": 0.6, "1": 0.5})
    assert equal is not None
    assert equal.cells()[-1] == "-"


def test_settings_are_compared_with_the_first_run_that_is_named(
    tmp_path: Path, run_here: Callable[..., object]
) -> None:
    for seed, (before, after) in enumerate([(80, 84), (60, 66)]):
        _run(tmp_path / f"runs/b_{seed}", seed, before, lr=0.1)
        _run(tmp_path / f"runs/a_{seed}", seed, after, lr=0.5)
    run_here("stage=compare", "stage.compare.runs=[runs/b_*,runs/a_*]", "name=all")
    (row,) = read_csv(tmp_path / "runs/all/compare/pairs.csv")
    mious = [(right / 100 + 100 / (200 - right)) / 2 for right in (80, 84, 60, 66)]
    mean = 100 * ((mious[1] - mious[0]) + (mious[3] - mious[2])) / 2
    assert (row["settings"], row["compared with"]) == ("stage.cam.lr=0.5", "stage.cam.lr=0.1")
    assert (row["seeds"], row["mIoU more"]) == ("2", f"{mean:+.2f}")
    assert (tmp_path / "runs/all/compare/comparison.pdf").read_bytes().startswith(b"%PDF")
    assert "| compared with | seeds" in (text := (tmp_path / "runs/all/compare/comparison.md").read_text())
    assert text.count("| --- | --- | --- | --- | ---: |") == 1


def test_repetitions_become_one_row(tmp_path: Path, run_here: Callable[..., object]) -> None:
    _run(tmp_path / "runs/a", 0, 80, lr=0.1)
    _run(tmp_path / "runs/b", 1, 60, lr=0.1)
    _run(tmp_path / "runs/c", 0, 90, lr=0.5)
    (tmp_path / "runs/unfinished/cam").mkdir(parents=True)
    run_here("stage=compare", "stage.compare.runs=runs/*", "name=all")
    rows = {row["settings"]: row for row in read_csv(tmp_path / "runs/all/compare/comparison.csv")}
    assert set(rows) == {"stage.cam.lr=0.1", "stage.cam.lr=0.5"}
    repeated = rows["stage.cam.lr=0.1"]
    # IoU of grass is right / 100, of road 100 / (200 - right).
    mious = [(0.8 + 100 / 120) / 2, (0.6 + 100 / 140) / 2]
    mean, deviation = 100 * statistics.mean(mious), 100 * statistics.stdev(mious)
    assert (repeated["runs"], repeated["mIoU"]) == ("2", f"{mean:.2f} ± {deviation:.2f}")
    assert repeated["grass"] == f"70.00 ± {100 * statistics.stdev([0.8, 0.6]):.2f}"
    assert (rows["stage.cam.lr=0.5"]["runs"], rows["stage.cam.lr=0.5"]["grass"]) == ("1", "90.00")
    assert (tmp_path / "runs/all/compare/comparison.png").stat().st_size > 1000


def test_results_of_other_files_are_no_repetitions(tmp_path: Path, run_here: Callable[..., object]) -> None:
    """A table of tags, or weights, may be edited where they lie."""
    _run(tmp_path / "runs/a", 0, 80)
    _run(tmp_path / "runs/b", 0, 60, weights="1")
    _run(tmp_path / "runs/c", 1, 60, weights="1")
    run_here("stage=compare", "stage.compare.runs=runs/*", "name=all")
    rows = read_csv(tmp_path / "runs/all/compare/comparison.csv")
    assert [row["runs"] for row in rows] == ["1", "2"]
    assert all(row["settings"].startswith("stage.cam.files=") for row in rows)


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("markdown", "| CAM | train tiles | a | 1 | 100.00 |"),
        ("latex", r"CAM & train tiles & a & 1 & 100.00 &"),
        ("table", "percent, mean ± standard deviation"),
    ],
)
def test_the_table_can_be_printed_for_a_paper(
    tmp_path: Path,
    run_here: Callable[..., object],
    capsys: pytest.CaptureFixture[str],
    form: str,
    line: str,
) -> None:
    _run(tmp_path / "runs/a", 0, 80)
    run_here("stage=compare", "stage.compare.runs=runs/a", "name=all", f"stage.compare.format={form}")
    for _ in range(2):  # also where nothing has changed
        assert line in capsys.readouterr().out
        run_here("stage=compare", "stage.compare.runs=runs/a", "name=all", f"stage.compare.format={form}")
    tabular = (tmp_path / "runs/all/compare/comparison.tex").read_text()
    assert tabular.startswith("\\begin{tabular}{lllrrrrrrr}\n\\toprule\nscored & on & settings & runs &")


def test_runs_without_scores_are_named(
    tmp_path: Path, run_here: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "runs/a", 0, 80)
    Manifest("labels", "b", {}, {}).write(tmp_path / "runs/b/labels")
    Manifest("seg", "c", {}, {}).write(tmp_path / "runs/c/seg")
    run_here("stage=compare", "stage.compare.runs=[runs/a,runs/b,runs/c]", "name=all")
    printed = capsys.readouterr().out
    assert (
        "left out: runs/b has no scores: none of cam, affinity, pseudo, ablation, seg, refine has" in printed
    )
    assert "left out: runs/c has no scores: it has no reference masks" in printed
    with pytest.raises(
        UserError, match=r"none of the 1 runs of .* has scores.*predicts for images of the split val"
    ):
        run_here("stage=compare", "stage.compare.runs=runs/b", "name=none")


def _tagged(folder: Path, seed: int, counts: dict[str, tuple[int, int, int]], **settings: object) -> None:
    """A finished classifier of a run without masks, with shown, predicted and right tags of each class."""
    rows = [(name, *numbers) for name, numbers in counts.items()]
    write_csv(folder / "cam" / TAG_SCORES, ("class", "shown", "given", "right"), rows)
    Manifest("cam", str(folder), {"stage": settings, "seed": seed}, {}).write(folder / "cam")


def test_runs_without_masks_are_compared_by_their_tags(
    tmp_path: Path, run_here: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        (tmp_path / f"runs/{name}/cam").mkdir(parents=True)
    _tagged(tmp_path / "runs/a", 0, {"grass": (4, 4, 3), "road": (2, 0, 0), "sea": (0, 1, 0)}, lr=0.1)
    _tagged(tmp_path / "runs/b", 1, {"road": (2, 2, 2), "grass": (4, 4, 4), "sea": (0, 0, 0)}, lr=0.1)
    _tagged(tmp_path / "runs/c", 0, {"grass": (4, 2, 2), "road": (2, 2, 1), "sea": (0, 0, 0)}, lr=0.5)
    run_here("stage=compare", "stage.compare.runs=runs/*", "name=all")
    printed = capsys.readouterr().out
    assert "tags of the split val that the classifier predicts, percent" in printed
    assert "left out" not in printed
    folder = tmp_path / "runs/all/compare"
    first, second = read_csv(folder / "tags.csv")
    deviations = [100 * statistics.stdev(pair) for pair in ((0.375, 1.0), (0.75, 1.0))]
    assert (first["settings"], first["runs"], first["sea"]) == ("stage.cam.lr=0.1", "2", "-")
    assert (first["mean F1"], first["grass"]) == (
        f"68.75 ± {deviations[0]:.2f}",
        f"87.50 ± {deviations[1]:.2f}",
    )
    assert (second["mean F1"], second["grass"], second["road"]) == ("58.33", "66.67", "50.00")
    assert not list(folder.glob("comparison.csv")) + list(folder.glob("*.png"))
    assert (
        "| predicted tags | val tiles | stage.cam.lr=0.5 | 1 | 58.33 |"
        in (folder / "comparison.md").read_text()
    )

    _run(tmp_path / "runs/d", 0, 80, lr=0.1)  # with masks
    _tagged(tmp_path / "runs/c", 0, {"grass": (4, 4, 4), "road": (2, 2, 1), "sea": (0, 0, 0)}, lr=0.5)
    run_here("stage=compare", "stage.compare.runs=runs/*", "name=all")
    printed = capsys.readouterr().out
    assert "left out" not in printed
    assert "predicts, percent" in printed
    assert read_csv(folder / "tags.csv")[1]["grass"] == "100.00"
    assert [row["mIoU"] for row in read_csv(folder / "comparison.csv")]

    _tagged(tmp_path / "runs/c", 0, {"grass": (4, 4, 4), "rail": (2, 2, 1), "sea": (0, 0, 0)}, lr=0.5)
    with pytest.raises(UserError, match=r"other classes \(only in one of them: rail, road\)"):
        run_here("stage=compare", "stage.compare.runs=runs/*", "name=all")


def test_a_new_score_makes_the_comparison_stale(tmp_path: Path, run_here: Callable[..., object]) -> None:
    _run(tmp_path / "runs/a", 0, 80)
    run_here("stage=compare", "stage.compare.runs=[runs/a*]", "name=all")
    _run(tmp_path / "runs/a2", 1, 60)
    run_here("stage=compare", "stage.compare.runs=[runs/a*]", "name=all")
    (row,) = read_csv(tmp_path / "runs/all/compare/comparison.csv")
    assert row["runs"] == "2"


def test_mistakes_are_named(tmp_path: Path, run_here: Callable[..., object]) -> None:
    with pytest.raises(UserError, match=r"stage\.compare\.runs is not set"):
        run_here("stage=compare")
    _run(tmp_path / "runs/a", 0, 80)
    with pytest.raises(UserError, match="no finished run matches nowhere/"):
        run_here("stage=compare", f"stage.compare.runs=[{tmp_path}/runs/*,nowhere/*]")
