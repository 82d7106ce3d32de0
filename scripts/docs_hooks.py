"""Generates parts of the documentation: settings (`docs_settings`) and error messages (`docs_errors`).

`python scripts/docs_hooks.py` writes each into the page with the comment `<!-- settings -->` or
`<!-- error lines -->`, from there to the end of the page. A test checks that the pages are up to date.

mkdocs calls the functions `on_...` (see `mkdocs.yml`). Equations are written as on GitHub: a fenced block
`math`, or inline between $` and `$.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs_errors import error_lines
from docs_settings import settings_tables
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = ROOT / "notebooks"

_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*stylesheet)[^>]*\bhref=["']?(?:https?:)?//[^>]*>"""
    # The theme would download a script for these.
    r"""|<pre class=["']?mermaid[^>]*>"""
)


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


_TABLES: dict[str, Callable[[], str]] = {
    "<!-- settings -->": settings_tables,
    "<!-- error lines -->": error_lines,
}

if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (current := filled(text)) != text:
            page.write_text(current, encoding="utf-8")
