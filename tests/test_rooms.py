"""The house: imports point downwards from room to room, in no circle, and no room holds too much."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ome

PACKAGE = Path(ome.__file__).parent

FLOORS = (
    ("run", "__main__", "cli"),
    ("stages", "api"),
    ("config",),
    ("report", "tagging"),
    ("inference",),
    ("training",),
    ("tracking",),
    ("pipeline",),
    ("synthetic", "pseudo", "networks"),
    ("data", "plots"),
    ("crf", "geo", "scoring"),
    ("compiled", "distributed"),
    ("arguments", "damage", "extras", "faults", "files", "memory", "plugins", "progress"),
    ("errors", "ignore"),
)
"""From the top of the house to its ground, as in docs/architecture.md."""

LARGEST = 0.15
"""Part of all lines that a room may hold."""

FLOOR_OF = {room: -level for level, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: Path) -> str:
    """The folder of a module, or its own name where it lies in none."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(module: Path, text: str | None = None) -> Iterator[str]:
    """The dotted names that a module imports from the package, wherever in it the import stands."""
    place = ("ome", *module.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(text or module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = place[: len(place) - node.level] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "ome":
                yield from (f"{source}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "ome")
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            # A name that is put together is not known here: that of a stage, which the registry looks up.
            and isinstance(target := node.args[0], ast.Constant)
            and target.value.split(".")[0] == "ome"
        ):
            yield target.value


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import ome.stages.cam", "ome.stages.cam"),
        ("from ome import stages", "ome.stages"),
        ("from ome.stages.cam import STAGE", "ome.stages.cam.STAGE"),
        ("from ..stages.cam import STAGE", "ome.stages.cam.STAGE"),
        ("from .mosaic import Mosaic", "ome.geo.mosaic.Mosaic"),
        ("from . import mosaic", "ome.geo.mosaic"),
        ("def f():\n    from ..stages import cam", "ome.stages.cam"),
        ("import_module('ome.stages')", "ome.stages"),
        ("importlib.import_module('ome')", "ome"),
    ],
)
def test_every_spelling_of_an_import_is_seen(line: str, name: str) -> None:
    assert list(imported(PACKAGE / "geo/grid.py", line)) == [name]


def arrows() -> list[tuple[Path, str]]:
    return [(module, name) for module in MODULES for name in imported(module)]


def test_no_module_imports_the_face_of_the_package() -> None:
    assert [module for module, name in arrows() if name in {"ome", "ome.__version__"}] == []


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room_of(module) for module in MODULES} - {"conf"}
    assert rooms == set(FLOOR_OF)


def test_no_import_points_upwards() -> None:
    upwards = [
        f"{module.relative_to(PACKAGE)} imports {name}"
        for module, name in arrows()
        if name.split(".")[1] in FLOOR_OF and FLOOR_OF[name.split(".")[1]] > FLOOR_OF[room_of(module)]
    ]
    assert upwards == []


def test_rooms_of_one_floor_import_each_other_one_way_only() -> None:
    pairs = {(room_of(module), name.split(".")[1]) for module, name in arrows()}
    assert [pair for pair in pairs if pair[0] != pair[1] and pair[::-1] in pairs] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {".".join(["ome", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in MODULES}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for target in imported(path):
            source = target if target in names else target.rpartition(".")[0]
            if source in names and source != name:
                graph[name].add(source)
    while free := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in free:
            del graph[name]
    assert sorted(graph) == []


@pytest.mark.parametrize("stage", sorted((PACKAGE / "stages").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_no_stage_imports_another(stage: Path) -> None:
    assert [name for name in imported(stage) if name.startswith("ome.stages")] == []


def test_every_module_of_the_stages_is_a_stage() -> None:
    from ome.pipeline.registry import SIDE_STAGES, STAGES  # noqa: PLC0415

    assert {path.stem for path in (PACKAGE / "stages").glob("[a-z]*.py")} == {*STAGES, *SIDE_STAGES}


def test_no_room_holds_more_than_its_part() -> None:
    lines: dict[str, int] = {}
    for module in MODULES:
        lines[room_of(module)] = lines.get(room_of(module), 0) + len(module.read_text("utf-8").splitlines())
    total = sum(lines.values())
    assert {room: count for room, count in lines.items() if count > LARGEST * total} == {}
