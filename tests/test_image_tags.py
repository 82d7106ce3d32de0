"""Tables of tags as people write them: one row an image, CSV or spreadsheet."""

import csv
import io
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl
import pytest

from ome.data.folder import folder_layout
from ome.data.image_tags import outline, read_tags
from ome.data.palette import Palette, distinct_colours
from ome.data.scene_index import Scene, SceneIndex, SplitName
from ome.data.tiles import Tile
from ome.errors import UserError
from tests import archives


def index(splits: dict[str, SplitName], names: Sequence[str] = ("road", "tree")) -> SceneIndex:
    scenes = tuple(Scene(name, split, 30, 40, 3, "", None) for name, split in splits.items())
    return SceneIndex(Path(), scenes, Palette(distinct_colours(names), {}), "fields")


def write(folder: Path, text: str) -> Path:
    path = folder / "tags.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_tags_of_an_image_belong_to_the_whole_image(tmp_path: Path) -> None:
    path = write(tmp_path, "image,tags\nb.JPG,road; tree\na,tree|road|tree\nc.d.tif,tree\n")
    facts = outline(path)
    assert facts.names == ("road", "tree")
    assert facts.splits == {"b": "train", "a": "train", "c.d": "train"}
    table = read_tags(path, index(facts.splits))
    assert table.tiles == (Tile("b", 0, 0, 30, 40), Tile("a", 0, 0, 30, 40), Tile("c.d", 0, 0, 30, 40))
    assert table.tags.tolist() == [[1, 1], [1, 1], [0, 1]]
    assert table.kept.all()


def test_columns_of_classes_keep_their_order_and_may_say_the_split(tmp_path: Path) -> None:
    path = write(tmp_path, "image, split, tree, road\na,train,1,0\nb,test,0,0\nc,,0,1\nd, val ,1,1\n")
    facts = outline(path)
    assert facts.names == ("tree", "road")
    assert facts.splits == {"a": "train", "b": "test", "c": "train", "d": "val"}
    table = read_tags(path, index(facts.splits, facts.names))
    assert table.tags.tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    assert table.splits == ("train", "test", "train", "val")
    assert table.kept.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "text",
    [
        "image,split,kept,tags\na,train,1,tree\nb,train,0,\nc,train,,\nd,train,0,road\ne,,,road\nf,val,,\n",
        "image,split,kept,road,tree\na,train,1,0,1\nb,,0,0,0\nc,train,,0,0\nd,train,0,1,0\ne,,,1,0\nf,val,,0,0\n",
    ],
)
def test_images_without_tags_stand_in_a_table_that_says_what_became_of_them(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, text)
    facts = outline(path)
    assert facts.names == ("road", "tree")
    table = read_tags(path, index(facts.splits))
    assert table.tags.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0], [1, 0], [0, 0]]
    assert table.kept.tolist() == [True, False, False, False, True, False]
    assert table.decided.tolist() == [True, True, False, True, True, False]
    assert table.splits == ("train", "train", "train", "train", "train", "val")


def test_a_table_of_tiles_says_the_same(tmp_path: Path) -> None:
    header = "scene,row,column,height,width,split,tree,road\n"
    path = write(tmp_path, f"{header}a,0,0,9,9,test,1,0\na,9,0,9,9,train,1,0\nb,0,0,9,9,val,0,1\n")
    facts = outline(path)
    assert facts == (("tree", "road"), {"a": "train", "b": "val"}, {"a": 2, "b": 4})
    assert read_tags(path, index(facts.splits, facts.names)).tiles[1] == Tile("a", 9, 0, 9, 9)


def test_windows_without_tags_show_none_of_the_classes(tmp_path: Path) -> None:
    header = "scene,row,column,height,width,split,kept,tree,road\n"
    path = write(tmp_path, f"{header}a,0,0,9,9,val,0,0,0\na,9,0,9,9,train,1,1,0\na,18,0,9,9,val,0,0,1\n")
    table = read_tags(path, index({"a": "train"}, ("tree", "road")))
    assert table.decided.all()
    assert table.select("val", decided=True).tags.tolist() == [[0, 0], [0, 1]]


def test_classes_that_are_known_may_be_more_than_the_tags(tmp_path: Path) -> None:
    path = write(tmp_path, "image,tags\na,tree\n")
    assert outline(path, ("road", "tree")).names == ("road", "tree")
    assert read_tags(path, index({"a": "train"})).tags.tolist() == [[0, 1]]


# The same as a spreadsheet


def workbook(folder: Path, rows: Sequence[Sequence[object]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(list(row))
    book.create_sheet("notes").append(["nothing"])
    book.save(folder / "tags.xlsx")
    return folder / "tags.xlsx"


def test_a_spreadsheet_is_read_like_csv(tmp_path: Path) -> None:
    blank = [None] * 5
    rows = [
        ["image", "split", " road", "tree", None],
        ["a.jpg", None, 1, 0.0, None],
        blank,
        [7, "test", True, 0],
    ]
    path = workbook(tmp_path, rows)
    assert outline(path) == (("road", "tree"), {"a": "train", "7": "test"}, {"a": 2, "7": 4})
    assert read_tags(path, index({"a": "train", "7": "test"})).tags.tolist() == [[1, 0], [1, 0]]
    with pytest.raises(UserError, match=r"tags.xlsx, line 3: tree is 'yes'; give 0 or 1"):
        outline(workbook(tmp_path, [["image", "tree"], ["a", 1], ["b", "yes"]]))
    with pytest.raises(UserError, match=r"tags.xlsx, line 2: not as many values"):
        outline(workbook(tmp_path, [["image", "tree"], ["a", 1, 1]]))


@pytest.mark.parametrize("size", ["A1", "A1:D2", "A1:B5", "A1:Z99", "C3:D4"])
@pytest.mark.parametrize("values", [(1, 0), ("=A1", 0)])
def test_the_size_that_a_spreadsheet_states_is_not_believed(
    tmp_path: Path, size: str, values: tuple[object, object]
) -> None:
    rows = [["image", "split", "road", "tree"], ["a", None, 1], [], ["b", "test", 0, 1], ["c", None, *values]]
    path = workbook(tmp_path, rows)
    with zipfile.ZipFile(path) as book:
        files = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    files[sheet] = re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="%s"' % size.encode(), files[sheet])
    with zipfile.ZipFile(path, "w") as book:
        for name, content in files.items():
            book.writestr(name, content)
    if values[0] == "=A1":
        with pytest.raises(UserError, match=r"tags.xlsx, line 5: a formula without a value"):
            outline(path)
        return
    facts = outline(path)
    assert (facts.names, facts.splits) == (("road", "tree"), {"a": "train", "b": "test", "c": "train"})
    assert read_tags(path, index(facts.splits)).tags.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("hidden", ["hidden", "veryHidden"])
def test_a_sheet_that_nobody_sees_is_not_read(tmp_path: Path, hidden: str) -> None:
    path = workbook(tmp_path, [["image", "tags"], ["a", "road"]])
    book = openpyxl.load_workbook(path)
    book["notes"].title = "seen"
    book["seen"].delete_rows(1)
    for row in (["image", "tags"], ["a", "tree"]):
        book["seen"].append(row)
    book.worksheets[0].sheet_state = hidden
    book.active = 1
    book.save(path)
    assert outline(path).names == ("tree",)


@pytest.mark.parametrize("second", ["rows", "empty", "hidden"])
@pytest.mark.parametrize("first", ["visible", "hidden"])
def test_several_sheets_are_pointed_out_once(
    tmp_path: Path, first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book = openpyxl.Workbook()
    states = {"spring": first, "summer": "visible", "autumn (2)": second}
    for title, state in states.items():
        sheet = book.create_sheet(title)
        for row in (["image", "tags"], ["a", title[:6]]) if state != "empty" else ():
            sheet.append(row)
        sheet.sheet_state = "hidden" if state == "hidden" else "visible"
    del book["Sheet"]
    book.save(tmp_path / "tags.xlsx")
    names = [outline(tmp_path / "tags.xlsx").names for _ in range(2)]
    read, *others = [title for title, state in states.items() if state not in {"hidden", "empty"}]
    assert names == [(read[:6],)] * 2
    line = f"{read} is read, and not {', '.join(others)}: move the sheet of the table to the front"
    assert " ".join(capsys.readouterr().out.split()).count(line) == bool(others)


@pytest.mark.parametrize("how", ["hidden", "flat", "grouped", "filtered"])
def test_rows_and_columns_that_are_hidden_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path = workbook(tmp_path, [["image", "road", "tree"], ["a", 1, 0], ["b", 0, 1], ["c", 1, 1]])
    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    if how == "filtered":
        sheet.auto_filter.ref = "A1:C4"
        sheet.auto_filter.add_filter_column(1, ["1"])
    for number in (3, 9):  # the ninth row is empty
        row = sheet.row_dimensions[number]
        row.hidden, row.height = how != "flat", 1e-9 if how == "flat" else None  # openpyxl omits a 0
    if how == "grouped":
        sheet.column_dimensions.group("B", "C", hidden=True)
    elif how == "flat":
        sheet.column_dimensions["C"].width = 1e-9
    book.save(path)
    assert [[*outline(path).splits], [*outline(path).splits]] == [["a", "b", "c"]] * 2
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("1 of 3 rows are hidden or filtered out, 3, and are read like the rest: delete") == 1
    columns = {"grouped": "2 of 3 columns are hidden or filtered out, road, tree", "flat": "1 of 3 columns"}
    assert printed.count("columns are hidden") == printed.count(columns.get(how, "columns are hidden"))
    assert ("columns are hidden" in printed) == (how in columns)


@pytest.mark.parametrize("span", ["B2:B3", "A2:A4", "B3:C4", "A4:C5", "B3:C3"])
def test_merged_cells_are_refused(tmp_path: Path, span: str) -> None:
    path = workbook(tmp_path, [["image", "road", "tree"], ["a", 1, 0], ["b", 0, 1], ["c", 1, 1]])
    book = openpyxl.load_workbook(path)
    book.worksheets[0].merge_cells(span)
    book.save(path)
    with pytest.raises(UserError, match=rf"tags.xlsx: the cells {span} are merged: split them, and fill"):
        outline(path)


def test_a_table_that_shows_everything_has_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outline(workbook(tmp_path, [["image", "road"], ["a", 1]]))
    assert "hidden" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sum", "Total", "Σ"])
@pytest.mark.parametrize("cells", [[2, 1], [1, 1], ["", ""], ["100%", "50%"]])
@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_a_row_of_sums_is_no_image(tmp_path: Path, name: str, cells: list[object], suffix: str) -> None:
    rows = [["image", "road", "tree"], ["a", 1, 0], ["b", 1, 1], [name, *cells]]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    table = workbook(tmp_path, rows) if suffix == "xlsx" else write(tmp_path, text)
    for stem in "ab":
        (tmp_path / f"{stem}.png").touch()
    facts = archives.facts("custom") | {"tags": str(table)}
    with pytest.raises(UserError, match=rf"{name} \(line 4\); correct or|line 4: .*0 or 1|no tag to"):
        folder_layout(facts, tmp_path)


def chart(book: dict[str, bytes]) -> None:
    book["xl/workbook.xml"] = book["xl/workbook.xml"].replace(b"worksheet", b"chartsheet")
    for name in [name for name in book if name.endswith(".rels")]:
        book[name] = book[name].replace(b"relationships/worksheet", b"relationships/chartsheet")


def entities(book: dict[str, bytes]) -> None:
    powers = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    sheet = "xl/worksheets/sheet1.xml"
    book[sheet] = f'<!DOCTYPE x [<!ENTITY a "lol">{powers}]>'.encode() + book[sheet].replace(
        b"<v>", b"<v>&i;"
    )


def blanks(book: dict[str, bytes]) -> None:
    sheet = "xl/worksheets/sheet1.xml"
    book[sheet] += b"<!--" + b" " * (64 << 20) + b"-->"


@pytest.mark.parametrize("attack", [chart, entities, blanks])
def test_a_hostile_workbook_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Callable[[dict[str, bytes]], None]
) -> None:
    monkeypatch.setattr("ome.data.raw_file.SMALL_MEMBER", 32 << 20)
    path = workbook(tmp_path, [["image", "tags"], ["a", "road"]])
    with zipfile.ZipFile(path) as book:
        files = {name: book.read(name) for name in book.namelist()}
    attack(files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in files.items():
            book.writestr(name, content)
    with pytest.raises(UserError, match=r"tags.xlsx is not a spreadsheet|times are refused") as raised:
        outline(path)
    assert "\n" not in str(raised.value)


def test_without_the_library_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path, [["image", "tree"], ["a", 1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        UserError, match=r'tags.xlsx needs openpyxl: pip install "ome\[spreadsheet\]", or save it as CSV'
    ):
        outline(path)


@pytest.mark.parametrize("content", [b"", b"image,tags\na,tree\n", b"PK\x03\x04 cut short"])
def test_what_is_no_spreadsheet_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tags.xlsx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tags.xlsx is not a spreadsheet") as raised:
        outline(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header", [["image", "split", "tags"], ["Image", "SPLIT", "Tags"], ["image", "split", "road", "tree"]]
)
@pytest.mark.parametrize("before", ["", "\ufeff", "sep={}\r\n"])
def test_tables_are_read_as_spreadsheets_write_them(
    tmp_path: Path, delimiter: str, header: list[str], before: str
) -> None:
    listed = len(header) == 3
    rows = [
        ["a.tif", "train", *(["road;tree"] if listed else ["x", "1"])],
        ["b", "test", *(["tree"] if listed else ["", "TRUE"])],
        ["c", "", *(["road"] if listed else ["1.0", ""])],
    ]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([header, *rows])
    (tmp_path / "tags.csv").write_text(before.format(delimiter) + stream.getvalue(), newline="")
    assert outline(tmp_path / "tags.csv")[:2] == (("road", "tree"), {"a": "train", "b": "test", "c": "train"})
    scenes = index({"a": "train", "b": "test", "c": "train"})
    assert read_tags(tmp_path / "tags.csv", scenes).tags.tolist() == [[1, 1], [0, 1], [1, 0]]


def test_what_is_read_for_0_and_1_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "image,road,tree\na,x,\nb,,1\n")
    for _ in range(2):
        outline(path)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("2 of 4 cells of classes are empty: they are read as 0") == 1
    assert printed.count("1 of 4 cells of classes are x: they are read as 1") == 1


@pytest.mark.parametrize(("splits", "said"), [("train,,test", 1), (",,", 0), ("train,val,test", 0)])
def test_empty_cells_of_split_beside_filled_ones_are_said_once(
    tmp_path: Path, splits: str, said: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{name},{split},road\n" for name, split in zip("abc", splits.split(","), strict=True))
    path = write(tmp_path, f"image,split,tags\n{rows}")
    for _ in range(2):
        assert [*outline(path).splits.values()] == [split or "train" for split in splits.split(",")]
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("1 of 3 cells of split are empty: they are read as train") == said


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_another_encoding_says_how_to_save(tmp_path: Path, encoding: str, mark: str) -> None:
    (tmp_path / "tags.csv").write_bytes(f"{mark}image,tags\nvallée,tree\n".encode(encoding))
    with pytest.raises(UserError, match=rf"tags.csv is in {encoding[:6].upper()}: save it as CSV UTF-8$"):
        outline(tmp_path / "tags.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("before", ["", "sep={}\n"])
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str, before: str, delimiter: str) -> None:
    text = before.format(delimiter) + "image,split,road,tree\na,train,1,0\nb,test,yes,1\n".replace(
        ",", delimiter
    )
    (tmp_path / "tags.csv").write_text(text, newline=end)
    with pytest.raises(UserError, match=f"tags.csv, line {3 + bool(before)}: road is 'yes'; give 0 or 1"):
        outline(tmp_path / "tags.csv")
    (tmp_path / "tags.csv").write_text(text.replace("yes", "0"), newline=end)
    assert outline(tmp_path / "tags.csv")[:2] == (("road", "tree"), {"a": "train", "b": "test"})


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"the table {tmp_path} is a folder: give a file, e.g. .*/tags.csv$"):
        outline(tmp_path)


def test_formulas_without_values_and_other_spreadsheets_are_named(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["image", "tree"], ["a", 1], ["b", "=B2"]])
    with pytest.raises(UserError, match=r"tags.xlsx, line 3: a formula without a value: save the file in"):
        outline(path)
    path.rename(tmp_path / "tags.xls")
    with pytest.raises(UserError, match=r"tags.xls: .*not supported: save it as .xlsx or CSV"):
        outline(tmp_path / "tags.xls")


# Mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column image; give image,tags, or image and"),
        ("name,tags\na,tree\n", "line 1: no column image"),
        ("image:tags\na:tree\n", "line 1: no column image.*separated by commas, semicolons or tabs"),
        ("Image,image,tags\na,b,tree\n", "line 1: the column image occurs twice"),
        ("image;tags\na;tree;road\n", r"line 2: not as many values.*or \| between them, as in road\|tree"),
        ('image,tags\na,tree\nb,"road, tree"\nc,"a, b"\n', "line 3: the class 'road, tree' cannot have ,"),
        ('image,note,tags\n"a","two\nlines",tree\n', "line 1: unknown column 'note'"),
        ('image,tree\n"a\n",1\nb,yes\n', "line 4: tree is 'yes'"),
        ("image,tags\n", "has no tags"),
        ("image,tags,tags\na,tree,tree\n", "line 1: a column occurs twice"),
        ("image,tags,tree\na,tree,1\n", "line 1: unknown column 'tree'; a table has tags, or a column"),
        ("image,tags\na\n", "line 2: not as many values"),
        ("image,tags\na,tree\n,tree\n", "line 3: the image has no name"),
        ("image,tags\na,tree\na.png,road\n", "line 3: image a is already in line 2"),
        ("image,tags\na,tree\nb,;\n", "line 3: b has no tag to train on; give it one, or delete"),
        ("image,tree\na,1\nb,0\n", "line 3: b has no tag to train on"),
        ("image,kept,tags\na,1,tree\nb,1,\n", "line 3: b has no tag to train on"),
        ("image,kept,tags\na,yes,tree\n", "line 2: kept is 'yes'; give 0 or 1"),
        ("image,tree\na,2\n", "line 2: tree is '2'; give 0 or 1"),
        ("image,split,tags\na,training,tree\n", "line 2: split is 'training'; give one of train, val, test"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"tags.csv.*{message}"):
        outline(write(tmp_path, text))


OF_SPLITS = ("train", "Valid", "is_valid", "isTrain", "IS TEST", "val", "validation", "fold", "set", "subset")


@pytest.mark.parametrize("name", [*OF_SPLITS, "id", "Index", "total", "SUM"])
@pytest.mark.parametrize("form", ["columns", "windows"])
def test_a_column_of_another_program_is_no_class(tmp_path: Path, name: str, form: str) -> None:
    """As a class, `is_valid` would make the images train that it holds out."""
    columns = {"image": "a"}
    if form == "windows":
        columns = {"scene": "a", "row": "0", "column": "0", "height": "9", "width": "9", "split": "train"}
    columns |= {"road": "1", name: "1", "water": "0"}
    path = write(tmp_path, ",".join(columns) + "\n" + ",".join(columns.values()) + "\n")
    kind = "looks like a split: write a column `split`"
    if name not in OF_SPLITS:
        kind = "is no class, it seems: delete"
    with pytest.raises(UserError, match=rf"the column {name} {kind}.*'dataset\.classes=\[\.\.\.\]'$"):
        outline(path)
    assert name in outline(path, ("road", name, "water")).names


@pytest.mark.parametrize(
    "names",
    [
        ("field", "fields", "valley", "train_station", "railway train", "settlement", "test_site", "tidal"),
        ("trainyard", "sunflower", "indexed", "folded rock", "7", "reset"),
    ],
)
def test_a_class_whose_name_only_resembles_such_a_column_stays(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    path = write(tmp_path, f"image,{','.join(names)}\na{',1' * len(names)}\n")
    assert outline(path).names == names
    assert outline(write(tmp_path, "image,tags\na,train;road\nb,set\n")).names == ("road", "set", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,tags\na,lake\n", "line 2: unknown class 'lake'; the classes are road, tree"),
        ("image,road,tree,lake\na,1,0,0\n", "line 1: unknown column 'lake'; the classes are road, tree"),
        ("image,road\na,1\n", "line 1: no column tree"),
        (
            "image,tags\nb,tree\n",
            "line 2: among the prepared scenes b does not exist; .*the same command with stage=prepare",
        ),
        ("image,split,tags\na,test,tree\n", "line 2: among the prepared scenes a is in the split train"),
    ],
)
def test_a_table_that_does_not_fit_the_scenes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"tags.csv.*{message}"):
        read_tags(write(tmp_path, text), index({"a": "train"}))
