"""Projections of the embeddings, and their plot."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metric_module.report.plots import embedding_map as maps
from tests.helpers.report_runs import items


def test_pca_is_that_of_an_svd() -> None:
    rows = items().embeddings.double()
    plane, share = maps.pca(rows, torch.arange(30))
    centred = rows - rows.mean(dim=0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(plane.abs(), (centred @ axes[:2].T).abs())
    assert share == pytest.approx(float((values[:2] ** 2).sum() / (values**2).sum()))
    assert maps.pca(torch.rand(5, 1), torch.arange(5))[0].shape == (5, 2)


def test_umap_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, n_components: int, n_neighbors: int, random_state: int) -> None:
            assert (n_components, n_neighbors, random_state) == (2, 15, 0)

        def fit_transform(self, rows: Any) -> Any:
            return rows[:, :2]

    rows = torch.rand(20, 4)
    monkeypatch.setattr(maps, "distribution", str)
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    plane = maps.umap(rows)
    assert plane is not None and torch.equal(plane.float(), rows[:, :2])
    assert maps.umap(rows[:3]) is None, "too few for a map"
    monkeypatch.setitem(sys.modules, "umap", None)
    assert maps.umap(rows) is None


def test_a_file_of_that_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    (tmp_path / "umap.py").write_text("raise RuntimeError('it ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.setattr(maps, "distribution", missing)
    assert maps.umap(torch.rand(20, 4)) is None


def test_two_planes_get_a_switch() -> None:
    planes = {"PCA": torch.zeros(3, 2), "UMAP": torch.ones(3, 2)}
    plot = maps.map_plot(planes, [4, 5, 6], [True, False, None])
    assert [trace.name for trace in plot.data] == ["right at rank 1", "wrong at rank 1", "no query"]
    assert [button.label for button in plot.layout.updatemenus[0].buttons] == ["PCA", "UMAP"]
    assert not maps.map_plot({"PCA": torch.zeros(3, 2)}, [4, 5, 6], [True] * 3).layout.updatemenus
