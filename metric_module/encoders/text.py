"""Encoder for texts from a pretrained transformer of Hugging Face or sentence-transformers.

Legend: B texts, T tokens of the longest of them, H size of the model's features, D embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.distributed import is_sharded
from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.check_inputs import check_texts
from metric_module.encoders.lengths import encode_by_length
from metric_module.encoders.pretrained import freeze
from metric_module.encoders.text_folder import POOLINGS, TextFolder, find_model, read_folder
from metric_module.errors import UserError
from metric_module.functional import at_least_float32, unit


class TextEncoder(Encoder):
    """A transformer over the tokens of each text, pooled to one vector, and optionally a linear head.

    Takes a folder that ``save_pretrained`` of a model and its tokenizer wrote, or one of sentence-transformers, whose
    pooling and maximum length it uses. Weights are read from safetensors only, and no code that comes with a model is
    run. :meth:`forward` tokenizes, so the inputs of a batch are ``list[str]``. Texts of similar length go through the
    model together.

    Args:
        model: The folder; ``package:name/path`` is a folder inside an installed package; a name that is not a folder is
            downloaded from the Hugging Face hub.
        embedding_dim: Size D of an embedding, by a linear head with random initial weights. None keeps the model's own
            size H, without a head.
        normalize: Whether embeddings have length one.
        pooling: ``mean`` over the tokens, ``cls`` for the first token, or ``max``. None: as the folder says, else
            ``mean``.
        max_length: Maximum number of tokens of a text; the rest is cut off. None: as the folder says.
        grad_checkpointing: Whether the activations of each layer are recomputed for the backward pass instead of kept,
            which saves memory at the cost of a second forward pass. Can be combined with ``module.encode_chunk_size``.
        frozen: Names of modules of the backbone that are not trained, for example
            ``["embeddings", "encoder.layer.0"]``.

    Raises:
        UserError: If there is no such model, its kind does not fit, its weights are incomplete or not safetensors, an
            argument is out of range, or sentence-transformers is not installed; on a call, if the inputs are not a list
            of ``str``.
    """

    def __init__(
        self,
        model: str,
        embedding_dim: int | None = None,
        normalize: bool = True,
        pooling: str | None = None,
        max_length: int | None = None,
        grad_checkpointing: bool = False,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if pooling is not None and pooling not in POOLINGS:
            raise UserError(f"encoder.pooling: expected one of {', '.join(POOLINGS)} or null, got {pooling!r}")
        if max_length is not None and max_length < 3:  # one token, and the special tokens before and after it
            raise UserError(f"encoder.max_length: expected an integer >= 3 or null, got {max_length}")
        _require_sentence_transformers()
        from sentence_transformers.sentence_transformer.modules import Pooling

        folder = read_folder(find_model(model))
        transformer = load_transformer(folder)
        width = int(transformer.get_embedding_dimension())
        self.transformer = (transformer,)  # in a tuple, so that its weights do not count twice
        self.backbone: nn.Module = transformer.model
        self.tokenizer = transformer.tokenizer
        self.pooling = pooling or folder.pooling
        self.pool = Pooling(width, self.pooling)
        self.max_length = max_length or min(folder.max_length or transformer.max_seq_length, transformer.max_seq_length)
        self.normalize = normalize
        if grad_checkpointing:
            _enable_checkpointing(self.backbone)
        self._frozen = freeze(self.backbone, frozen)
        self.embedding_dim = width if embedding_dim is None else embedding_dim
        self.head = None if embedding_dim is None else EmbeddingHead(width, embedding_dim, normalize)

    @override
    def forward(self, inputs: Sequence[str]) -> Tensor:
        """Embeddings ``(B, D)`` of B texts."""
        check_texts(self, inputs)
        # Not Transformer.preprocess, which takes texts that are paths or addresses of pictures for pictures.
        tokens = self.tokenizer(list(inputs), truncation=True, max_length=self.max_length)
        features = encode_by_length(  # (B, H)
            lambda rows: self._features({key: [values[row] for row in rows] for key, values in tokens.items()}),
            list(map(len, tokens["input_ids"])),
            together=is_sharded(self),
        )
        if self.head is not None:
            return self.head(features)
        # Not Normalize of sentence-transformers, whose gradient of a zero vector is 1e12 times that of its output.
        return unit(features) if self.normalize else features

    def _features(self, tokens: dict[str, list[list[int]]]) -> Tensor:
        """Features ``(b, H)`` of b texts of similar length, in float32 or float64."""
        padded = self.tokenizer.pad(tokens, return_tensors="pt").to(next(self.backbone.parameters()).device)
        states = at_least_float32(self.backbone(**padded).last_hidden_state)  # (b, T, H)
        pooled = self.pool({"token_embeddings": states, "attention_mask": padded["attention_mask"]})
        features: Tensor = pooled["sentence_embedding"]  # (b, H)
        return features


def load_transformer(folder: TextFolder) -> Any:
    """Load a transformer in float32 without its pooling layer, and its tokenizer.

    Args:
        folder: Location and settings of the model.

    Returns:
        A ``Transformer`` of sentence-transformers, in training mode.

    Raises:
        UserError: If it cannot be loaded without running code, the weights are incomplete or not safetensors, or the
            model is not an encoder of texts.
    """
    from sentence_transformers.sentence_transformer.modules import Transformer

    plain = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            transformer = Transformer(
                str(folder.path),
                model_kwargs={"use_safetensors": True, "dtype": torch.float32, **plain},
                processor_kwargs=dict(plain),
                config_kwargs=dict(plain),
                do_lower_case=folder.lower,
            )
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"encoder.model: {folder.path} cannot be loaded as safetensors with a tokenizer: {reason}"
        ) from error
    backbone = transformer.model
    if isinstance(getattr(backbone, "pooler", None), nn.Module):
        backbone.pooler = nn.Identity()  # its weights would get no gradient, which DDP rejects
    # sentence-transformers trains weights that the file lacks from random numbers; transformers marks the others.
    missing = [name for name, weight in backbone.named_parameters() if not hasattr(weight, "_is_hf_initialized")]
    if missing:
        raise UserError(f"encoder.model: {folder.path} lacks {len(missing)} weights, the first: {min(missing)}")
    if backbone.config.is_encoder_decoder or getattr(transformer.tokenizer, "pad_token", None) is None:
        lack = "has a decoder" if backbone.config.is_encoder_decoder else "has no tokenizer with padding"
        raise UserError(
            f"encoder.model: {type(backbone).__name__} of {folder.path} {lack}; expected an encoder of texts"
        )
    return transformer.train()  # the model was loaded in evaluation mode, which Lightning would keep


def _enable_checkpointing(backbone: nn.Module) -> None:
    """Recompute the activations of each layer in the backward pass.

    Raises:
        UserError: If the model does not support it.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise UserError(f"encoder.grad_checkpointing: {type(backbone).__name__} has none; expected false")
    older = getattr(backbone, "gradient_checkpointing_enable", None)
    enable: Any = getattr(backbone, "activation_checkpointing_enable", older)  # its name since transformers 5.2x
    enable({"use_reentrant": False})


def _require_sentence_transformers() -> None:
    # Otherwise each worker of a data loader, forked after texts were tokenized, prints a warning of the library.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import sentence_transformers  # noqa: F401  # here, because it takes seconds that only its users should pay
    except ImportError:
        raise UserError("encoder: no module sentence_transformers; pip install 'lightning-triplets[text]'") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars of transformers and its table of missing and unused weights."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
