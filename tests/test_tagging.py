"""The table of tags while a person fills it: what is read, what is written, what can be undone."""

import os
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ome.data.folder import folder_layout
from ome.data.image_tags import outline, read_tags
from ome.data.prepare import prepare_scenes
from ome.data.scene_index import SceneIndex
from ome.data.scenes import SceneReader
from ome.data.suggestions import write_suggestions
from ome.data.tiles import Tile
from ome.data.user_csv import DELIMITERS
from ome.errors import UserError
from ome.tagging import main
from ome.tagging.changes import ChangedError
from ome.tagging.command import open_session
from ome.tagging.items import find_images, windows_of
from ome.tagging.options import parser
from ome.tagging.pictures import LONGEST, Pictures
from ome.tagging.session import Session
from ome.tagging.table import Row, Status, Table
from tests import archives
from tests.tagging import deep, write_images

HEADER = "image,split,road,tree\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def session(images: Path, *arguments: str) -> Session:
    options = parser().parse([str(images), *arguments])
    return open_session(find_images(images), images.parent / "tags.csv", options)


def written(images: Path) -> str:
    return (images.parent / "tags.csv").read_text().replace("\r\n", "\n")


def tags_of_training(images: Path) -> dict[str, list[int]]:
    """What the project itself reads from the table, for the images that train."""
    path = images.parent / "tags.csv"
    facts = archives.facts("custom") | {"tags": str(path)}
    index = prepare_scenes(folder_layout(facts, images), images, images.parent / "scenes")
    table = read_tags(path, index)
    training = table.select("train", kept=True)
    return {tile.scene: tags.tolist() for tile, tags in zip(training.tiles, training.tags, strict=True)}


def test_a_new_table_is_what_the_project_reads(images: Path) -> None:
    work = session(images, "--classes", "road, tree")
    assert not (images.parent / "tags.csv").exists()
    work.set_tags(2, ["tree"])
    assert written(images) == HEADER + "field_2.jpg,train,0,1\n"
    work.set_tags(0, ["tree", "road"])
    work.set_tags(3, [], none=True)
    assert written(images) == (
        "image,split,kept,road,tree\nfield_2.jpg,train,1,0,1\nfield_0.tif,train,1,1,1\nfield_3.tif,train,0,0,0\n"
    )
    assert tags_of_training(images) == {"field_2": [0, 1], "field_0": [1, 1]}
    again = session(images)
    assert [again.row(number).status for number in range(4)] == ["tagged", "open", "tagged", "none"]
    again.set_tags(3, ["road"])
    assert tags_of_training(images) == {"field_2": [0, 1], "field_0": [1, 1], "field_3": [1, 0]}
    again.set_tags(3, [])
    assert again.row(3).status == "open"


def test_a_table_is_continued_as_it_is_written(images: Path) -> None:
    table = images.parent / "tags.csv"
    table.write_text("split,image,tags\nval,field_1,tree|road\n,field_0.tif,\ntest,gone.png,\n")
    work = session(images)
    assert work.names == ("road", "tree")
    work.set_tags(2, ["road"])
    assert written(images) == (
        "split,kept,image,tags\nval,1,field_1,road;tree\n,,field_0.tif,\ntest,,gone.png,\ntrain,1,field_2.jpg,road\n"
    )
    work.set_tags(0, ["tree", "road"])
    work.set_tags(1, [])
    assert outline(table).splits == {"field_1": "val", "field_0": "train", "gone": "test", "field_2": "train"}
    assert ",,gone.png,\n" in written(images).replace("test", "")


def test_columns_that_the_page_does_not_know_and_unfinished_rows_stay(images: Path) -> None:
    table = images.parent / "tags.csv"
    table.write_text("image,by,tags,notes\nfield_0,Jo,tree,\nfield_1,,,see Jo\ngone,Al,trees,\n")
    work = session(images)
    work.set_tags(2, ["trees"])
    assert written(images) == (
        "image,kept,by,tags,notes\nfield_0,1,Jo,tree,\nfield_1,,,,see Jo\ngone,1,Al,trees,\n"
        "field_2.jpg,1,,trees,\n"
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "sep={0}\r\n", "\ufeffsep={0}\n"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize(
    "lines",
    [
        ["image,split,forêt,tree", "field_0.tif,val,1,0", "field_1.png,train,1,1", "field_2.jpg,train,0,1"],
        ["image,tags,by", "field_0.tif,forêt,Ann", "field_1.png,tree,Zoë", "field_2.jpg,tree,"],
        [
            "tile,scene,row,column,height,width,split,kept,forêt,tree",
            "field_0_00000_00024,field_0,0,24,32,32,val,1,1,0",
            "field_0_00008_00024,field_0,8,24,32,32,val,1,0,1",
        ],
    ],
)
def test_a_table_stays_the_csv_file_that_it_was(
    images: Path, lines: list[str], delimiter: str, start: str, end: str
) -> None:
    path = images.parent / "tags.csv"
    written = [line.replace(",", delimiter) + end for line in lines]
    start = start.format(delimiter)
    path.write_bytes((start + "".join(written[:-1])).encode())
    work = session(images, *(["--tile", "32"] if "tile" in lines[0] else []))
    names = [item.tile.name if item.tile else item.file.name for item in work.items]
    work.set_tags(names.index(lines[-1].split(",")[0]), ["tree"])
    assert path.read_bytes() == (start + "".join(written)).encode()
    work.undo()
    assert path.read_bytes() == (start + "".join(written[:-1])).encode()


def test_a_linked_table_stays_a_link_and_keeps_its_mode(images: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared.csv"
    elsewhere.write_text("image,road\n")
    elsewhere.chmod(0o660)
    table = images.parent / "tags.csv"
    table.symlink_to(elsewhere)
    session(images).set_tags(0, ["road"])
    assert table.is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0o660
    assert "field_0.tif,1" in elsewhere.read_text()


def test_a_table_keeps_its_group(images: Path) -> None:
    table = images.parent / "tags.csv"
    table.write_text("image,road\n")
    table.chmod(0o664)
    groups = [group for group in (*os.getgroups(), 4321) if group != table.stat().st_gid]
    try:
        os.chown(table, -1, groups[-1] if os.geteuid() == 0 else groups[0])
    except (IndexError, OSError):
        pytest.skip("this user has one group")
    before = table.stat()
    session(images).set_tags(0, ["road"])
    after = table.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_table_that_is_read_only_is_not_replaced(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = images.parent / "tags.csv"
    table.write_text("image,road\n")
    work = session(images)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may always write
    with pytest.raises(UserError, match=r"tags\.csv cannot be written: it is read-only"):
        work.set_tags(0, ["road"])
    assert table.read_text() == "image,road\n"


@pytest.mark.parametrize("what", ["loop", "file"])
def test_a_table_without_a_place_is_one_line(images: Path, what: str) -> None:
    table = images.parent / "deep/tags.csv"
    work = Session(find_images(images), Table.read(table, windows=False), ["road"])
    if what == "loop":
        table.parent.mkdir()
        table.symlink_to(table.name)
        assert main([str(images), "--table", str(table)]) == 1
    else:
        table.parent.write_text("in the way")
    with pytest.raises(UserError, match=r"tags\.csv cannot be written: (Too many levels|Not a directory)"):
        work.set_tags(0, ["road"])


def test_what_needs_no_column_gets_none(images: Path) -> None:
    table = images.parent / "tags.csv"
    table.write_text(HEADER + "field_0,val,1,0\nfield_1,train,0,1\n")
    work = session(images)
    work.set_tags(1, ["road", "tree"])
    assert written(images) == HEADER + "field_0,val,1,0\nfield_1,train,1,1\n"
    # Left out by somebody else: tags do not bring it back.
    table.write_text("image,split,kept,road,tree\nfield_0,val,0,1,0\n")
    work = session(images)
    work.set_tags(0, ["tree"])
    assert written(images) == "image,split,kept,road,tree\nfield_0,val,0,0,1\n"


def test_every_change_can_be_undone_and_made_again(images: Path) -> None:
    work = session(images)
    states = []
    for change in (
        lambda: work.add_class("road"),
        lambda: work.set_tags(1, ["road"]),
        lambda: work.add_class("tree"),
        lambda: work.set_tags(1, ["road", "tree"]),
        lambda: work.set_tags(0, [], none=True),
        lambda: work.set_tags(1, ["tree"]),
        lambda: work.remove_class("road"),
    ):
        change()
        states.append(written(images))
    assert len(set(states)) == len(states)
    changed = []
    for text in reversed(states[:-1]):
        changed.append(work.undo())
        assert written(images) == text
    assert changed == [None, 1, 0, 1, None, 1]
    for text in states[1:]:
        work.redo()
        assert written(images) == text
    assert work.redo() is None
    work.undo()
    work.set_tags(3, ["tree"])
    assert work.summary()["redo"] == 0  # another way was taken


def test_cooccurrence_is_that_of_the_images_that_train(images: Path) -> None:
    work = session(images, "--classes", "road,tree,lake")
    work.set_tags(0, ["road", "tree"])
    work.set_tags(1, ["road"])
    work.set_tags(2, [], none=True)
    summary = work.summary()
    assert summary["images"] == [2, 1, 0]
    assert summary["cooccurrence"] == [[1, 0.5, 0], [1, 1, 0], [None, None, None]]


def test_nothing_changes_where_nothing_can_be_written(images: Path) -> None:
    work = session(images, "--classes", "road")
    work.set_tags(0, ["road"])
    table = images.parent / "tags.csv"
    before = written(images)
    table.write_text(before + "field_1.png,test,1\n")
    with pytest.raises(UserError, match=r"tags.csv was changed by another program: start ome tags again"):
        work.set_tags(2, ["road"])
    assert work.row(2).status == "open"
    assert table.read_text() == before + "field_1.png,test,1\n"
    table.unlink()
    with pytest.raises(UserError, match=r"changed by another program"):
        work.undo()


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("name", ["road lake", "road or lake", "lake:0", "!lake", "not road", "road (90%)"])
def test_the_page_takes_no_name_that_its_table_cannot_be_read_with(
    images: Path, name: str, *, listed: bool
) -> None:
    table = images.parent / "tags.csv"
    if listed:
        table.write_text("image,split,tags\nfield_0.png,train,road;lake\n")
    work = session(images, *([] if listed else ["--classes", "road,lake"]))
    refused = pytest.raises(UserError, match=re.escape(f"the class {name!r} "))
    with refused if listed else nullcontext():
        work.add_class(name)
        work.set_tags(0, [name])
    session(images)  # reads the table
    with refused if listed else nullcontext():
        session(images, "--classes", name)


@pytest.mark.parametrize("how", ["in place", "renamed", "touched", "written again"])
def test_what_another_program_wrote_is_never_overwritten(images: Path, how: str) -> None:
    """Also where size and time of the file stay, as on disks with coarse times."""
    work = session(images, "--classes", "road,lake")
    work.set_tags(0, ["road"])
    table = images.parent / "tags.csv"
    before, status = table.read_bytes(), table.stat()
    after = before.replace(b"train", b"valid") if how in {"in place", "renamed"} else before
    path = table if how != "renamed" else table.with_name("other.csv")
    path.write_bytes(after)
    path.replace(table)
    if how != "touched":
        os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    refused = pytest.raises(UserError, match="was changed by another program")
    with nullcontext() if after == before else refused:
        work.set_tags(1, ["lake"])
    assert (table.read_bytes() == after) == (after != before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (" ", "is empty"),
        ("x" * 61, "needs a name of 1 to 60"),
        ("a\nb", "has '.n' in it"),
        ("a;b", "cannot have ; in it"),
        ("a/b", "has '/' in it"),
        ("Split", "'Split' is a column of tables of tags"),
        ("ROAD", "class road already exists"),
        ("None", "the class 'None' stands for an empty cell in many tables"),
        ("?", "stands for an empty cell in many tables"),
        (
            "Unnamed: 0",
            "is a column of tables of tags",
        ),  # readers leave such a column out
    ],
)
def test_names_that_would_break_the_table_are_refused(images: Path, name: str, message: str) -> None:
    work = session(images, "--classes", "road")
    with pytest.raises(UserError, match=message):
        work.add_class(name)
    assert work.names == ("road",)


def test_what_is_no_tag_is_refused(images: Path) -> None:
    work = session(images, "--classes", "road")
    with pytest.raises(UserError, match="'lake' is not a class; the classes are road"):
        work.set_tags(0, ["lake"])
    with pytest.raises(UserError, match="tags or shows none"):
        work.set_tags(0, ["road"], none=True)
    work.set_tags(0, ["road"])
    with pytest.raises(UserError, match="road is a tag of 1 images"):
        work.remove_class("road")


@pytest.mark.parametrize(
    ("other", "shown", "refused"),
    [
        ((["road"], False), ([], "open"), True),
        (([], True), ([], "open"), True),
        ((["road"], False), (["tree"], "tagged"), True),
        (([], False), (["road"], "tagged"), True),
        ((["road", "tree"], False), (["tree", "road"], "tagged"), False),
        (([], True), ([], "none"), False),
        (([], False), ([], "open"), False),
    ],
)
def test_a_window_does_not_overwrite_what_it_does_not_show(
    images: Path, other: tuple[list[str], bool], shown: tuple[list[str], Status], refused: bool
) -> None:
    work = session(images, "--classes", "road,tree")
    work.set_tags(1, ["road"])
    work.set_tags(0, other[0], none=other[1])
    before = work.row(0)
    seen = frozenset(shown[0]), shown[1]
    message = r"another window has changed field_0\.tif: it is shown anew"
    with pytest.raises(ChangedError, match=message) if refused else nullcontext():
        work.set_tags(0, ["tree"], shown=seen)
    assert work.row(0) == before if refused else work.row(0).tags == {"tree"}
    work.set_tags(0, ["tree"], shown=(work.row(0).tags, work.row(0).status))


# Windows of large images


def test_windows_cover_each_image_and_become_a_table_of_tiles(images: Path) -> None:
    work = session(images, "--tile", "32", "--classes", "road,tree")
    of_first = [item.tile for item in work.items if item.image == "field_0"]
    assert of_first == [Tile("field_0", row, column, 32, 32) for row in (0, 8) for column in (0, 24)]
    assert len(work.items) == 16
    work.set_tags(1, ["tree"])
    work.set_tags(2, [], none=True)
    work.set_tags(3, ["road"])
    work.set_tags(3, [])
    path = images.parent / "tags.csv"
    assert path.read_text().count("\n") == 3
    index = SceneIndex(images, (), archives.layout("vaihingen").palette, "")
    index = SceneIndex(images, (), type(index.palette)({"road": (1, 1, 1), "tree": (2, 2, 2)}, {}), "")
    table = read_tags(path, index)
    assert table.tiles == (of_first[1], of_first[2])
    assert table.tags.tolist() == [[0, 1], [0, 0]]
    assert table.kept.tolist() == [True, False]
    # A window off the grid stays, and its image keeps its split.
    path.write_text(path.read_text() + "field_1_00003_00005,field_1,3,5,20,20,val,1,1,0\n")
    work = session(images, "--tile", "32")
    number = next(n for n, item in enumerate(work.items) if item.tile == Tile("field_1", 3, 5, 20, 20))
    assert work.row(number).tags == {"road"}
    assert work.row(number - 1).split == "val"
    with pytest.raises(UserError, match=r"is a table of windows: give the size of their grid, e.g. --tile"):
        session(images)


@pytest.mark.parametrize(
    ("splits", "next_split"),
    [
        (["train", "train"], "train"),
        (["val", "val"], "val"),
        (["test", "test"], "test"),
        (["train", "val"], "train"),
        (["val", "train", "val"], "train"),
        (["val", "test"], "train"),
    ],
)
def test_a_new_window_joins_the_split_that_all_windows_of_its_image_share(
    images: Path, splits: list[str], next_split: str
) -> None:
    path = images.parent / "tags.csv"
    corners = ("0,0", "0,24", "8,0")
    rows = [f"field_0,{corner},32,32,{split},1" for corner, split in zip(corners, splits, strict=False)]
    other = "field_1,0,0,32,32,test,1"
    new = Tile("field_0", 8, 24, 32, 32)
    for lines in ([*rows, other], [other, *rows]):
        path.write_text("\n".join(["scene,row,column,height,width,split,road", *lines]))
        work = session(images, "--tile", "32")
        work.set_tags([item.tile for item in work.items].index(new), ["road"])
        assert Table.read(path, windows=True).rows[new].split == next_split


def test_windows_keep_the_classes_that_are_too_small_to_learn(images: Path) -> None:
    path = images.parent / "tags.csv"
    header = "tile,scene,row,column,height,width,split,kept,too_small,road,tree\n"
    row = "field_0_00000_000{},field_0,0,{},32,32,train,1,tree,1,1\n"
    path.write_text(header + row.format("00", 0) + row.format("24", 24))
    work = session(images, "--tile", "32")
    work.set_tags(0, ["tree"])
    assert path.read_text().splitlines() == [
        header.strip(),
        "field_0_00000_00000,field_0,0,0,32,32,train,1,,0,1",
        row.format("24", 24).strip(),
    ]


def test_a_column_of_a_table_of_images_stays_whatever_its_name(images: Path) -> None:
    path = images.parent / "tags.csv"
    path.write_text("image,tags,too_small\nfield_0,road,see Jo\n")
    work = session(images)
    work.set_tags(1, ["road"])
    assert "field_0,road,see Jo" in path.read_text()


def test_a_window_outside_its_image_is_named(images: Path) -> None:
    with pytest.raises(UserError, match=r"window field_0_00030_00000 of 20 x 20 pixels.*has only 40 x 56"):
        windows_of(find_images(images), 32, [Tile("field_0", 30, 0, 20, 20)])


def test_a_window_of_the_table_replaces_that_of_the_grid_with_its_corner(images: Path) -> None:
    first = Tile("field_0", 0, 0, 20, 20)
    tiles = [item.tile for item in windows_of(find_images(images)[:1], 32, [first])]
    assert tiles == [
        first,
        *(Tile("field_0", row, column, 32, 32) for row, column in ((0, 24), (8, 0), (8, 24))),
    ]


def test_a_summary_is_of_the_classes_at_one_moment(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = session(images)
    work.add_class("road")

    class Tags(frozenset[str]):
        """Another thread adds a class while the tags are counted."""

        def __contains__(self, name: object) -> bool:
            if len(work.names) == len(before):
                work.add_class("wall")
            return super().__contains__(name)

    before = work.names
    monkeypatch.setattr(work, "row", lambda _: Row("a", tags=Tags(["road"])))
    assert work.summary()["names"] == before
    assert work.names == (*before, "wall")


# Pictures


def test_pictures_are_what_the_project_would_prepare(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    for number in range(2):
        (folder / f"s{number}.tif").write_bytes(archives.raster(deep(number), nodata=0))
    (tmp_path / "tags.csv").write_text("image,tags\ns0,a\ns1,b\n")
    facts = archives.facts("custom") | {"tags": str(tmp_path / "tags.csv")}
    index = prepare_scenes(folder_layout(facts, folder), folder, tmp_path / "scenes")
    whole = Tile("s1", 0, 0, 40, 56)
    image = find_images(folder)[1]
    prepared = SceneReader(index, display=[1, 2, 3]).display(whole)
    assert np.array_equal(Pictures().pixels(image), prepared)
    shown = SceneReader(index, display=[4, 2, 1]).display(whole)
    pictures = Pictures((4, 2, 1))
    assert np.array_equal(pictures.pixels(image), shown)
    for item in windows_of([image], 24):
        assert item.tile is not None
        window = SceneReader(index, display=[4, 2, 1]).display(item.tile)
        assert np.array_equal(pictures.pixels(item), window)
    with pytest.raises(UserError, match=r"--bands: .*s1.tif has the bands 1 to 4"):
        Pictures((5,)).pixels(image)


def test_other_bands_colour_tables_and_large_images_become_pictures(tmp_path: Path) -> None:
    one, two, indexed = archives.image(0, 1), archives.image(1, 2), archives.image(2, 1)[..., 0]
    (tmp_path / "a.png").write_bytes(archives.raster(one, "PNG"))
    (tmp_path / "b.tif").write_bytes(archives.raster(two))
    table = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    picture = Image.fromarray(indexed)
    picture.putpalette(table.ravel().tolist())
    picture.save(tmp_path / "c.png")
    Image.fromarray(np.repeat(np.arange(3200, dtype=np.uint16)[None] // 20, 4, axis=0).astype(np.uint8)).save(
        tmp_path / "d.png"
    )
    grey, pair, coloured, wide = (Pictures().pixels(item) for item in find_images(tmp_path))
    assert np.array_equal(grey, one.repeat(3, axis=2))
    assert np.array_equal(pair, two[..., [0, 1, 1]])
    assert np.array_equal(coloured, table[indexed])
    assert wide.shape == (2, LONGEST, 3)
    assert np.array_equal(wide[0, :, 0], np.arange(LONGEST) // 10)


# Suggestions


def test_the_most_uncertain_comes_first(images: Path) -> None:
    path = images.parent / "suggestions.csv"
    doubts = {"field_1": 0.2, "field_3": 0.9, "elsewhere": 1.0}
    rows = [(Tile(name, 0, 0, 40, 56), doubt, (0.25, 0.75)) for name, doubt in doubts.items()]
    write_suggestions(path, ["road", "tree"], rows)
    work = session(images, "--suggestions", str(path))
    assert [item.image for item in work.items] == ["field_3", "field_1", "field_0", "field_2"]
    assert work.names == ("road", "tree")
    assert work.suggestions["field_3"] == (0.9, {"road": 0.25, "tree": 0.75})
    with pytest.raises(UserError, match="has no suggestion for these images"):
        session(images, "--suggestions", str(path), "--tile", "32")
    write_suggestions(path, ["road"], [(Tile("field_1", 0, c, 32, 32), 0.5, (0.5,)) for c in (0, 24)])
    with pytest.raises(UserError, match=r"is about windows: give the size of their grid, e\.g\. --tile 32"):
        session(images, "--suggestions", str(path))
    assert session(images, "--suggestions", str(path), "--tile", "32").items[0].tile is not None


# Mistakes on the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "ome tags: nowhere does not exist"),
        (["empty"], "ome tags: no GeoTIFF, PNG or JPEG in empty"),
        *(
            (
                ["images", "--table", f"tags{suffix}"],
                f"tags{suffix} is a spreadsheet, but the page writes CSV",
            )
            for suffix in (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".ODS", ".numbers")
        ),
        (["images", "--table", "empty"], "the table empty is a folder: give a file, e.g. empty/tags.csv"),
        (["images", "--table", "wrong.csv"], "wrong.csv, line 1: no column image"),
        (["images", "--table", "twice.csv"], "twice.csv, line 3: image field_0 is already in line 2"),
        (["images", "--table", "yes.csv"], "yes.csv, line 2: road is 'yes'; give 0 or 1"),
        (["images", "--table", "split.csv"], "split.csv, line 2: split is 'training'"),
        (
            ["images", "--tile", "32", "--table", "good.csv"],
            "good.csv is a table of images: omit --tile",
        ),
        (["images", "--tile", "0"], "size 0 and stride 0 must both be at least 1"),
        (["images", "--suggestions", "no.csv"], "no.csv does not exist: run ome suggest RUN"),
        (["images", "--suggestions", "good.csv"], "good.csv, line 1: no column scene"),
        (["images", "--classes", "a;b"], "cannot have ; in it"),
    ],
)
def test_mistakes_are_one_line(
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(images.parent)
    Path("empty").mkdir()
    for name, text in {
        "wrong": "name,tags\n",
        "good": "image,tags\nfield_0,road\n",
        "twice": "image,tags\nfield_0,road\nfield_0.png,road\n",
        "yes": "image,road\nfield_0,yes\n",
        "split": "image,split,tags\nfield_0,training,road\n",
    }.items():
        Path(f"{name}.csv").write_text(text)
    assert main(arguments) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("sizes of images")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_header_alone_can_be_continued(images: Path) -> None:
    work = session(images, "--classes", "road")
    work.set_tags(0, ["road"])
    work.undo()
    assert written(images) == "image,split,road\n"
    again = session(images)
    assert again.names == ("road",)
    again.set_tags(0, ["road"])
    assert Table.read(images.parent / "tags.csv", windows=False).rows["field_0"].tags == {"road"}


def test_help_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "usage: ome tags" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "wrong", "line"),
    [
        ("--port", "99999", "give a port from 0 to 65535"),
        ("--port", "abc", "give a port from 0 to 65535"),
        ("--port", "-1", "give a port"),
        ("--bands", "x", "give one band or three, e.g. 4,3,2"),
        ("--bands", "1,2", "give one band or three"),
        ("--bands", "0", "give one band or three"),
        ("--range", "5", "give two values from 0 to 65535"),
        ("--range", "9,3", "give two values from 0 to 65535, the lower first"),
        ("--range", "0,99999", "give two values"),
    ],
)
def test_wrong_options_say_what_to_give(option: str, wrong: str, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"argument {option}: '{wrong}': {line}")):
        parser().parse(["images", f"{option}={wrong}"])
