"""The notebook of the docs: executed as it stands, and stored with small outputs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "tour.ipynb"


def read() -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.integration
def test_it_is_stored_with_its_outputs() -> None:
    outputs = [output for cell in read().cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    assert sum(len(base64.b64decode(picture)) for picture in pictures) < 300_000


@pytest.mark.integration
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own cells assert that training helped, and that an indexed image finds itself."""
    nbclient = pytest.importorskip("nbclient")
    notebook = read()
    assert sum("assert " in cell.source for cell in notebook.cells if cell.cell_type == "code") == 3
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
