"""Folders of Hugging Face and sentence-transformers: read again, they give the same embeddings."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import Embedder, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP, TextEncoder
from metric_module.export.hugging_face import push_to_hub, write_folder, write_sentence_transformers
from tests.helpers.trained_runs import CASES, PIXELS, TEXTS, THRESHOLD, node, towers, write_run

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", CASES)
def test_a_folder_gives_the_same_bits_as_the_run(name: str, tmp_path: Path, tiny_text: str, capfd: Capture) -> None:
    encoder, preprocessing, inputs = CASES[name]
    run = Embedder.load(write_run(tmp_path / "run", encoder, preprocessing, tiny_text=tiny_text), "cpu")
    write_folder(run, tmp_path / "model")
    again = Embedder.load((tmp_path / "model").rename(tmp_path / "moved"), "cpu")
    write_folder(again, tmp_path / "third")  # before texts are embedded: a tokenizer keeps its last maximum length
    expected = run.embed(inputs)
    assert torch.pdist(expected.double()).min() > 1e-4, "inputs differ"
    assert torch.equal(again.embed(inputs), expected)
    assert again.preprocessing == run.preprocessing == preprocessing
    assert again.threshold == run.threshold == THRESHOLD
    assert again.figures["test"] == run.figures["test"] == {"recall_at_1": 0.5}
    assert again.figures["val"]["recall_at_1"] == 0.75 and math.isnan(again.figures["val"]["map_at_r"])
    assert type(again.distance_function) is Euclidean and capfd.readouterr() == ("", "")
    written = [path.relative_to(tmp_path / "moved") for path in (tmp_path / "moved").rglob("*") if path.is_file()]
    assert {Path("README.md"), Path("config.json"), Path("model.safetensors")} <= set(written)
    for path in written:
        content = (tmp_path / "moved" / path).read_bytes()
        assert (tmp_path / "third" / path).read_bytes() == content, "an exported folder can be exported"
        assert b"secret" not in content and str(tmp_path).encode() not in content and tiny_text.encode() not in content


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_folder_of_one_tower(tower: str, tmp_path: Path, tiny_text: str) -> None:
    run = Embedder.load(write_run(tmp_path / "run", towers(tiny_text), None), "cpu", tower=tower)
    write_folder(run, tmp_path / "model")
    inputs: Any = TEXTS if tower == "text" else CASES["conv_net"].inputs
    assert torch.equal(Embedder.load(tmp_path / "model", "cpu").embed(inputs), run.embed(inputs))


def test_a_folder_of_pixels(tmp_path: Path) -> None:
    run = Embedder.load(write_run(tmp_path / "run", PIXELS, None, threshold=None), "cpu")
    write_folder(run, tmp_path / "model")
    again = Embedder.load(tmp_path / "model", "cpu")
    pixels = torch.tensor([[0, 1, 2], [1, 3, 3], [0, 0, 7]])
    inputs = {"images": torch.randn(2, 3, 8, 8), "pixels": pixels}
    assert torch.equal(again.encoder(inputs), run.encoder(inputs))
    assert again.threshold is None and "defined no threshold" in (tmp_path / "model/README.md").read_text()


def test_a_class_of_ones_own_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, preprocessing, inputs = CASES["custom"]
    run = Embedder.load(write_run(tmp_path / "run", encoder, preprocessing), "cpu")
    write_folder(run, tmp_path / "model")
    assert 'Embedder.load("path/to/this/folder", trusted=["tests"])' in (tmp_path / "model/README.md").read_text()
    monkeypatch.setattr("metric_module.config.trust._trusted", [])
    with pytest.raises(UserError, match=r"^encoder._target_: 'tests.helpers.small.Tiny' comes from a file.*\[tests\]"):
        Embedder.load(tmp_path / "model")
    again = Embedder.load(tmp_path / "model", "cpu", trusted=["tests"])
    assert torch.equal(again.embed(inputs), run.embed(inputs))


CARD = """---
library_name: lightning-triplets
pipeline_tag: image-feature-extraction
tags:
- metric-learning
- triplet-loss
- embeddings
---

# ConvNet trained with the triplet loss

ConvNet maps an item to an embedding of 6 numbers. Embeddings are compared by the distance
Euclidean. The training data came from EmojiDataModule.

Written by lightning-triplets VERSION.

## Use

```python
from metric_module import Embedder

embedder = Embedder.load("path/to/this/folder")
embeddings = embedder.embed([first, second])
```

Two items count as the same if their distance is at most 0.8125, the threshold of the training.

## Figures

| split | figure | value |
|---|---|---|
| val | recall_at_1 | 0.75 |
| val | map_at_r | nan |
| test | recall_at_1 | 0.5 |

## Licence

Not stated: it depends on the data and on the weights that the training started from.
"""


def test_the_model_card(tmp_path: Path) -> None:
    encoder, preprocessing, _ = CASES["conv_net"]
    run = write_run(tmp_path / "run", encoder, preprocessing)
    write_folder(Embedder.load(run, "cpu"), tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    assert re.sub(r"lightning-triplets \d\S*\d\.", "lightning-triplets VERSION.", card) == CARD
    (run / "metrics.json").unlink()
    write_folder(Embedder.load(run, "cpu"), tmp_path / "without")
    assert "## Figures\n\nNone are known.\n" in (tmp_path / "without/README.md").read_text()


def test_an_embedder_built_in_python_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^export: expected an embedder of Embedder.load, got one without config"):
        write_folder(Embedder(MLP(3), Euclidean(), device="cpu"), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [{}, {"max_length": 6, "pooling": "cls"}, {"embedding_dim": 5}, {"normalize": False}]
)
def test_sentence_transformers_gives_the_same_embeddings(
    arguments: dict[str, Any], tmp_path: Path, tiny_text: str, capfd: Capture
) -> None:
    from sentence_transformers import SentenceTransformer

    text = node("TextEncoder", model=tiny_text, **arguments)
    run = Embedder.load(write_run(tmp_path / "run", text, CASES["text"].preprocessing), "cpu")
    write_sentence_transformers(run, tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    peer = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    expected = run.embed(TEXTS)
    found = torch.from_numpy(peer.encode(TEXTS, show_progress_bar=False))
    assert torch.pdist(expected).min() > 1e-3, "texts differ"
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() <= 1e-5
    names = [type(module).__name__ for module in peer]
    head, scaling = ["Dense"] if "embedding_dim" in arguments else [], [] if "normalize" in arguments else ["Normalize"]
    assert names == ["Transformer", "Pooling", *head, *scaling]
    assert peer.max_seq_length == arguments.get("max_length", 24)
    card = (tmp_path / "model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n")
    assert 'SentenceTransformer("path/to/this/folder").encode(' in card
    if not head:
        ours = TextEncoder(str(tmp_path / "model"), normalize=run.encoder.normalize).eval()  # type: ignore[arg-type]
        torch.testing.assert_close(ours(TEXTS), expected, rtol=1e-6, atol=1e-6)


def test_a_folder_keeps_what_the_pretrained_model_says(tmp_path: Path, tiny_text: str) -> None:
    settings = {"pooling": "cls", "max_length": 6}
    first = Embedder(TextEncoder(tiny_text, **settings), Euclidean(), device="cpu")  # type: ignore[arg-type]
    write_sentence_transformers(first, tmp_path / "pretrained")
    for name, key, value in (("sentence_bert", "max_seq_length", 6), ("tokenizer", "model_max_length", 24)):
        path = tmp_path / f"pretrained/{name}_config.json"  # all-MiniLM-L6-v2 has two maximum lengths as well
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    text = node("TextEncoder", model=str(tmp_path / "pretrained"))
    run = Embedder.load(write_run(tmp_path / "run", text, CASES["text"].preprocessing), "cpu")
    write_folder(run, tmp_path / "model")
    shutil.rmtree(tmp_path / "pretrained")
    again = Embedder.load(tmp_path / "model", "cpu")
    encoder: Any = again.encoder
    assert (encoder.pooling, encoder.max_length) == ("cls", 6)
    assert torch.equal(again.embed(TEXTS), run.embed(TEXTS))


def test_sentence_transformers_takes_text_encoders_alone(tmp_path: Path) -> None:
    embedder = Embedder(MLP(3), Euclidean(), device="cpu")
    with pytest.raises(UserError, match=r"^task.format=sentence_transformers: expected a TextEncoder, got MLP$"):
        write_sentence_transformers(embedder, tmp_path / "model")


class Hub:
    """The calls of HfApi that an upload makes."""

    calls: list[tuple[Any, ...]]

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> Any:
        Hub.calls.append((name, private, exist_ok))
        if "/" not in name:
            raise ValueError("Repo id must be user/name:\n  got 'x'")
        return type("Url", (), {"repo_id": name})

    def upload_folder(self, repo_id: str, folder_path: Path) -> str:
        Hub.calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))
        return f"https://hub/{repo_id}"


def test_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls = []
    (tmp_path / "config.json").touch()
    assert push_to_hub(tmp_path, "me/model") == "https://hub/me/model"
    assert Hub.calls == [("me/model", True, True), ("me/model", ["config.json"])]
    with pytest.raises(UserError, match=r"^task.push: cannot upload .* to x: Repo id must be user/name:; got 'x'$"):
        push_to_hub(tmp_path, "x", private=False)
    assert Hub.calls[-1] == ("x", False, True)


def test_config_json_is_strict(tmp_path: Path) -> None:
    encoder, preprocessing, _ = CASES["mlp"]
    write_folder(Embedder.load(write_run(tmp_path / "run", encoder, preprocessing), "cpu"), tmp_path / "model")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    about = json.loads((tmp_path / "model/config.json").read_text(), parse_constant=refuse)
    assert about["figures"]["val"] == {"recall_at_1": 0.75, "map_at_r": None}
    assert about["preprocessing"] == {"version": 1, "kind": "vector", "size": 5}
    assert about["config"]["datamodule"] == {"_target_": "datamodules.EmojiDataModule"}
    assert about["embedding_dim"] == 4 and about["distance"] == "Euclidean"


def test_the_card_names_a_closed_set(tmp_path: Path) -> None:
    encoder, preprocessing, _ = CASES["conv_net"]
    run = Embedder.load(write_run(tmp_path / "run", encoder, preprocessing), "cpu")
    run.figures["test"] |= {"classes": 9.0, "classes_trained_on": 9.0}
    write_folder(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| test (closed set) | recall_at_1 | 0.5 |" in card and "| val | recall_at_1 | 0.75 |" in card
