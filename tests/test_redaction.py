"""No credential is written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_nlp.redaction import redacted

PLANTED = "pl4nted-s3cret-value"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ann:pw@host/a.csv", "https://***@host/a.csv"),
        ("https://ann:p@w@host/a.csv", "https://***@host/a.csv"),
        ("s3://KEY:SECRET@bucket/*.csv", "s3://***@bucket/*.csv"),
        ("Cannot read 'ftp://tok@host/x': no", "Cannot read 'ftp://***@host/x': no"),
        ("h://x/a?X-Amz-Signature=ab12&part=2", "h://x/a?X-Amz-Signature=***&part=2"),
        ("h://x/a?part=2&api_key=ab12", "h://x/a?part=2&api_key=***"),
        ("https://host/a@b.csv", "https://host/a@b.csv"),
        ("mail ann@example.org about key=value", "mail ann@example.org about key=value"),
        ("https://host/a?keyboard=us&tokens=7", "https://host/a?keyboard=us&tokens=7"),
        ("", ""),
    ],
)
def test_urls(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize("name", ["password", "db_password", "AUTH-TOKEN", "api_key", "apikey"])
def test_keys_that_are_named_like_a_credential(name: str) -> None:
    assert redacted({"a": [{name: "x", "kept": 1}]}) == {"a": [{name: "***", "kept": 1}]}


def test_what_only_looks_like_one_is_kept() -> None:
    kept = {"max_tokens": 512, "key": "a1", "vocabulary": "token", "secretary": "x", "pwd": None}
    assert redacted(kept) == kept


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", PLANTED)
    monkeypatch.setenv("OTHER_TOKEN", f"{PLANTED}-longer")
    monkeypatch.setenv("SHORT_KEY", "abc")
    monkeypatch.setenv("KEY_FILE", "/etc/keys/of-this-host")
    text = f"abc /etc/keys/of-this-host {PLANTED} {PLANTED}-longer"
    assert redacted(text) == "abc /etc/keys/of-this-host *** ***"


def everything_written(root: Path) -> str:
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"run.json", "run.log", "config.yaml"}
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


@pytest.mark.parametrize(
    "override",
    [
        f"dataset.path=https://ann:{PLANTED}@host/a.csv",
        f"dataset.path='s3://bucket/a.csv?sas_token={PLANTED}'",
        "dataset.path=/data/${oc.env:FEED_PASSWORD}/a.csv",
        "model.name=${oc.env:BATCH_NLP_SIGNING_KEY}",
    ],
)
@pytest.mark.parametrize("fails", ["as told", "unexpectedly"])
def test_planted_secrets_are_not_written(
    *,
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    fails: str,
) -> None:
    monkeypatch.setenv("FEED_PASSWORD", PLANTED)
    monkeypatch.setenv("BATCH_NLP_SIGNING_KEY", PLANTED)
    if fails == "unexpectedly":
        from batch_nlp.rows.datasets import MessagesDataset

        def broken(self: Any, *_: Any, **__: Any) -> Any:
            raise RuntimeError(f"lost {self} {PLANTED}")

        monkeypatch.setattr(MessagesDataset, "source", broken)
    ended = cli("pipeline=feature", "dataset=messages", override, f"paths.root={tmp_path}")
    assert ended.status == (1 if fails == "unexpectedly" else 2), ended.stderr
    assert PLANTED not in ended.stderr + ended.stdout
    assert PLANTED not in everything_written(tmp_path)


def test_a_command_that_is_misspelt_shows_none(cli: Callable[..., Any]) -> None:
    ended = cli(f"datset.path=https://ann:{PLANTED}@host/a.csv")
    assert ended.status == 2
    assert PLANTED not in ended.stderr
    assert "datset" in ended.stderr
