"""Generates parts of the documentation: settings from schema and YAML, error messages from the code.

`python scripts/docs_hooks.py` writes each into the page with the comment `<!-- settings -->` or
`<!-- error lines -->`, from there to the end of the page. A test checks that the pages are up to date.

mkdocs calls the functions `on_...` (see `mkdocs.yml`). Equations are written as on GitHub: a fenced block
`math`, or inline between $` and `$.
"""

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from latex2mathml.converter import convert

from ome.config.schema import Settings
from ome.config.schema.hints import addresses, expected

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = ROOT / "notebooks"
CONF = ROOT / "ome" / "conf"
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

_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*stylesheet)[^>]*\bhref=["']?(?:https?:)?//[^>]*>"""
    # The theme would download a script for these.
    r"""|<pre class=["']?mermaid[^>]*>"""
)


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


def on_page_markdown(markdown: str, **_others: Any) -> str:  # noqa: ANN401 - fixed by mkdocs
    """Turns the equations of a page into MathML, and links to notebooks into HTML.

    In strict mode mkdocs refuses links to files that are not pages; `on_post_build` copies the notebooks.
    """
    markdown = re.sub(r"\[([^\]]+)\]\((\.\./notebooks/\w+\.ipynb)\)", r'<a href="\2">\1</a>', markdown)
    markdown = re.sub(
        r"```math\n(.+?)\n```", lambda match: convert(match[1], display="block"), markdown, flags=re.DOTALL
    )
    # In a span, since an unknown element at the start of a line would become a separate paragraph.
    return re.sub(r"\$`(.+?)`\$", lambda match: f"<span>{convert(match[1])}</span>", markdown)


def filled(markdown: str) -> str:
    """A page with its generated part, if it has one, up to date."""
    for mark, table in _TABLES.items():
        before, separator, _ = markdown.partition(mark)
        if separator:
            return f"{before}{mark}\n\n{table().strip()}\n"
    return markdown


def on_post_build(config: Any, **_others: Any) -> None:  # noqa: ANN401 - fixed by mkdocs
    """Copies the notebooks into the site, where the page about them links to."""
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, Path(config["site_dir"]) / "notebooks" / notebook.name)


def on_post_page(output: str, **_others: Any) -> str:  # noqa: ANN401 - fixed by mkdocs
    """Checks that a page loads nothing from other hosts.

    Raises:
        ValueError: It does.
    """
    if address := _ELSEWHERE.search(output):
        raise ValueError(f"a page of the documentation loads from another host: {address[0]}")
    return output


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


def error_lines() -> str:
    """All messages of user errors by module, with variable parts in angle brackets."""
    parts = []
    for path in sorted((ROOT / "ome").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        raised = [_raised(node).replace("`", "'") for node in ast.walk(tree)]
        # Messages that consist of variable parts only are defined elsewhere.
        lines = [f"- `{line}`" for line in dict.fromkeys(raised) if re.sub("<[^>]*>", "", line).strip()]
        if lines:
            parts += [f"### `{path.relative_to(ROOT)}`", "", *lines, ""]
    return "\n".join(parts)


@cache
def _errors() -> set[str]:
    """Names of the classes of user errors: the first, and all that are derived from it."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ome").rglob("*.py"))
    return {"UserError", *re.findall(r"^class (\w+)\(UserError\)", code, re.MULTILINE)}


def _raised(node: ast.AST) -> str:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _errors()):
        return ""
    return _template(node.args[0]) if node.args else ""


def _template(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_template(value) for value in values)
        case ast.FormattedValue(value=value):
            return f"<{_word(value)}>"
        case _:
            return f"<{_word(node)}>"


def _word(node: ast.expr) -> str:
    """The placeholder of a value in a message: its name in the code."""
    match node:
        case (
            ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name)))
        ):
            word = name.strip("_").replace("_", " ").lower()
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.GeneratorExp(elt=value):
            word = _word(value)
        case ast.Call(func=ast.Name(id="len"), args=[value, *_]):
            word = f"number of {_word(value)}"
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[value, *_]):
            word = f"{_word(value)}, ..."
        case ast.Call(func=ast.Name(id="getattr")):
            word = "value"
        case ast.Call(args=[value, *_]) | ast.Call(func=value):
            word = _word(value)
        case _:
            word = "value"
    return word


_TABLES: dict[str, Callable[[], str]] = {
    "<!-- settings -->": settings_tables,
    "<!-- error lines -->": error_lines,
}

if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (current := filled(text)) != text:
            page.write_text(current, encoding="utf-8")
