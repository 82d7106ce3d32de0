"""Classes of a table that lists tags in one cell: several tags in one, scores, negations and quotations."""

from pathlib import Path

import pytest

from ome.data.tag_rows import read_tag_rows
from ome.errors import UserError


def rows(folder: Path, cells: list[str], names: tuple[str, ...] = ()) -> tuple[str, ...]:
    lines = [f"image{number}.tif\t{cell}" for number, cell in enumerate(cells * 4)]
    (folder / "tags.tsv").write_text("\n".join(["image\ttags", *lines]), encoding="utf-8")
    return read_tag_rows(folder / "tags.tsv", names).names


@pytest.mark.parametrize(
    "several",
    [
        *("field water", "water and field", "field + water", "field & water", "field-water", "Field: water"),
        *("field und water", "field_water", "water  field", "field - water road"),
        *(
            "field\uff1bwater",
            "field\uff0cwater",
            "field\u3001water",
            "field\u060cwater",
            "field \u2022 water",
        ),
        *(
            "field\u00b7water",
            "field > water",
            "field (water)",
            "field or water",
            "[field] [water]",
            "field*water",
        ),
    ],
)
def test_several_tags_are_no_class(tmp_path: Path, several: str) -> None:
    cells = ["field", "water", "road", several]
    with pytest.raises(UserError, match=r"consists of (field|water) and .*: separate tags by ; as in .*;"):
        rows(tmp_path, cells)
    assert several in rows(tmp_path, cells, ("field", "water", "road", several))  # as it was named on purpose


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        *(
            (["a" + sign + "b"], f"'a{sign}b' has {sign} in it: separate tags by ;")
            for sign in "\uff1b\uff5c\uff0c\u3001\uff64\u060c\u061b"
        ),
        (["field:0.9;water:0.1", "water"], "'field:0.9' has a number as a score would"),
        (["field:1;water:0", "field:0;water:1"], "'field:0' has a number"),
        (["field (90%)", "water"], "has a number"),
        (["field;!water", "water"], "'!water' looks like a negation"),
        (["field", "water;not field"], "'not field' looks like a negation"),
        (["'field;water'", "road"], '"\'field" begins or ends with a quotation mark'),
        (["\u201cfield\u201d", "road"], "begins or ends with a quotation mark"),
    ],
)
def test_what_is_no_plain_name_is_refused(tmp_path: Path, cells: list[str], fault: str) -> None:
    with pytest.raises(UserError) as refused:
        rows(tmp_path, cells)
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    "names",
    [
        ("low vegetation", "high vegetation"),
        ("water", "waterfront road"),
        ("road", "road edge"),
        ("no vegetation", "built"),
        ("forest (dense)", "forest (2)"),
        ("class 1", "class 2"),
        ("<10", ">10"),
        ("farmer's field", "field's edge"),
        ("C", "C++", "B"),
        ("bare soil", "soil and rock"),
    ],
)
def test_plain_names_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(rows(tmp_path, list(names))) == set(names)
