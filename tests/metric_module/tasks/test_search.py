"""The task ``search``: from the command line to a table, a csv file and a page."""

from __future__ import annotations

import base64
import csv
import io
import operator
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metric_module import Embedder
from metric_module.preprocessing import ImageInput, TextInput
from metric_module.report.search_page import Hit, Searched, search_page
from tests.helpers.command_line import Command, command_in
from tests.helpers.trained import write_checkpoint

CONV = {"_target_": "metric_module.encoders.ConvNet", "widths": [4, 4, 4], "embedding_dim": 5}
CHARS = {"_target_": "metric_module.encoders.CharConvNet", "width": 8, "depth": 1, "embedding_dim": 5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_checkpoint(folder / "run" / "checkpoints" / "best.ckpt", CONV, ImageInput(32))
    write_checkpoint(folder / "texts.ckpt", CHARS, TextInput(), threshold=None)
    pixels = np.random.default_rng(0)
    for number in range(8):
        path = folder / "gallery" / f"<b>{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    return command_in(home, monkeypatch)  # type: ignore[return-value]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_images(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task=search", "ckpt_path=run", "query='gallery/<b>1'", "gallery=gallery", "task.k=3", "hydra.run.dir=out")
    assert command(*words) == 0
    rows = read(home / "out" / "search.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert rows[0] == {
        "query": "gallery/<b>1/2.png",
        "rank": "1",
        "name": "gallery/<b>1/2.png",
        "label": "<b>1",
        "distance": "0.000000",
        "same": "yes",
    }
    embedder = Embedder.load(home / "run", device="cpu")
    for row in rows:
        found = embedder.same(home / row["query"], home / row["name"])
        assert float(row["distance"]) == pytest.approx(found.distance, abs=1e-6)
        assert row["same"] == ("yes" if found.same else "no")
    page = (home / "out" / "search.html").read_text()
    assert page.count("data:image/webp") == 8  # two queries and their six neighbours
    assert "<b>1" not in page
    assert page.count('class="query card"') == 2
    assert (home / "out" / "config.yaml").is_file()
    assert "2 queries in 8 items; written to" in capsys.readouterr().out


def test_the_order_after_re_ranking(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task=search", "ckpt_path=run", "query='gallery/<b>1'", "gallery=gallery", "task.k=8")
    assert command(*words, "hydra.run.dir=plain") == 0
    assert command(*words, "+task.rerank.k_reciprocal={k1: 3, k2: 2}", "hydra.run.dir=reranked") == 0
    plain, rows = (read(home / name / "search.csv") for name in ("plain", "reranked"))
    assert [row["name"] for row in rows] != [row["name"] for row in plain]
    key = operator.itemgetter("query", "name", "distance", "same", "label")
    assert sorted(map(key, rows)) == sorted(map(key, plain)), "the order alone changes"
    assert command(*words, "task.rerank=query_expansion", "hydra.run.dir=expanded") == 0
    assert command(*words, "task.rerank=reciprocal", "hydra.run.dir=wrong") == 2
    assert "error: task.rerank: did you mean 'k_reciprocal'? expected k_reciprocal or" in capsys.readouterr().err


def test_texts_without_a_threshold(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "lines.txt").write_text("the cat\nthe dog\nein Haus\n")
    words = ("task=search", "ckpt_path=texts.ckpt", "query=the cat", "gallery=lines.txt", "hydra.run.dir=out2")
    assert command(*words) == 0
    rows = read(home / "out2" / "search.csv")
    assert rows[0]["name"] == "the cat"
    assert {row["name"] for row in rows} == {"the cat", "the dog", "ein Haus"}
    assert {row["same"] for row in rows} == {""}
    assert "The training has no threshold" in (home / "out2" / "search.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("query=gallery",), "gallery: expected a file or a folder, got none; give gallery=<folder>"),
        (("gallery=gallery",), "query: expected a file or a folder, got none; give query=<folder>"),
        (("query=nowhere", "gallery=gallery"), "query: no such file or folder: nowhere"),
        (("query=gallery", "gallery=gallery", "task.k=0"), "task.k: expected an integer of 1 or more, got 0"),
        (("query=gallery", "gallery=gallery", "task.k=1.5"), "task.k: expected an integer of 1 or more, got 1.5"),
        (("query=gallery", "gallery=gallery", "task.k=null"), "task.k: expected an integer of 1 or more, got None"),
        (("query=gallery", "gallery=gallery", "task.batch_size=0"), "task.batch_size: expected an integer of 1 or"),
        (("query=gallery", "gallery=gallery", "task.tower=image"), "tower: expected none, as there is one encoder"),
        (("query=gallery", "gallery=gallery", "port=3"), "port: task=search does not read it"),
        (("query=gallery", "gallery=gallery", "distance=cosine"), "distance: the model comes with its own"),
        (("query=gallery", "gallery=gallery", "encoder.widths=[8]"), "encoder.widths: the model comes with its own"),
    ],
)
def test_mistakes(
    words: tuple[str, ...], message: str, home: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("task=search", "ckpt_path=run", *words, "hydra.run.dir=refused") == 2
    assert re.fullmatch(f"error: {re.escape(message)}.*\n", capsys.readouterr().err)
    assert not (home / "refused").exists()


def test_what_a_checkpoint_may_be(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ([], ["ckpt_path=nowhere"]):
        assert command("task=search", "query=gallery", "gallery=gallery", *given) == 2
        expected = "error: ckpt_path: expected the folder of a run, a checkpoint or an exported folder, got "
        assert capsys.readouterr().err.startswith(expected)


def test_other_tasks_do_not_take_a_query(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("query=gallery") == 2
    assert capsys.readouterr().err == "error: query: task=train does not read it; task=search and task=serve do\n"


def test_an_unreadable_item_is_named(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bad").mkdir()
    (home / "bad" / "1.png").write_bytes(b"no picture")
    assert command("task=search", "ckpt_path=run", "query=gallery", "gallery=bad", "hydra.run.dir=refused") == 2
    assert capsys.readouterr().err.startswith(
        "error: 1 of 1 items cannot be read: bad/1.png (cannot identify image file"
    )


def test_names_are_printed_as_they_are(home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "odd" / "[red]"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "[b].png")
    assert command("task=search", "ckpt_path=run", "query=odd", "gallery=odd", "hydra.run.dir=out3") == 0
    printed = capsys.readouterr().out
    assert "odd/[red]/[b].png" in printed
    assert "│ [red] │" in printed


def test_only_images_are_opened_for_the_page(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((8, 8), 30_000, dtype=np.uint16)).save(grey)
    Image.new("RGB", (8, 8)).save(tmp_path / "program.eps")
    (tmp_path / "damaged.png").write_bytes(grey.read_bytes()[:40])
    names = [str(tmp_path / name) for name in ("grey.png", "program.eps", "damaged.png", "none.png")]
    page = search_page([Searched("text", [Hit(name, None, 0.0) for name in names])], 4, None)
    (address,) = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(address))) as shown:
        assert abs(np.asarray(shown).astype(int) - (30_000 >> 8)).max() <= 4
