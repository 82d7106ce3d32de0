"""The page of all settings, from the schema and the YAML files."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from ome.config.schema import Settings
from ome.config.schema.hints import addresses, expected

CONF = Path(__file__).resolve().parents[1] / "ome" / "conf"
GROUPS = (
    "stage/settings",
    "dataset",
    "backbone",
    "classifier",
    "optimizer",
    "crf",
    "segmenter",
    "segmenter/recipe",
    "trainer",
    "logger",
)
"""Configuration groups in the order of the page; all others follow."""

TYPED = dict(addresses(Settings))
"""Type and meaning of each setting, by its address."""

WHOLE = ("classes", "ignored")
"""Mappings of a dataset that are one row, however many entries they have."""

_WITHOUT_OPTIONS = {"stage", "__pycache__"}


class Setting(NamedTuple):
    """A key of a YAML file.

    Attributes:
        key: Dotted, as in the file.
        default: Its value as in the file.
        meaning: The comment beside or above it.
    """

    key: str
    default: str
    meaning: str


class Row(NamedTuple):
    """A row of a table: a setting by its address, what it takes and means."""

    address: str
    default: str
    takes: str
    meaning: str


def file_header(path: Path) -> str:
    """The comment at the start of a YAML file as one paragraph; commands in it keep their lines."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    commands = [line for line in lines if line.startswith("  ")]
    text = " ".join(line for line in lines if not line.startswith("  "))
    return text + ("\n\n```\n" + "\n".join(line.strip() for line in commands) + "\n```" if commands else "")


def settings(path: Path) -> list[Setting]:
    """The keys of a YAML file with their comments, without those of its defaults list."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return []
    return list(_keys(root, text.splitlines(), ""))


def _keys(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Setting]:
    for key, value in node.value:
        if not prefix and key.value in {"defaults", "hydra"}:
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
            inner = list(_keys(value, lines, f"{name}."))
            entries = ", ".join(f"{one.key.removeprefix(f'{name}.')}: {one.default}" for one in inner)
            yield from [Setting(name, f"{{{entries}}}", "")] if name in WHOLE else inner
            continue
        first, last = value.start_mark, value.end_mark
        shown = " ".join(
            line[first.column if row == first.line else 0 : last.column if row == last.line else None].strip()
            for row, line in enumerate(lines[first.line : last.line + 1], first.line)
        )
        beside = lines[last.line][last.column :].partition("#")[2].strip()
        yield Setting(name, shown.strip(), beside or _above(lines, key.start_mark.line))


def _above(lines: list[str], row: int) -> str:
    """The comment directly above a key, unless it is that at the start of the file."""
    comment: list[str] = []
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        comment.insert(0, lines[row].lstrip("# "))
    return " ".join(comment) if row > 0 else ""


def settings_tables() -> str:
    """All settings: config.yaml, then every group, what its options share before what each has otherwise."""
    parts = ["## The main configuration", _table(_rows(CONF / "config.yaml", {}).values())]
    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()}
    for group in (*GROUPS, *sorted(groups - {*GROUPS, *_WITHOUT_OPTIONS})):
        paths = sorted((CONF / group).glob("*.yaml"))
        option = group.removesuffix("/settings")
        if option == "stage":
            paths.insert(0, CONF / "stage/all.yaml")
        # A key without a comment has the comment of the same key in another file of the group.
        meanings = {key: meaning for path in paths for key, _, meaning in settings(path) if meaning}
        is_listed = group not in {"experiment", "preset"}
        options = {path: _rows(path, meanings) if is_listed else {} for path in paths}
        shared = _shared([*options.values()])
        parts += [f"## `{option}=`", _table(shared.values())]
        for path, rows in options.items():
            own = [row for address, row in rows.items() if address not in shared]
            other = [
                row._replace(takes="", meaning="")
                for address, row in rows.items()
                if address in shared and row.default != shared[address].default
            ]
            parts += [f"### `{option}={path.stem}`", file_header(path), _table([*other, *own])]
    return "\n\n".join(filter(None, parts))


def _shared(options: list[dict[str, Row]]) -> dict[str, Row]:
    """The settings that several options have, with the most common default if each option has one."""
    shared = {}
    for address, row in {address: row for rows in options for address, row in rows.items()}.items():
        absent = row._replace(default="null" if row.takes.endswith(", or null") else "")
        (common, _), *_ = Counter(rows.get(address, absent).default for rows in options).most_common()
        having = sum(address in rows for rows in options)
        if having > 1:
            is_of_all = having == len(options) or common == "null"
            shared[address] = row._replace(default=common if is_of_all else "")
    return shared


def _prefix(path: Path) -> str:
    """The prefix of the keys of a file in their addresses."""
    text = path.read_text(encoding="utf-8")
    if package := re.match(r"# @package ([a-z]\S*)", text):
        return f"{package[1]}."
    if "@package _global_" in text:
        return ""
    group = ".".join(path.parent.relative_to(CONF).parts)
    return f"stage.{path.stem}." if group == "stage.settings" else f"{group}."


def _rows(path: Path, meanings: Mapping[str, str]) -> dict[str, Row]:
    """The settings of a file by address, and those of the files of its group that it changes."""
    rows: dict[str, Row] = {}
    for base in map(str, (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])):
        # Of the same group: `sgd`, or `/dataset/potsdam@dataset` where a file is for several groups.
        group, _, name = base.partition("@")[0].rpartition("/")
        if group in {"", f"/{path.parent.name}"} and path.with_name(f"{name}.yaml").exists():
            rows |= _rows(path.with_name(f"{name}.yaml"), meanings)
    prefix = _prefix(path) if path.parent != CONF else ""
    for setting in settings(path):
        for key, default, comment in _single(setting, prefix):
            if key == "name" and prefix and default != "???":
                continue
            address = f"{prefix}{key}"
            # An entry of a mapping, such as dataset.images.rgb, has the meaning of the mapping.
            owner = TYPED.get(max((one for one in TYPED if f"{address}.".startswith(f"{one}.")), default=""))
            takes = expected(TYPED[address]) if address in TYPED else ""
            meaning = comment or meanings.get(setting.key, "")
            meaning = owner.meaning if owner and (takes or not meaning) else meaning
            rows[address] = Row(address, default, takes, meaning)
    return rows


def _table(rows: Iterable[Row]) -> str:
    lines = [
        f"| `{row.address}` | {_code(row)} | {_cell(row.takes)} | {_cell(row.meaning)} |" for row in rows
    ]
    return "\n".join(["| key | default | takes | meaning |", "|---|---|---|---|", *lines]) if lines else ""


def _single(setting: Setting, prefix: str) -> Iterator[Setting]:
    """The settings of a group that a file writes on one line, such as `tile: {size: 256, stride: 128}`."""
    values = yaml.safe_load(setting.default)
    group = any(address.startswith(f"{prefix}{setting.key}.") for address in TYPED)
    if not (group and isinstance(values, dict)):
        yield setting
        return
    for name, value in values.items():
        shown = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
        yield from _single(Setting(f"{setting.key}.{name}", shown, setting.meaning), prefix)


def _code(row: Row) -> str:
    is_whole = len(row.default) <= 60 or row.address.removeprefix("dataset.") in WHOLE
    shown = row.default if is_whole else row.default[:57] + "..."
    return f"`{_cell(shown)}`" if shown else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
