"""Credentials taken out of what is written: logs, run records, dumps of the configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
"""What stands in the place of a credential."""

_CREDENTIAL = (
    r"(?:password|passwd|pwd|secret|token|credentials?|signature"
    r"|(?:api|access|private|signing|secret|account)[_-]?key)"
)
_NAMED = re.compile(rf"(?:^|[._-]){_CREDENTIAL}$", re.IGNORECASE)
_ENVIRONMENT = re.compile(r"(?:^|_)(?:PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|KEY)$")
_USER = re.compile(r"(?<=://)[^\s/?#'\"]*(?=@)")
_QUERY = re.compile(rf"([?&;](?:[\w-]*[_-])?{_CREDENTIAL}=)[^&;\s'\"]+", re.IGNORECASE)
_SHORTEST = 8


def redacted(value: Any) -> Any:
    """Give plain data with no credentials in it.

    Hidden are the user and password of a URL, the parameters of its query that are named like a
    credential, whole values under a key that is (``password``, ``api_key``, ``auth_token``),
    and wherever they occur the values of the environment's variables that are
    (``..._PASSWORD``, ``..._CREDENTIAL``, ``..._TOKEN``, ``..._KEY``; from eight characters on).

    Parameters
    ----------
    value : object
        Mappings and lists are gone through; what is no text is left as it is.

    Examples
    --------
    >>> redacted({"path": "https://ann:s3cret@host/a.csv?sas_token=x1&part=2", "password": "x"})
    {'path': 'https://***@host/a.csv?sas_token=***&part=2', 'password': '***'}
    """
    return _redacted(value, _environment())


def _redacted(value: Any, secrets: list[str]) -> Any:
    match value:
        case Mapping():
            return {
                key: HIDDEN
                if isinstance(item, str) and item and _NAMED.search(str(key))
                else _redacted(item, secrets)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_redacted(item, secrets) for item in value]
        case str():
            return _text(value, secrets)
        case _:
            return value


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER.sub(HIDDEN, text))


def _environment() -> list[str]:
    """Give the credentials in the environment, the longest first: one may hold another."""
    found = {
        value
        for name, value in os.environ.items()
        if _ENVIRONMENT.search(name) and len(value) >= _SHORTEST
    }
    return sorted(found, key=len, reverse=True)
