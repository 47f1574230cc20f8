"""Rows that add up."""

from __future__ import annotations

import pytest

from batch_nlp.rows.counts import Counts


def test_rows_that_add_up_pass() -> None:
    Counts().check("empty")
    Counts(read=6, delivered=3, rejected=2, duplicates=1).check("extract")


@pytest.mark.parametrize("name", ["read", "delivered", "rejected", "duplicates"])
def test_a_row_too_many_anywhere_is_an_error(name: str) -> None:
    counts = Counts(read=6, delivered=3, rejected=2, duplicates=1)
    setattr(counts, name, getattr(counts, name) + 1)
    with pytest.raises(RuntimeError, match="Stage validate lost rows: read "):
        counts.check("validate")


def test_plain_data() -> None:
    assert Counts(read=1, duplicates=1).to_dict() == {
        "read": 1,
        "delivered": 0,
        "rejected": 0,
        "duplicates": 1,
    }
