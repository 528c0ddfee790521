"""Passwords and tokens in addresses: a configuration is written to files, so it must not hold any."""

from __future__ import annotations

import re

from metric_module.errors import UserError

USER = re.compile(r"([^i]p|[^p])://[^/?#\s]*@")
"""A user name, perhaps with a password, in an address; not an ``@`` in ``zip://a@b.png``. PyArrow reads it too."""
_QUERY = re.compile(r"https?://[^\s:?]*(:\d+)?[^\s:?]*\?")
"""The form of signed addresses."""
_WRITTEN = "which config.yaml would hold; give credentials in the environment (docs/data.md, An object store)"


def refuse_secrets(setting: str, value: object) -> None:
    """Accept a value that holds no user name, password or query in an address; the message does not repeat it.

    Args:
        setting: Full name of the setting, for the message.
        value: Its value.

    Raises:
        UserError: The value holds one.

    Example:
        >>> refuse_secrets("datamodule.root", "s3://bucket/pictures")
    """
    if USER.search(str(value)):
        raise UserError(f"{setting}: expected an address without user name and password, {_WRITTEN}")
    if _QUERY.search(str(value)):
        raise UserError(f"{setting}: expected an address without a query (?...), {_WRITTEN}")
