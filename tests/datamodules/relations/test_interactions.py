"""Tests of users and items from tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules import InteractionsDataModule
from datamodules.relations.data import PairDataset
from datamodules.sources.tables import read_table
from metric_module import UserError
from metric_module.relations import Links
from tests.helpers.relation_files import ratings


def rows_of(path: Path) -> list[tuple[int, int, int, int]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in lines]


def test_the_last_two_positives_are_held_out(tmp_path: Path) -> None:
    rows = rows_of(ratings(tmp_path))
    data = InteractionsDataModule(path=str(tmp_path)).data
    users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    assert isinstance(data.positives, Links)
    assert isinstance(data.neither, Links)
    assert (data.query.size, data.reference.size) == (len(users), len(items))  # type: ignore[union-attr]
    place = {int(user): row for row, user in enumerate(data.sought["val"].queries)}
    asked = 0
    for number, user in enumerate(users):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: (row[3], row[1]))
        liked = [row for row in own if row[2] >= 4]
        evaluated = len(liked) >= 3
        assert (number in place) == evaluated
        limit = own.index(liked[-2]) if evaluated else len(own)
        early = own[:limit]
        assert data.positives.list_of(number).tolist() == sorted(items.index(row[1]) for row in early if row[2] >= 4)
        assert data.neither.list_of(number).tolist() == sorted(items.index(row[1]) for row in early if row[2] < 4)
        for split, held in (("val", -2), ("test", -1)) if evaluated else ():
            sought = data.sought[split]
            assert sought.positives.lists(torch.tensor([place[number]])).columns.tolist() == [
                items.index(liked[held][1])
            ]
            seen = sorted(items.index(row[1]) for row in own[: own.index(liked[held])])
            assert isinstance(sought.ignored, Links)
            assert sought.ignored.list_of(place[number]).tolist() == seen
            asked += 1
    assert asked == 2 * len(place) > 40
    assert len(data.neither.columns) > 0


def test_a_user_is_their_last_positives(tmp_path: Path) -> None:
    rows = rows_of(ratings(tmp_path))
    module = InteractionsDataModule(path=str(tmp_path), history=3, positives_per_query=2, queries_per_batch=30)
    users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    rated: list[dict[int, bool]] = []  # whether each item of training was liked, by time
    for user in users:
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[3])
        end = [place for place, row in enumerate(own) if row[2] >= 4][-2]
        rated.append({items.index(row[1]): row[2] >= 4 for row in own[:end]})
    likes = [[item for item, liked in ratings.items() if liked] for ratings in rated]
    batches, seen = PairDataset(module.data, module.train_sampler()), set()
    for number in range(4):
        batch = batches[number]
        assert sorted(batch.index.tolist()) == list(range(30))
        assert batch.negatives is not None
        for row, user in enumerate(batch.index.tolist()):
            near = [item for item in likes[user] if batch.positives[row, item]]
            past = likes[user][: likes[user].index(near[0])]
            assert near == likes[user][len(past) : len(past) + len(near)]
            assert len(near) == 2 or not past
            assert batch.query[row].tolist() == [*reversed(past[-3:]), -1, -1, -1][:3]
            assert batch.negatives[row].nonzero()[:, 0].tolist() == sorted(set(range(len(items))) - set(rated[user]))
            seen.add(len(past))
    assert len(seen) > 5
    last = [[*reversed(own[-3:]), -1, -1, -1][:3] for own in likes]
    assert module.data.query.inputs(torch.arange(30)).tolist() == last
    assert torch.equal(batch.reference, torch.arange(len(items)))
    assert module.class_names_of([0, 30]) == ["query 100", "reference 500"]
    with pytest.raises(UserError, match=r"^datamodule.history: expected an integer >= 1, got 0$"):
        InteractionsDataModule(path=str(tmp_path), history=0)


def test_layouts_and_the_order_of_rows_do_not_matter(tmp_path: Path) -> None:
    first = ratings(tmp_path / "a")
    ratings(tmp_path / "b", layout="ml-100k.inter")
    turned = tmp_path / "c" / "u.data"
    turned.parent.mkdir()
    turned.write_text("\n".join(reversed(first.read_text().splitlines())) + "\n")
    table = tmp_path / "d.csv"
    table.write_text("who,what,stars,at\n" + first.read_text().replace("\t", ","))
    renamed = {"user": "who", "item": "what", "rating": "stars", "time": "at"}
    modules = [InteractionsDataModule(path=str(tmp_path / name)) for name in ("a", "b", "c")]
    modules.append(InteractionsDataModule(path=str(table), **renamed))  # type: ignore[arg-type]
    one, *others = (module.data for module in modules)
    for other in others:
        for ours, theirs in ((one.positives, other.positives), (one.neither, other.neither)):
            assert isinstance(ours, Links)
            assert isinstance(theirs, Links)
            assert torch.equal(ours.starts, theirs.starts)
            assert torch.equal(ours.columns, theirs.columns)


def test_without_ratings_or_times_and_with_repeats(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("u,i\n" + "a,x\na,y\na,x\na,z\na,w\nb,x\n")
    data = InteractionsDataModule(path=str(path), user="u", item="i", rating=None, time=None).data
    assert isinstance(data.positives, Links)
    assert [data.positives.list_of(row).tolist() for row in (0, 1)] == [[1, 2], [1]], (
        "y and x, then z for val, w for test"
    )
    assert data.sought["test"].positives.lists(torch.tensor([0])).columns.tolist() == [0]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": [3, 1], "b": ["x", "y"]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ["b"])["b"].to_pylist() == ["x", "y"]


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^datamodule.path: expected a file, or a folder with u.data, .*, got .*nothing$"
    ):
        InteractionsDataModule(path=str(tmp_path / "nothing")).data  # noqa: B018
    path = tmp_path / "t.csv"
    for text, message in (
        ("user_id,item_id,rating\n1,2,3\n", r"has no column 'timestamp', only user_id, item_id, rating$"),
        ("user_id,item_id,rating,timestamp\n1,2,good,4\n", r"column 'rating': expected numbers \("),
        (
            "user_id,item_id,rating,timestamp\n1,2,,4\n1,2,3,4\n",
            r"column 'rating': no value in 1 rows \(from 0\): 0",
        ),
        (
            "user_id,item_id,rating,timestamp\n1,2,5,4\n1,3,NaN,4\n1,4,nan,4\n",
            r"t.csv: column 'rating': NaN in place of a value in 2 rows \(from 0\): 1, 2$",
        ),
        ("user_id,item_id,rating,timestamp\n1,2,5,NaN\n", r"column 'timestamp': NaN in place of a value in 1 rows"),
        ("user_id,item_id,rating,timestamp\n1\n", r"datamodule.path: cannot read .*t.csv \("),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            InteractionsDataModule(path=str(path)).data  # noqa: B018
