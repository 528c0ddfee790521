"""Tiny text model with random weights, so that tests download nothing."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

WIDTH = 16
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
PIECES += [f"##{letter}" for letter in string.ascii_lowercase]


def write_model(folder: Path, dropout: float = 0.1) -> Path:
    """Write a BERT of two layers and its tokenizer as a Hugging Face folder; each letter is a token."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
        for weight in model.parameters():  # larger than a fresh model's, so that texts differ
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder
