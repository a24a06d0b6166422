"""The quick-start notebook runs from top to bottom, and is kept without outputs."""

import json
import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "quickstart.ipynb"


def cells():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs():
    assert len(cells()) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())
    assert NOTEBOOK.stat().st_size < 20_000


def test_its_code_runs_and_says_what_its_text_promises(monkeypatch, capsys, tmp_path):
    """The same code in this process: no kernel is needed, and names are those of one notebook."""
    import matplotlib

    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells()):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["attacked"] < names["info"]["initial_dice"] - 0.2
    assert names["defended"] > names["attacked"]
    assert (280.0, 160.0) in [verdict.point for verdict in names["cleaned"].removed]
    assert "reward" in capsys.readouterr().out


def test_it_runs_in_a_real_kernel(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(NOTEBOOK.parents[2])})
    pictures = [
        out
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        if "image/png" in out.get("data", {})
    ]
    assert len(pictures) == 2
