"""The page of all settings, from the schema and the YAML files."""

import re
from collections.abc import Iterator
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
            yield from _keys(value, lines, f"{name}.")
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
    """All settings: config.yaml, then the options of every group."""
    parts = ["## The main configuration", _table(settings(CONF / "config.yaml"), "")]
    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()}
    for group in (*GROUPS, *sorted(groups - {*GROUPS, *_WITHOUT_OPTIONS})):
        paths = sorted((CONF / group).glob("*.yaml"))
        option = group.removesuffix("/settings")
        parts.append(f"## `{option}=`")
        if option == "stage":
            paths.insert(0, CONF / "stage/all.yaml")
        files = {path: settings(path) for path in paths}
        # A key without a comment has the comment of the same key in another file of the group.
        meanings = {key: meaning for keys in files.values() for key, _, meaning in keys if meaning}
        for path, keys in files.items():
            parts += [f"### `{option}={path.stem}`", file_header(path)]
            if group not in {"experiment", "preset"}:
                explained = [
                    Setting(key, default, meaning or meanings.get(key, "")) for key, default, meaning in keys
                ]
                parts.append(_table(explained, _prefix(path)))
    return "\n\n".join(parts)


def _prefix(path: Path) -> str:
    """The prefix of the keys of a file in their addresses."""
    text = path.read_text(encoding="utf-8")
    if package := re.match(r"# @package ([a-z]\S*)", text):
        return f"{package[1]}."
    if "@package _global_" in text:
        return ""
    group = ".".join(path.parent.relative_to(CONF).parts)
    return f"stage.{path.stem}." if group == "stage.settings" else f"{group}."


def _table(keys: list[Setting], prefix: str) -> str:
    rows = []
    for setting in keys:
        for key, default, comment in _single(setting, prefix):
            if key == "name" and prefix and default != "???":
                continue
            address = f"{prefix}{key}"
            # An entry of a mapping, such as dataset.classes.road, has the meaning of the mapping.
            owner = TYPED.get(max((one for one in TYPED if f"{address}.".startswith(f"{one}.")), default=""))
            takes = expected(TYPED[address]) if address in TYPED else ""
            meaning = owner.meaning if owner and (takes or not comment) else comment
            rows.append(f"| `{address}` | {_code(default)} | {_cell(takes)} | {_cell(meaning)} |")
    return "\n".join(["| key | default | takes | meaning |", "|---|---|---|---|", *rows]) if rows else ""


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


def _code(text: str) -> str:
    shortened = text if len(text) <= 60 else text[:57] + "..."
    return f"`{_cell(shortened)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
