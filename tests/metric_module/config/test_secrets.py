"""Tests of passwords and tokens in addresses."""

from __future__ import annotations

import pytest

from metric_module.config.secrets import refuse_secrets
from metric_module.errors import UserError


@pytest.mark.parametrize(
    "value", ["s3://key:hunter2@bucket/a", "http://hunter2@host/a", "zip://a.csv::https://u:hunter2@host:80/a.zip"]
)
def test_a_user_name_or_password_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(UserError, match=r"^datamodule\.root: expected an address without user name and pass") as found:
        refuse_secrets("datamodule.root", value)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize("value", ["https://host/a?token=hunter2", "zip://a::http://host:8000/a.zip?sig=hunter2"])
def test_a_query_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(UserError, match=r"^datamodule\.table: expected an address without a query") as found:
        refuse_secrets("datamodule.table", value)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    "value", [None, 3, "a@b.png", "s3://bucket/a@b.png", "zip://a@b.png::c.zip", "https://host/@me/a.csv", "what?"]
)
def test_other_values_pass(value: object) -> None:
    assert refuse_secrets("datamodule.root", value) is None  # type: ignore[func-returns-value]
