import csv
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from ome.errors import UserError
from ome.files import write_csv
from ome.progress import console as shown
from ome.report.contents import score_cards
from ome.scoring.rows import Row
from ome.scoring.scores import Scores
from ome.scoring.tables import RatioOf, csv_table, latex_lines, markdown_table, miou_ratio, score_table

NAMES = ("impervious surface", "car", "water")
ROWS = {
    "CAM": Scores(np.array([[6, 4, 0], [2, 3, 0], [0, 0, 0]]), NAMES),  # IoU 6/12 and 3/9, no water
    "pixel-supervised segmentation": Scores(np.array([[9, 1, 0], [0, 5, 0], [0, 0, 0]]), NAMES),  # 9/10, 5/6
}
RATIO_OF = RatioOf("CAM", "pixel-supervised segmentation")


def test_a_table_in_latex_escapes_what_latex_reads() -> None:
    lines = latex_lines(["a_b", "x", "s", "mIoU"], [["100 %", "a&b", "{c}#$\\", "3.0 ± 1.0"]]).splitlines()
    assert lines[:3] == [r"\begin{tabular}{lllr}", r"\toprule", r"a\_b & x & s & mIoU \\"]
    assert lines[4] == r"100 \% & a\&b & \{c\}\#\$\textbackslash{} & 3.0 $\pm$ 1.0 \\"
    assert lines[5:] == [r"\bottomrule", r"\end{tabular}"]


def rendered(rows: dict[str, Scores], width: int) -> str:
    console = type(shown)(width=width, file=StringIO())
    console.print(score_table(rows, title="Scores", ratio_of=RATIO_OF))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_markdown_has_percents_a_dash_for_nan_and_the_ratio() -> None:
    assert markdown_table(ROWS, ratio_of=RATIO_OF) == (
        "|  | mIoU | mF1 | OA | impervious surface | car | water |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| CAM | 41.67 | 58.33 | 60.00 | 50.00 | 33.33 | - |\n"
        "| pixel-supervised segmentation | 86.67 | 92.82 | 93.33 | 90.00 | 83.33 | - |\n"
        "\n"
        "CAM / pixel-supervised segmentation: 48.08 % of the mIoU\n"
    )


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("roof [red]", "roof [red]"),
        ("[bold]", "[bold]"),
        ("<b>", r"\<b>"),
        ("a|b", r"a\|b"),
        ("`*a*`", r"\`\*a\*\`"),
        (r"a\b", r"a\\b"),
    ],
)
def test_names_are_texts_in_the_terminal_and_in_markdown(name: str, escaped: str) -> None:
    rows = dict.fromkeys(RATIO_OF[:2], Scores(np.eye(2, dtype=np.int64), (name, "other")))
    assert f" {name} " in rendered(rows, 80)
    assert markdown_table(rows).startswith(f"|  | mIoU | mF1 | OA | {escaped} | other |\n")


def test_csv_gives_the_same_numbers_and_the_ratio_as_a_row(tmp_path: Path) -> None:
    header, body = csv_table(ROWS, ratio_of=RATIO_OF)
    write_csv(tmp_path / "scores.csv", header, body)
    read = list(csv.reader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert read[0] == ["", "mIoU", "mF1", "OA", *NAMES]
    assert read[1] == ["CAM", "41.67", "58.33", "60.00", "50.00", "33.33", "-"]
    assert read[3] == ["CAM / pixel-supervised segmentation", "48.08", "", "", "", "", ""]


def test_the_terminal_shows_every_number_in_80_columns() -> None:
    names = ("impervious surface", "agriculture", "low vegetation", "rangeland", "forest", "barren land")
    matrix = np.arange(1, 37).reshape(6, 6) + 1000 * np.eye(6, dtype=np.int64)
    methods = ("CAM", "pseudo mask", "weak segmentation", "pixel-supervised segmentation")
    rows = {name: Scores(matrix, names) for name in methods}
    rows["refined, 1"] = Scores(np.diag([5, 5, 5, 5, 5, 0]), names)
    text = rendered(rows, width=80)
    scores = rows["CAM"]
    for value in (scores.miou, scores.mf1, scores.oa, *scores.iou):
        assert text.count(f"{100 * value:.2f}") >= 4
    assert "100.00" in text
    assert "…" not in text
    assert all(name in text for name in names)
    assert all(word in text for name in rows for word in name.replace("-", " ").split())
    assert max(map(len, text.splitlines())) <= 80
    assert "CAM / pixel-supervised segmentation: 100.00 % of the mIoU" in text


def test_ratio_of_two_rows() -> None:
    assert miou_ratio(ROWS, *RATIO_OF[:2]) == pytest.approx((6 / 12 + 3 / 9) / (9 / 10 + 5 / 6))
    empty = Scores(np.zeros((3, 3), dtype=np.int64), NAMES)
    nothing_right = Scores(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]), NAMES)
    assert np.isnan(miou_ratio({"a": ROWS["CAM"], "b": empty}, "a", "b"))
    assert np.isnan(miou_ratio({"a": ROWS["CAM"], "b": nothing_right}, "a", "b"))


def test_a_note_stands_beside_the_ratio_wherever_it_is_shown() -> None:
    note = "[it] was trained on 10 of 200 tiles"
    noted = RATIO_OF._replace(note=note)
    console = type(shown)(width=200, file=StringIO())
    console.print(score_table(ROWS, ratio_of=noted))
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    _, body = csv_table(ROWS, ratio_of=noted)
    cards = score_cards([Row(name, "test scenes", scores) for name, scores in ROWS.items()], noted)
    (card,) = (name for name, value in cards.items() if value == "48.08 %")
    for text in (terminal, markdown_table(ROWS, ratio_of=noted), body[-1][0], card):
        assert note in " ".join(text.split())


def test_rows_that_are_missing_or_of_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="no scores for 'weak', there are: CAM, pixel-supervised"):
        markdown_table(ROWS, ratio_of=RatioOf("weak", "CAM"))
    other = Scores(np.eye(2, dtype=np.int64), ("a", "b"))
    with pytest.raises(ValueError, match="one set of classes, not 2"):
        markdown_table({**ROWS, "other": other})
    with pytest.raises(ValueError, match="one set of classes, not 0"):
        markdown_table({})
