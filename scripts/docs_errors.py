"""The list of all messages of user errors, from the code."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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
