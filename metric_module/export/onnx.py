"""Export of an encoder to ONNX, compared with the encoder itself before it is kept.

Legend: B = inputs of a batch, N = inputs of all batches, D = embedding size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from metric_module.config.messages import one_line
from metric_module.errors import UserError
from metric_module.export.hugging_face import described
from metric_module.inference import Embedder

BATCHES = (1, 7, 64)
"""Sizes B at which ONNX Runtime is compared with the encoder."""

TOLERANCE = 1e-5
"""Largest error of a number, as a fraction of the length of its embedding."""


def write_onnx(embedder: Embedder, path: Path) -> None:
    """Write an encoder as one ONNX file, for any batch size, with its scaling to unit length.

    The input ``inputs`` is ``(B, ...)`` as the preprocessing makes it, the output ``embeddings`` is float32 ``(B, D)``.
    The metadata are ``preprocessing`` (``size``, ``mean``, ``std`` and others), ``embedding_dim``, ``distance``,
    ``threshold`` and ``version``, each as JSON. The error is relative to the length of an embedding.

    Args:
        embedder: A trained encoder whose inputs are tensors of one shape.
        path: The file.

    Raises:
        UserError: If a package is missing, the encoder takes other inputs or cannot be exported, or ONNX Runtime gives
            other embeddings.
    """
    encoder, name, inputs = embedder.encoder, type(embedder.encoder).__name__, _random_inputs(embedder)
    try:
        import onnxruntime

        example, shapes = (inputs[:2].to(embedder.device),), ({0: torch.export.Dim("batch")},)
        names: dict[str, Any] = {"input_names": ["inputs"], "output_names": ["embeddings"]}
        program: Any = torch.onnx.export(encoder, example, dynamic_shapes=shapes, dynamo=True, verbose=False, **names)
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # paths and lines of source code
        program.model.metadata_props.update({key: json.dumps(value) for key, value in described(embedder).items()})
        program.save(path, external_data=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(None, {"inputs": inputs[:rows].numpy()})[0]) for rows in BATCHES]
    except Exception as error:  # each step of the exporter raises other kinds
        hint = "; pip install 'lightning-triplets[onnx]'" if isinstance(error, ImportError) else ""
        reason = one_line(error.__cause__ or error) or type(error).__name__
        raise UserError(f"task.format=onnx: {name} cannot be exported: {reason}{hint}") from error
    wanted = torch.cat([embedder.embed(inputs[:rows]) for rows in BATCHES])  # (N, D)
    worst = float(((torch.cat(found) - wanted).abs().amax(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)).max())
    if not worst <= TOLERANCE:
        raise UserError(f"task.format=onnx: error of ONNX: expected at most {TOLERANCE:.0e}, got {worst:.1e} ({name})")


def _random_inputs(embedder: Embedder) -> torch.Tensor:
    """Return random inputs for the largest batch, ``(B, ...)``, on the CPU; integers are 0 and 1."""
    how = embedder.preprocessing
    size, channels = getattr(how, "size", None), getattr(how, "channels", None)
    shape = getattr(how, "shape", (size,) if channels is None else (channels, size, size))
    if None in shape:
        raise UserError(f"task.format=onnx: expected inputs of a known shape, got {how}; give task.format=hugging_face")
    numbers = 3 * torch.rand(max(BATCHES), *shape, generator=torch.Generator().manual_seed(0)) - 1  # (B, ...)
    return numbers.to(getattr(torch, getattr(how, "dtype", ""), torch.float32))
