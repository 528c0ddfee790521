"""Search and identification in a Milvus collection, for more items than one machine holds.

Shapes: N = items, Q = queries, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import EuclideanForm
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import form_or_copy
from metric_module.inference.arguments import Items, Labels, Neighbours, check_labels, item_names, threshold_or
from metric_module.inference.embedder import Embedder

_ROWS = 1000  # rows of one request


class MilvusIndex:
    """Embedded items in a Milvus collection, with the methods of an ``EmbeddingIndex``.

    The index type is FLAT: every item is compared, in float32. Rows are stored so that the metric L2 gives the
    distance. Items may be added by one process at a time.

    Args:
        uri: Path of a local file that ends with ``.db`` (milvus-lite), or the address of a cluster.
        embedder: Embeds items; its distance is Euclidean, SquaredEuclidean, Cosine or another with a Euclidean form.
        collection: Name of the collection; it is created if it does not exist.

    Raises:
        UserError: If Milvus cannot be reached, the distance has no Euclidean form, or the collection was made for
            another distance or width.
    """

    def __init__(self, uri: str, embedder: Embedder, collection: str = "embeddings") -> None:
        name = type(embedder.distance_function).__name__
        form = form_or_copy(embedder.distance_function, torch.device("cpu"))
        if not isinstance(form, EuclideanForm):
            allowed = "expected distance Euclidean, SquaredEuclidean, Cosine or one with a Euclidean form"
            raise UserError(f"MilvusIndex: {allowed}, got {name}")
        try:
            from pymilvus import DataType, MilvusClient
        except ImportError as error:
            raise UserError("MilvusIndex needs pymilvus: pip install 'lightning-triplets[milvus]'") from error
        self.threshold, self.distance = embedder.threshold, embedder.distance_function
        self._form, self._embedder, self._uri, self._collection = form, embedder, uri, collection
        self._field = f"embedding_{name}"  # so that a collection tells which distance it was made for
        with self._reported():
            # Pings of an idle client make the server of a local file close the connection, and gRPC prints that.
            options = {"grpc.keepalive_permit_without_calls": not uri.endswith(".db")}
            self._client = client = MilvusClient(uri, grpc_options=options)
            if not client.has_collection(collection):
                schema = client.create_schema(auto_id=False)
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field(self._field, DataType.FLOAT_VECTOR, dim=embedder.embedding_dim)
                schema.add_field("name", DataType.VARCHAR, max_length=65535)
                schema.add_field("label", DataType.VARCHAR, max_length=65535, nullable=True)
                how = client.prepare_index_params()
                how.add_index(field_name=self._field, index_type="FLAT", metric_type="L2")
                client.create_collection(collection, schema=schema, index_params=how, consistency_level="Strong")
            found = client.describe_collection(collection)
            client.load_collection(collection)
        expected = {self._field: embedder.embedding_dim}
        got = {field["name"]: field["params"]["dim"] for field in found["fields"] if "dim" in field["params"]}
        if got != expected:
            raise UserError(f"{uri}: expected {expected} as of the embedder in collection {collection}, got {got}")

    @classmethod
    def build(
        cls, embedder: Embedder, items: Items, labels: Labels = None, *, uri: str, collection: str = "embeddings"
    ) -> MilvusIndex:
        """Embed items, and put them into a new collection; see ``EmbeddingIndex.build``.

        Raises:
            UserError: If the collection has items already, an item cannot be read, or the labels do not fit.
        """
        index = cls(uri, embedder, collection)
        if len(index):
            raise UserError(f"{uri}: collection {collection} has {len(index)} items; use add, or another collection")
        index.add(items, labels)
        return index

    def __len__(self) -> int:
        """Return the number of items."""
        with self._reported():
            return int(self._client.query(self._collection, output_fields=["count(*)"])[0]["count(*)"])

    @property
    def names(self) -> list[str]:
        """Name of each item: its path, or its position."""
        return self._column("name")

    @property
    def labels(self) -> list[str | None]:
        """Class name of each item, or None."""
        return self._column("label")

    def search(self, queries: Items, k: int = 10) -> Neighbours:
        """Find the nearest items of each query, to the rounding of float32, without re-ranking."""
        if k < 1:
            raise UserError(f"k: expected 1 or more neighbours, got {k}")
        return self._nearest(queries, k)[0]

    def identify(self, queries: Items, threshold: float | None = None) -> list[str | None]:
        """Name each query by the nearest item with a label, or by None; see ``EmbeddingIndex.identify``."""
        limit = threshold_or(threshold, self.threshold)
        near, labels = self._nearest(queries, 1, filter="label is not null")
        if not all(labels):
            raise UserError("identify: expected items with labels, got none; give labels to build or add")
        return [
            row[0] if far <= limit else None for row, far in zip(labels, near.distances[:, 0].tolist(), strict=True)
        ]

    def add(self, items: Items, labels: Labels = None, batch_size: int = 256) -> None:
        """Embed items, and append them; see ``EmbeddingIndex.add``."""
        first, checked = len(self), check_labels(labels, len(items))
        rows, names = self._rows("embeddings", items, batch_size).tolist(), item_names(self._embedder, items, first)
        columns = zip(range(first, first + len(rows)), rows, names, checked, strict=True)
        data = [dict(zip(("id", self._field, "name", "label"), row, strict=True)) for row in columns]
        with self._reported():
            for start in range(0, len(data), _ROWS):
                self._client.insert(self._collection, data[start : start + _ROWS])

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _rows(self, name: str, items: Items, batch_size: int = 256) -> Tensor:
        """Return the rows ``(N, D)`` that Milvus compares, in float32."""
        rows = items if isinstance(items, Tensor) else self._embedder.embed(items, batch_size=batch_size)
        check_embeddings(name, rows, self._embedder.embedding_dim)
        return self._form.map(rows.detach().cpu()).float()

    def _nearest(self, queries: Items, count: int, **options: Any) -> tuple[Neighbours, list[list[str | None]]]:
        """Return the neighbours of queries, and their labels."""
        hits: list[list[dict[str, Any]]] = []
        settings = {"limit": count, "output_fields": ["label"], "anns_field": self._field, **options}
        with self._reported():
            for part in torch.split(self._rows("queries", queries), _ROWS):
                hits += self._client.search(self._collection, data=part.tolist(), **settings)
        hits = [sorted(row, key=lambda hit: (hit["distance"], hit["id"])) for row in hits]
        squared = torch.tensor([[hit["distance"] for hit in row] for row in hits], dtype=torch.float64)  # (Q, K)
        positions = torch.tensor([[hit["id"] for hit in row] for row in hits], dtype=torch.int64)  # (Q, K)
        found = Neighbours(self._form.of(squared.clamp(min=0).sqrt()), positions)
        return found, [[hit["entity"]["label"] for hit in row] for row in hits]

    def _column(self, name: str) -> list[Any]:
        found: dict[int, Any] = {}
        with self._reported():
            rows = self._client.query_iterator(self._collection, batch_size=_ROWS, output_fields=["id", name])
            while page := rows.next():
                found |= {row["id"]: row[name] for row in page}
        return [found[place] for place in sorted(found)]

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn an error of Milvus into one line."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            raise UserError(f"{self._uri}: {error.message.splitlines()[0]}") from error
