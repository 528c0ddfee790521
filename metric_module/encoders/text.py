"""Any text model of the Hugging Face kind, or of sentence-transformers, as an encoder.

Legend: B texts, T tokens of the longest of them, H size of the model's features, D embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.batch import is_texts
from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.lengths import encode_by_length
from metric_module.encoders.pretrained import freeze_parts
from metric_module.encoders.text_folder import POOLINGS, find_model, read_folder
from metric_module.errors import UserError
from metric_module.functional import at_least_float32, unit


class TextEncoder(Encoder):
    """A transformer over the tokens of each text, pooled to one vector.

    Takes a folder as ``AutoModel.save_pretrained`` and ``AutoTokenizer.save_pretrained`` write it, or one of
    sentence-transformers, whose pooling it takes over. Weights are read from safetensors, and no code that comes with a
    model is run. Tokens are made in :meth:`forward`, so a batch's inputs are ``list[str]``;
    texts of alike length go through the model together.

    Args:
        model: The folder; ``package:name/path`` is one inside an installed package; what is no folder here is looked up
            on the Hugging Face hub.
        embedding_dim: Size D of an embedding, by a linear head that starts at random; None keeps the model's own size,
            and has no head.
        normalize: Whether embeddings have length one.
        pooling: ``mean`` over the tokens, ``cls`` for the first, or ``max``; None: as the folder says, else ``mean``.
        max_length: Most tokens of a text, what follows is cut off; None: as the folder says.
        grad_checkpointing: Whether each layer's activations are computed again when its gradient is due, instead of
            kept: less memory for the time of a second forward pass. Goes together with ``module.encode_chunk_size``.
        frozen: Parts of the backbone that never change, by name: for example ``["embeddings", "encoder.layer.0"]``.

    Raises:
        UserError: If there is no such model, it is of a kind that does not fit, its weights are no safetensors or not
            all there, an argument is out of range, or transformers is not installed; on a call, if the inputs are no
            list of ``str``.
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
        if max_length is not None and max_length < 3:  # a token, and the marks before and after it
            raise UserError(f"encoder.max_length: expected an integer >= 3 or null, got {max_length}")
        _require_transformers()
        found = read_folder(find_model(model))
        self.backbone: nn.Module
        self.backbone, self.tokenizer = load_model(found.path)
        self.lower = found.lower
        self.pooling = pooling or found.pooling
        self.max_length = max_length or _longest(found.max_length, self.backbone, self.tokenizer)
        self.normalize = normalize
        if grad_checkpointing:
            _keep_no_activations(self.backbone)
        self._frozen = freeze_parts(self.backbone, frozen)
        width = int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.embedding_dim = width if embedding_dim is None else embedding_dim
        self.head = None if embedding_dim is None else EmbeddingHead(width, embedding_dim, normalize)

    @override
    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    @override
    def forward(self, inputs: Sequence[str]) -> Tensor:
        """Embeddings ``(B, D)`` of B texts."""
        if not is_texts(inputs):
            raise UserError(f"TextEncoder: expected a list of str, got {type(inputs).__name__}")
        texts = [text.lower() for text in inputs] if self.lower else list(inputs)
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_length)
        features = encode_by_length(  # (B, H)
            lambda rows: self._features({key: [values[row] for row in rows] for key, values in tokens.items()}),
            list(map(len, tokens["input_ids"])),
        )
        if self.head is not None:
            embeddings: Tensor = self.head(features)
            return embeddings
        return unit(features) if self.normalize else features

    def _features(self, tokens: Mapping[str, list[list[int]]]) -> Tensor:
        """One vector for each text, ``(b, H)``, from tokens of alike length."""
        padded = self.tokenizer.pad(tokens, return_tensors="pt").to(next(self.backbone.parameters()).device)
        states: Tensor = self.backbone(**padded).last_hidden_state  # (b, T, H)
        return pool(states, padded["attention_mask"], self.pooling)


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector for each text, in float32 or better.

    Args:
        states: Of each token, ``(B, T, H)``.
        mask: 1 for a token, 0 for padding, ``(B, T)``.
        pooling: ``mean``, ``cls`` or ``max``; over the tokens alone.

    Returns:
        ``(B, H)``.

    Example:
        >>> states, mask = torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[1, 1, 0]])
        >>> [pool(states, mask, how).item() for how in ("mean", "cls", "max")]
        [3.0, 1.0, 5.0]
    """
    states, real = at_least_float32(states), mask[..., None].bool()  # (B, T, H), (B, T, 1)
    if pooling == "cls":
        first = mask.argmax(dim=1)  # (B,); padding may come first
        return states[torch.arange(len(states), device=states.device), first]
    if pooling == "max":
        return states.masked_fill(~real, -torch.inf).amax(dim=1)
    return states.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)


def load_model(folder: Path) -> tuple[nn.Module, Any]:
    """A transformer in float32, without the parts that pooling has no use for, and its tokenizer.

    Args:
        folder: What ``save_pretrained`` of both wrote.

    Raises:
        UserError: If they cannot be read without running code, the weights are no safetensors or not all there, or the
            model is no encoder of texts.
    """
    from transformers import AutoModel, AutoTokenizer

    plain = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            backbone, info = AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **plain
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, **plain)
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"encoder.model: {folder} cannot be loaded as safetensors with a tokenizer: {reason}"
        ) from error
    if isinstance(getattr(backbone, "pooler", None), nn.Module):
        backbone.pooler = nn.Identity()  # it would have weights without a gradient, which DDP refuses
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(f"encoder.model: {folder} lacks {len(missing)} weights, the first: {missing[0]}")
    if backbone.config.is_encoder_decoder or tokenizer.pad_token is None:
        lack = "has a decoder" if backbone.config.is_encoder_decoder else "has a tokenizer without padding"
        raise UserError(f"encoder.model: {type(backbone).__name__} of {folder} {lack}; expected an encoder of texts")
    return backbone.train(), tokenizer  # from_pretrained leaves it in evaluation, and Lightning would keep that


def _keep_no_activations(backbone: nn.Module) -> None:
    """Let each layer compute its activations again.

    Raises:
        UserError: If the model cannot.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise UserError(f"encoder.grad_checkpointing: {type(backbone).__name__} has none; expected false")
    older = getattr(backbone, "gradient_checkpointing_enable", None)
    enable: Any = getattr(backbone, "activation_checkpointing_enable", older)  # its name since transformers 5.2x
    enable({"use_reentrant": False})


def _longest(told: int | None, backbone: nn.Module, tokenizer: Any) -> int:
    """Most tokens of a text: what the folder says, but no more than there are positions for."""
    places = getattr(backbone.config, "max_position_embeddings", None)
    known = [size for size in (told, places, tokenizer.model_max_length) if size is not None and size > 0]
    return min(known)


def _require_transformers() -> None:
    # A loader's workers are forked after tokens were made, which the library would otherwise warn of in each of them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import transformers  # noqa: F401  # here, because it takes seconds that only its users should pay
    except ImportError:
        raise UserError("encoder: no module transformers; pip install 'lightning-triplets[text]'") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no table of weights that have no use: those that are missing are an error of ours."""
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
