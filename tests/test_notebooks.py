"""The notebooks are valid, carry no outputs (which could show scans), and read entries of the catalog."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_code_compiles_outputs_are_empty_and_entries_exist(notebook: Path) -> None:
    cells = [
        cell
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    loaded = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "load"
        and isinstance(call.args[0], ast.Constant)
    }
    entries = {
        entry
        for file in (REPOSITORY / "conf" / "base").glob("catalog*.yml")
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))
    }
    assert loaded
    assert loaded <= entries


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
