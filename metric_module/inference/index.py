"""Exact search and identification in a set of embedded items.

Shapes: N = items, n = items of a part, Q = queries, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.rerank_methods import Rerank
from metric_module.inference.arguments import (
    Items,
    Labels,
    Neighbours,
    check_labels,
    distance_of,
    item_names,
    threshold_or,
)
from metric_module.inference.embedder import Embedder
from metric_module.inference.reranked import RerankedSearch, one_method
from metric_module.storage.atomic import beside

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1 << 14  # rows of a batch of a file; a shorter part in memory is merged with the next one


class EmbeddingIndex:
    """Embedded items with names and labels, searched exactly, by the routine of the evaluation.

    Everywhere a list is a list of items, which needs an embedder, and a 2-D tensor holds embeddings.

    Args:
        embedder: Embeds items; None if all are given as embeddings.
        distance: The distance; None is that of the embedder.

    Attributes:
        distance: The distance.
        threshold: Distance up to which two items count as the same, or None.

    Raises:
        UserError: If there is neither an embedder nor a distance.
    """

    def __init__(self, embedder: Embedder | None, distance: Distance | None = None) -> None:
        import pyarrow as pa  # slow to import

        chosen = distance if distance is not None or embedder is None else embedder.distance_function
        if chosen is None:
            raise UserError("index: expected an embedder or a distance, got neither")
        self.distance: Distance = chosen
        self.threshold = None if embedder is None else embedder.threshold
        self._embedder = embedder
        self._parts: list[Tensor] = []
        self._mapped = 0  # parts that are not in memory
        self._written_by = embedder  # whose fingerprint belongs to the embeddings; None: that of the file
        self._model: str | None = None
        self._names = self._labels = pa.chunked_array([], pa.string())
        self._reranked: RerankedSearch | None = None

    @classmethod
    def build(cls, embedder: Embedder, items: Items, labels: Labels = None, batch_size: int = 256) -> EmbeddingIndex:
        """Embed items, and keep them in memory.

        Args:
            embedder: Embeds the items; its distance and threshold become those of the index.
            items: The items.
            labels: Class name of each item, None where it has none; None: no item has one.
            batch_size: Number of items that are embedded at once.

        Raises:
            UserError: If an item cannot be read, or the labels do not fit.
        """
        index = cls(embedder)
        index.add(items, labels, batch_size)
        return index

    @classmethod
    def read(cls, path: str | Path, embedder: Embedder | None = None) -> EmbeddingIndex:
        """Read the file that ``task=embed`` or :meth:`write` wrote.

        Embeddings of an Arrow file stay on disk and are mapped; those of Parquet and npz are loaded.

        Args:
            path: The ``.arrow``, ``.parquet`` or ``.npz`` file. It may come from a stranger.
            embedder: Embeds queries. Without it, they must be embeddings, and the distance is the one that the file
                names.

        Raises:
            UserError: If the file is broken, has another model, distance or width than the embedder, or a distance that
                this package does not have.
        """
        from metric_module.storage.embedding_file import read_embeddings

        file = read_embeddings(Path(path))
        distance = distance_of(path, file.distance, embedder)
        if embedder is not None and file.width != embedder.embedding_dim:
            raise UserError(f"{path}: expected {embedder.embedding_dim} numbers as of the embedder, got {file.width}")
        if embedder is not None and file.model not in {None, embedder.fingerprint}:
            raise UserError(f"{path}: expected embeddings of this model, got those of another; write the file again")
        index = cls(embedder, distance)
        index.threshold = file.threshold if index.threshold is None else index.threshold
        index._written_by, index._model = None, file.model
        index._parts, index._names, index._labels = file.parts, file.names, file.labels
        index._mapped = len(file.parts)
        return index

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._names)

    @property
    def names(self) -> list[str]:
        """Name of each item: its path, or its position."""
        return list(self._names.to_pylist())

    @property
    def labels(self) -> list[str | None]:
        """Class name of each item, or None."""
        return list(self._labels.to_pylist())

    @property
    def embeddings(self) -> Tensor:
        """A copy of all embeddings, float32 ``(N, D)``."""
        return torch.cat(self._parts) if self._parts else torch.empty(0, 0)

    def search(self, queries: Items, k: int = 10, rerank: Rerank = None) -> Neighbours:
        """Find the nearest items of each query, exactly; of equal distances, the lower position comes first.

        Args:
            queries: The queries.
            k: Number of neighbours; K is N if there are fewer items.
            rerank: ``k_reciprocal`` or ``query_expansion`` orders the items by the neighbours that they have in the
                index; settings as ``{"k_reciprocal": {"k1": 30}}``. The distances remain those of the pairs, and need
                not ascend. k-reciprocal re-ranking encodes the index at the first search, at most 100,000 items.

        Raises:
            UserError: If a query cannot be read or is not finite, a value of the index is not, or the method does not
                exist or cannot take so many items.
        """
        method = one_method(rerank, "rerank")
        rows = self._embedded(queries)
        if method is None or not len(self):
            return Neighbours(*nearest(rows, self._parts, k, self.distance))
        kept = self._reranked
        if kept is None or (kept.method, kept.size) != (method, len(self)):
            kept = self._reranked = RerankedSearch(self._parts, self.distance, method)
        return kept.search(rows, k)

    def identify(self, queries: Items, threshold: float | None = None) -> list[str | None]:
        """Name each query by the nearest item with a label, or by None if that is too far away.

        Args:
            queries: The queries.
            threshold: The largest distance at which a query is named; None is that of the index.

        Raises:
            UserError: If there is no threshold, no item has a label, or a query cannot be read or is not finite.
        """
        limit = threshold_or(threshold, self.threshold)
        enrolled = torch.tensor(self._labels.is_valid().to_numpy())  # (N,)
        if not bool(enrolled.any()):
            raise UserError("identify: expected items with labels, got none; give labels to build or add")
        # A part is copied only where some of its items have no label.
        masks = zip(self._parts, torch.split(enrolled, [len(part) for part in self._parts]), strict=True)
        parts = [part if bool(mask.all()) else part[mask] for part, mask in masks]
        near = nearest(self._embedded(queries), [part for part in parts if len(part)], 1, self.distance)
        labels = self._labels.drop_null().take(near.positions[:, 0].numpy()).to_pylist()
        return [
            label if far <= limit else None for label, far in zip(labels, near.distances[:, 0].tolist(), strict=True)
        ]

    def add(self, items: Items, labels: Labels = None, batch_size: int = 256) -> None:
        """Embed items, and append them.

        Args:
            items: The items.
            labels: Class name of each item, None where it has none; None: no item has one.
            batch_size: Number of items that are embedded at once.

        Raises:
            UserError: If an item cannot be read, an embedding is not finite, or the labels do not fit.
        """
        import pyarrow as pa

        checked = check_labels(labels, len(items))
        rows = self._embedded(items, batch_size).detach().float().cpu()  # (N, D)
        check_embeddings("embeddings", rows, self._parts[0].shape[1] if self._parts else None)
        names = item_names(self._embedder, items, len(self))
        self._names = pa.chunked_array([*self._names.chunks, pa.array(names, pa.string())])
        self._labels = pa.chunked_array([*self._labels.chunks, pa.array(checked, pa.string())])
        if len(self._parts) > self._mapped and len(self._parts[-1]) < _ROWS:  # many short parts are slow to search
            rows = torch.cat([self._parts.pop(), rows])
        self._parts.append(rows.clone() if isinstance(items, Tensor) else rows)

    def write(self, path: str | Path) -> None:
        """Write the columns and metadata of ``task=embed``: ids are positions, and splits are empty.

        Args:
            path: The ``.arrow``, ``.parquet`` or ``.npz`` file; it appears when it is complete.

        Raises:
            UserError: If the name ends differently, the index is empty, or the file cannot be written.
        """
        from metric_module.storage.embedding_file import check_kind, file_schema, write_batches

        kind = check_kind(Path(path))
        if not self._parts:
            raise UserError(f"{path}: expected at least one item to write, got none")
        model = self._model if self._written_by is None else self._written_by.fingerprint
        schema = file_schema(self._parts[0].shape[1], type(self.distance).__name__, self.threshold, model)
        try:
            with beside(Path(path)) as part:
                write_batches(part, kind, schema, self._batches(schema))
        except OSError as error:
            raise UserError(f"{path}: cannot write the index ({error.strerror or error})") from error

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        number = {label: place for place, label in enumerate(self._labels.drop_null().unique().to_pylist())}
        first = 0
        for rows in (block for part in self._parts for block in torch.split(part, _ROWS)):
            names, labels = (one.slice(first, len(rows)).combine_chunks() for one in (self._names, self._labels))
            ids = pa.array(range(first, first + len(rows)), pa.int64())
            numbers = pa.array([number.get(label, -1) for label in labels.to_pylist()], pa.int64())
            flat = pa.array(rows.numpy().reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
            columns = [names, ids, labels, numbers, pa.nulls(len(rows), pa.string()), vectors]
            yield pa.record_batch(columns, schema=schema)
            first += len(rows)

    def _embedded(self, items: Items, batch_size: int = 256) -> Tensor:
        """Return embeddings ``(N, D)``."""
        if isinstance(items, Tensor):
            return items
        if self._embedder is None:
            raise UserError(
                "index: expected embeddings, a 2-D tensor, as there is no embedder; give one to embed items"
            )
        return self._embedder.embed(items, batch_size=batch_size)
