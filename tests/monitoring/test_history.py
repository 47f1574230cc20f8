"""Tables that only grow."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_nlp.errors import InputError
from batch_nlp.monitoring.history import append, read_history

SCHEMA = pa.schema({"run_id": pa.string(), "n_rows": pa.int64()})


def test_a_column_that_came_later_is_null_in_older_rows(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    append(path, {"run_id": "a"}, pa.schema({"run_id": pa.string()}))
    append(path, {"run_id": "b", "n_rows": 2}, SCHEMA)
    assert pq.read_table(path).to_pydict() == {"run_id": ["a", "b"], "n_rows": [None, 2]}


@pytest.mark.parametrize("content", [b"", b"PAR1 cut short"])
def test_a_damaged_table_is_said_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"runs\.parquet cannot be read .* move it away"):
        append(path, {"run_id": "a"}, SCHEMA)
    assert path.read_bytes() == content


def test_a_row_that_does_not_fit_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    append(path, {"run_id": "a", "n_rows": 1}, SCHEMA)
    with pytest.raises(pa.ArrowException):
        append(path, {"run_id": "b", "n_rows": "many"}, SCHEMA)
    assert read_history(path, SCHEMA).num_rows == 1
    assert [each.name for each in tmp_path.iterdir()] == ["runs.parquet"]
