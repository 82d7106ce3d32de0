"""Names of images and classes as people and computers write them, and cells of spreadsheets."""

import re
from pathlib import Path

import pytest

from ome.data.names import check_class, check_classes, check_name, few_images, near_names, normal_form
from ome.data.palette import Palette, distinct_colours
from ome.data.sheets import read_sheet
from ome.data.tag_rows import read_tag_rows
from ome.errors import UserError
from ome.files import read_csv, write_csv


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\nb", "a\0b", "/a", "../a", "\udcff"]
)
def test_what_cannot_be_a_file_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match="give it another name"):
        check_name(name, "the image")
    with pytest.raises(UserError, match="give it another name"):
        check_class(name, "the class")


@pytest.mark.parametrize("name", ["image", "Split", "kept", "tags", "row", "tile", "too_small"])
def test_no_class_is_a_column_of_tables_of_tags(name: str) -> None:
    with pytest.raises(UserError, match="is a column of tables of tags"):
        check_class(name, "the class")
    with pytest.raises(UserError, match="is a column of tables of tags"):
        Palette({name: (1, 2, 3), "tree": (4, 5, 6)}, {})


@pytest.mark.parametrize(
    "letter", ["\u202e", "\u200b", "\ufeff", "\u00ad", "\u3164", "\u115f", "\u1160", "\uffa0", "\u2800"]
)
@pytest.mark.parametrize("name", ["{}", "ro{}ad", "road{}", "{}road"])
def test_what_cannot_be_seen_is_in_no_name(name: str, letter: str) -> None:
    with pytest.raises(UserError, match=rf"has the invisible character U\+{ord(letter):04X} in it: give it"):
        check_name(name.format(letter), "the image")


@pytest.mark.parametrize("header", ["\u200bimage,split,tags", "\ufeff\ufeffimage,tags", "image,tags,\u200b"])
def test_what_cannot_be_seen_is_in_no_column(tmp_path: Path, header: str) -> None:
    (tmp_path / "tags.csv").write_text(f"{header}\na,train,field\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: a column's name has the invisible character U\+(200B|FE)"):
        read_tag_rows(tmp_path / "tags.csv")


@pytest.mark.parametrize("name", ["\u200d", "\u200c\u200d", "\u0301", "\ufe0f"])
def test_a_name_has_something_to_see(name: str) -> None:
    with pytest.raises(UserError, match="is empty: give it another name"):
        check_name(name, "the image")


@pytest.mark.parametrize(
    "name",
    [
        "#REF!",
        "#N/A",
        "#DIV/0!",
        "#NAME?",
        "#BEZUG!",
        "#NV",
        "#¿NOMBRE?",
        "#\u0421\u0421\u042b\u041b!",
        "#\u041d/\u0414",
        "Err:502",
    ],
)
@pytest.mark.parametrize(
    "text", ["image,tags\na,road\nb,road;{}\n", "image,tags\na,road\n{},road\n", "image,road,{}\na,1,0\n"]
)
def test_the_error_of_a_formula_is_no_name(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "tags.csv").write_text(text.format(name), encoding="utf-8")
    line = 1 if "road,{}" in text else 3
    with pytest.raises(
        UserError, match=rf"tags.csv, line {line}: the .*{name[1:3]}.*is the error of a formula: give it"
    ):
        read_tag_rows(tmp_path / "tags.csv")


@pytest.mark.parametrize(
    "name",
    [
        "(1) a",
        "👩\u200d🌾",
        "\u0645\u06cc\u200c\u062e",
        "#1!",
        "#A",
        "#a!",
        "ERR",
        "-c",
        "vallée",
        "a b",
        "=a",
        "a.b",
        "100%",
        "a#b",
    ],
)
def test_other_names_are_used_as_they_are(name: str) -> None:
    assert check_name(name, "the image") == name
    assert normal_form("valle\u0301e ") == "vallée"


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ("Field", "field", "only in how they are written"),
        ("low vegetation", "low_vegetation", "only in how they are written"),
        ("forêt", "foret", "only in how they are written"),
        ("tree", "tr\u0435\u0435", "only in how they are written"),  # Cyrillic letters
        ("field", "fi\u0435ld", "only in how they are written"),
        ("wood", "w\u03bfod", "only in how they are written"),  # a Greek one
        ("1", "01", "only in how they are written"),
        ("1", "1.0", "only in how they are written"),
        ("zone 7", "zone_007", "only in how they are written"),
        ("slope-", "slope", "only in how they are written"),
        ("St. John", "st john", "only in how they are written"),
        ("a\u2212b", "a-b", "only in how they are written"),  # a minus sign
        ("🌳", "🌳\ufe0f", "only in how they are written"),
        ("δάσος", "δασος", "only in how they are written"),
        ("water", "watr", "in one letter"),
        ("tree", "trees", "in one letter"),
        ("water", "watar", "in one letter"),
        ("water", "watre", "in one letter"),
        ("water", "awter", "in one letter"),
    ],
)
@pytest.mark.parametrize("typed", [False, True])
def test_classes_of_nearly_the_same_name(first: str, second: str, how: str, typed: bool) -> None:
    counts = {first: 5, "road": 3, second: 1}
    if typed and how == "in one letter":
        check_classes(counts, "tags.csv", typed=True)
        return
    with pytest.raises(UserError, match=rf"tags.csv: the classes '{first}' \(5 rows\) and .*{how}"):
        check_classes(counts, "tags.csv", typed=typed)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("car", "cat"),
        ("zone 1", "zone 2"),
        ("road", "roof"),
        ("a", "b"),
        ("zone 12", "zone 21"),
        ("1", "10"),
        ("1.0", "10"),
        ("1.5", "15"),
        ("1.1", "1.01"),
        ("1.1", "1.1.0"),
        ("zone 0", "zone 00 a"),
        ("tree", "reet"),
        ("building <10m", "building >10m"),
        ("building ≥10m", "building >10m"),
        ("height = 3", "height ≠ 3"),
        ("slope+", "slope-"),
        ("C", "C++"),
        ("%", "&"),
        ("road", "road?"),
        ("🌳", "🏠"),
        ("कल", "काल"),
        ("कि", "की"),
        ("はし", "ばし"),
        ("กา", "กี"),
    ],
)
def test_classes_that_are_meant_to_differ(first: str, second: str) -> None:
    check_classes({first: 1, second: 1}, "tags.csv", typed=False)


@pytest.mark.parametrize(
    "text",
    [
        "image,split,tags\na,train,field\nb,test,water\n",
        "image,split,tags,,\r\na,train,field,,\r\nb,test,water,,\r\n,,,,\r\n",
        ",image,split,tags\n0,a,train,field\n1,b,test,water\n",
        "Unnamed: 0,image,split,tags\n0,a,train,field\n1,b,test,water\n",
        ",image,split,tags\n2,a,train,field\n9,b,test,water\n",
        ",image,split,tags\n9,a,train,field\n2,b,test,water\n",
        "image,split,tags,Unnamed: 3\na,train,field,\nb,test,water,\n",
        "Unnamed: 0,image,split,field,water\n0,a,train,1,0\n1,b,test,0,1\n",
        "\ufeffimage , split,tags\na.tif,train, field \nb.TIF,test,water;\n",
        '"image","split","tags"\n"a","train","field"\n\n"b","test","water|water"\n',
    ],
)
def test_what_spreadsheets_add_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "tags.csv").write_text(text, newline="")
    rows = read_tag_rows(tmp_path / "tags.csv").rows
    assert [(row.image, row.split, set(row.tags)) for row in rows] == [
        ("a", "train", {"field"}),
        ("b", "test", {"water"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,tags\na,"field, water"\n', "line 2: the class 'field, water' cannot have , in it"),
        ("image,tags\na,field\nb,../../x\n", "line 3: the class '../../x' has '/' in it"),
        ("image,../x\na,1\n", "line 1: the class '../x' has '/' in it"),
        ("image,tags\n../a,field\n", "line 2: the image '../a' has a folder in it: leave it out, as in a$"),
        ("image,tags\nimages/a.tif,field\n", "'images/a.tif' has a folder in it: leave it out, as in a.tif$"),
        (r"image,tags%images\a.tif,field%", "has a folder in it: leave it out, as in a.tif$"),
        (r"image,field%C:\data\a.tif,1%", "has a folder in it: leave it out, as in a.tif$"),
        (
            r"scene,row,column,height,width,split,kept,field%x\a.tif,0,0,9,9,train,1,1%",
            "line 2: the scene .* has a folder in it: leave it out, as in a.tif$",
        ),
        ("image,tags\na/,field\n", "the image 'a/' has '/' in it"),
        ("image,tags,,\na,field,,5\n", "line 2: not as many values"),
        ("image,tags\na,field\nb,field;None\n", "None stands for an empty cell in many tables: empty these"),
        ("image,field,NaN\na,1,0\nb,0,1\n", "NaN stands for .* if it is a class"),
        ("image,tags\na,1;2\nb,1.0\n", "'1' .1 rows. and '1.0' .1 rows. differ only in how they are written"),
        ("image,tags\na,water;watr\n", "differ in one letter: correct it, or type 'dataset.classes="),
    ],
)
def test_what_would_be_read_wrongly_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tags.csv").write_text(text.replace("%", "\n"))
    with pytest.raises(UserError, match=message):
        read_tag_rows(tmp_path / "tags.csv")


EMPTY = [
    "nan",
    "NAN",
    "NaN",
    "none",
    "None",
    "NA",
    "n.a.",
    "N.A.",
    "NULL",
    "Null",
    "NaT",
    "-",
    "--",
    "\u2013",
    "?",
]


@pytest.mark.parametrize("name", EMPTY)
def test_what_stands_for_an_empty_cell_is_no_class(tmp_path: Path, name: str) -> None:
    (tmp_path / "tags.csv").write_text(f"image,tags\na,{name}\nb,field\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"tags.csv: {re.escape(name)} stands for an empty cell in many tables"
    ):
        read_tag_rows(tmp_path / "tags.csv")


@pytest.mark.parametrize("name", [*EMPTY, "1", "01", "no", "true"])
def test_a_class_that_is_named_on_purpose_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "tags.csv").write_text(f"image,tags\na,{name}\nb,field\n")
    rows = read_tag_rows(tmp_path / "tags.csv", ("field", name)).rows
    assert [row.tags for row in rows] == [{name}, {"field"}]


def test_no_cell_of_a_table_starts_a_formula(tmp_path: Path) -> None:
    rows = [["=1+2", "-c", "@x", "+", "-5", "1e3", "'=a", "\tb"]]
    write_csv(tmp_path / "table.csv", list("abcdefgh"), rows)
    written = (tmp_path / "table.csv").read_text().splitlines()[1]
    assert written == "'=1+2,'-c,'@x,+,-5,1e3,''=a,'\tb"
    assert list(read_csv(tmp_path / "table.csv")[0].values()) == rows[0]
    assert read_sheet(tmp_path / "table.csv").rows[0][1]["a"] == "=1+2"


@pytest.mark.parametrize("name", [" a", "a ", "a\u2028b", "a\u00a0", "\ta", ".."])
def test_blanks_around_and_lines_within_are_no_name(name: str) -> None:
    with pytest.raises(UserError, match="give it another name"):
        check_name(name, "the image")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_one_letter_is_refused_where_a_class_is_rare_and_pointed_out_elsewhere(count: int) -> None:
    counts = {"water": 9, "watar": count}
    if count <= 2:
        with pytest.raises(UserError, match=r"one letter: correct it, or type 'dataset.classes=\[\.\.\.\]'"):
            check_classes(counts, "tags.csv", typed=False)
    else:
        check_classes(counts, "tags.csv", typed=False)
        assert ["'water' and 'watar'" in line for line in near_names(list(counts))] == [True]
    check_classes(counts, "tags.csv", typed=True)


def test_classes_of_few_images_are_pointed_out() -> None:
    counts = {"road": 3, "lake": 2, "bog": 0}
    assert few_images(counts) == ["no more than 2 images to train on: lake (2), bog (0)"]
    assert few_images({"car": 5, "cat": 5}) == []
    assert "type 'dataset.classes=" in near_names(["car", "road", "cat"])[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../../x"], "the class '../../x' has '/' in it"),
        (["a;b"], "cannot have ; in it"),
        (["Field", "field"], "'Field' .* and 'field' .* differ only in how they are written"),
    ],
)
def test_classes_of_a_configuration_obey_the_same_rule(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^dataset.classes: .*{message}"):
        Palette(distinct_colours(names), {})


@pytest.mark.parametrize("written", ["a", "a.tif", "a.TIFF", "valle\u0301e.png", "vallée"])
def test_scenes_of_windows_are_named_with_or_without_suffix(tmp_path: Path, written: str) -> None:
    header = "scene,row,column,height,width,split,road\n"
    (tmp_path / "tags.csv").write_text(f"{header}{written},0,0,9,9,train,1\n")
    assert read_tag_rows(tmp_path / "tags.csv").rows[0].image in {"a", "vallée"}
