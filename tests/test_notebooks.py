"""The notebooks of the documentation run as they stand, and are kept without their output."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "notebooks"
PICTURES = {"method": 10, "uncertainty": 3, "your_tags": 3}


def test_notebooks_are_kept_without_output() -> None:
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in FOLDER.glob("*.ipynb")}
    assert set(notebooks) == set(PICTURES)
    for notebook in notebooks.values():
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_what_notebooks_import_exists() -> None:
    """In a second, where running them takes a minute."""
    for path in FOLDER.glob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        code = "\n".join(line for cell in cells for line in cell.splitlines() if line[:1] not in "%!")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.slow
def test_notebooks_run_and_show_their_pictures(tmp_path: Path) -> None:
    # One kernel for all: it takes longer to import torch than to run a notebook.
    together = nbformat.v4.new_notebook()
    for name in PICTURES:
        together.cells.append(nbformat.v4.new_code_cell("%reset -f", metadata={"name": name}))
        together.cells += nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    nbclient.NotebookClient(
        together, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = dict.fromkeys(PICTURES, 0)
    printed = dict.fromkeys(PICTURES, "")
    for cell in together.cells:
        name = cell.metadata.get("name", name)
        for output in cell.get("outputs", []):
            shown[name] += "image/png" in output.get("data", {})
            printed[name] += output.get("text", "")
    assert shown == PICTURES
    assert "error: " in printed["your_tags"]
    assert "shore 9.png" in printed["your_tags"]
    assert "[0, 28, 113, 255]" in printed["uncertainty"]
