"""Tests of shortened lists and reasons in messages."""

from __future__ import annotations

import numpy as np

from datamodules.messages import listed, reason_of, rows_in_words


def test_a_long_list_is_cut_after_a_thousand() -> None:
    (line,) = listed("files are bad", [f"{number}.png" for number in range(12345)])
    assert line.startswith("12345 files are bad: 0.png, 1.png, ")
    assert line.endswith(", 999.png and 11,345 more")
    assert listed("files are bad", [str(number) for number in range(1000)])[0].endswith(", 999")
    assert listed("files are bad", []) == []


def test_twenty_rows_are_listed() -> None:
    assert rows_in_words(np.arange(20)) == f"20 rows (from 0): {', '.join(map(str, range(20)))}"
    assert rows_in_words(np.arange(2000)).endswith(", 18, 19 and 1,980 more")


def test_the_reason_is_one_line() -> None:
    assert reason_of(ValueError("first\nsecond")) == "first"
    assert reason_of(EOFError()) == "EOFError"
