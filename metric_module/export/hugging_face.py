"""Export of a trained encoder as a folder of Hugging Face or sentence-transformers, and its upload to the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Template
from torch import nn

from metric_module.config.messages import one_line
from metric_module.encoders.text import TextEncoder, quiet
from metric_module.errors import UserError
from metric_module.inference import Embedder
from metric_module.inference.trained import CONFIG, INSIDE, WEIGHTS, without_weights
from metric_module.report.closed_set import titled
from metric_module.storage.atomic import without_nan
from metric_module.storage.weights import save_tensors
from metric_module.version import __version__


def write_folder(embedder: Embedder, folder: Path) -> None:
    """Write a trained encoder as a folder that :meth:`Embedder.load` reads: weights, ``config.json``, a model card.

    There is no code in it. The pretrained model of a :class:`metric_module.encoders.TextEncoder` is copied, with its
    trained weights, to the folder ``transformer`` in it.

    Args:
        embedder: An encoder that :meth:`Embedder.load` loaded.
        folder: The folder, which is created.

    Raises:
        UserError: If the arguments of the encoder are not known, as it was built in Python, or a file cannot be
            written.
    """
    if embedder.config is None:
        raise UserError("export: expected an embedder of Embedder.load, got one without config, built in Python")
    encoder, node = embedder.encoder, without_weights(embedder.config["encoder"])
    if isinstance(encoder, TextEncoder):
        with quiet():
            encoder.transformer[0].save(str(folder / "transformer"))
        node |= {"model": f"{INSIDE}transformer", "pooling": encoder.pooling, "max_length": encoder.max_length}
    parts = nn.ModuleDict({"encoder": encoder, "distance": embedder.distance_function})
    save_tensors(parts, folder / WEIGHTS, {"format": "pt"})
    about = described(embedder) | {"config": embedder.config | {"encoder": node}, "figures": embedder.figures}
    (folder / CONFIG).write_text(json.dumps(without_nan(about), indent=2) + "\n", encoding="utf-8")
    _write_card(embedder, folder, "lightning-triplets")


def write_sentence_transformers(embedder: Embedder, folder: Path) -> None:
    """Write a text encoder as modules of sentence-transformers: transformer, pooling, head and scaling, if any.

    Args:
        embedder: An encoder of the class :class:`metric_module.encoders.TextEncoder`.
        folder: The folder, which is created.

    Raises:
        UserError: If the encoder is of another class.
    """
    encoder = embedder.encoder
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"task.format=sentence_transformers: expected a TextEncoder, got {type(encoder).__name__}")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    encoder.transformer[0].max_seq_length = encoder.max_length
    linear: Any = getattr(encoder.head, "linear", None)
    head = [Dense(linear.in_features, linear.out_features, True, None, linear.weight, linear.bias)] if linear else []
    modules = [*encoder.transformer, encoder.pool, *head, *([Normalize()] if encoder.normalize else [])]
    with quiet():
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    _write_card(embedder, folder, "sentence-transformers")


def push_to_hub(folder: str | Path, repo_id: str, private: bool = True) -> str:
    """Upload an exported folder to the Hugging Face hub, as the user who is logged in there.

    Args:
        folder: The folder.
        repo_id: Name of the repository, ``user/name``; it is created if there is none.
        private: Whether a new repository is private.

    Returns:
        Address of the upload.

    Raises:
        UserError: If the upload fails.
    """
    from huggingface_hub import HfApi  # timm needs it too

    try:
        repo = HfApi().create_repo(repo_id, private=private, exist_ok=True).repo_id
        return str(HfApi().upload_folder(repo_id=repo, folder_path=folder))
    except (OSError, ValueError, RuntimeError) as error:  # the network, the hub and invalid names
        raise UserError(f"task.push: cannot upload {folder} to {repo_id}: {one_line(error)}") from error


def described(embedder: Embedder) -> dict[str, Any]:
    """Return how embeddings are made and compared, as plain values for the files of an export.

    Args:
        embedder: The trained encoder.
    """
    how = embedder.preprocessing and json.loads(embedder.preprocessing.to_json())
    about = {"version": __version__, "embedding_dim": embedder.embedding_dim, "threshold": embedder.threshold}
    return {**about, "distance": type(embedder.distance_function).__name__, "preprocessing": how}


def _write_card(embedder: Embedder, folder: Path, library: str) -> None:
    """Write ``README.md`` for the library that loads the folder."""
    source = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    values = {"embedder": embedder, "library": library, "titled": titled, **described(embedder)}
    text = Template(source, trim_blocks=True).render(values)
    (folder / "README.md").write_text(text + "\n", encoding="utf-8")
