"""Classes of a table that lists tags in one cell: several tags in one, scores, negations and quotations."""

from pathlib import Path

import pytest

from ome.data.tag_rows import read_tag_rows
from ome.errors import UserError

LOCAL_CLIMATE_ZONES = (
    "compact high-rise, compact mid-rise, compact low-rise, open high-rise, open mid-rise, open low-rise, "
    "lightweight low-rise, large low-rise, low plants"
)
WORLD_COVER = (
    "tree cover, shrubland, grassland, cropland, built-up, bare or sparse vegetation, snow and ice, "
    "permanent water bodies, herbaceous wetland, mangroves, moss and lichen"
)
LAND_COVER_OF_THE_USA = (
    "open water, developed open space, developed low intensity, developed high intensity, deciduous forest, "
    "evergreen forest, mixed forest, grassland herbaceous, woody wetlands, emergent herbaceous wetlands"
)


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


@pytest.mark.parametrize("joint", [" ", "+", " + ", "-", " & ", " and ", " und "])
@pytest.mark.parametrize(
    "cells",
    [
        ["road tree", "road water", "tree water"],
        ["road tree", "tree road"],
        ["Road Tree", "tree water", "water"],
        ["a1 b2", "a1 c3", "b2 c3", "a1 b2 c3", "d4"],
        ["low_vegetation road", "low_vegetation water", "road water"],
    ],
)
def test_classes_that_share_their_words_are_several_tags(
    tmp_path: Path, cells: list[str], joint: str
) -> None:
    joined = [joint.join(cell.split()) for cell in cells]
    with pytest.raises(UserError, match=r"consists of \S+ and .*: separate tags by ; as in \S+;\S+; if it"):
        rows(tmp_path, joined)
    assert {*rows(tmp_path, joined, tuple(joined))} == {*joined}
    separated = [cell.replace("-", "_") for cell in [*joined, "field;marsh"]]
    if joint in {" ", " + "}:  # someone who separates tags has read how to
        assert {"field", "marsh"} < {*rows(tmp_path, separated)}


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
        ("low_vegetation", "bare soil"),
        ("dense forest", "open forest", "dense scrub", "open scrub"),
        ("forest", "dense forest", "dense scrub"),
        ("0-10", "10-20", "20-30", "30-40"),
        ("0-10 m", "10-20 m", "20-30 m"),
        ("impervious surface", "building", "low vegetation", "tree", "car", "clutter"),  # ISPRS
        ("building", "road", "water", "barren", "forest", "agriculture"),  # LoveDA
        ("urban land", "agriculture land", "rangeland", "forest land", "water", "barren land"),  # DeepGlobe
        ("building", "woodland", "water", "road"),  # LandCover.ai
        ("bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land"),
        ("annual crop", "permanent crop", "herbaceous vegetation", "sea and lake", "river", "highway"),
        *(tuple(names.split(", ")) for names in (LOCAL_CLIMATE_ZONES, WORLD_COVER, LAND_COVER_OF_THE_USA)),
    ],
)
def test_plain_names_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for written in (names, [name.replace(" ", "_") for name in names], [name.title() for name in names]):
        assert set(rows(tmp_path, list(written))) == set(written)
