"""Tables that only grow: one row a run, never lost and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_nlp.errors import InputError
from batch_nlp.tables import ParquetSink


def read_history(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table that only grows; it has no row while there is no file.

    Parameters
    ----------
    path : Path
        Parquet file.
    schema : pyarrow.Schema
        Its columns; one that an earlier version did not write is null.

    Raises
    ------
    InputError
        If the file cannot be read, or is another table.
    """
    if not path.exists():
        return schema.empty_table()
    try:
        table = pq.read_table(path)
        rows = [
            table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].removesuffix(".")
        message = f"{path} cannot be read ({reason}): move it away, and a new one is begun."
        raise InputError(message) from error
    return pa.Table.from_arrays(rows, schema=schema)


def append(path: Path, row: Mapping[str, Any], schema: pa.Schema) -> None:
    """Add a row at the end; the file is written anew beside the old one, and then takes its place.

    Parameters
    ----------
    path : Path
        Parquet file; it is made if it is not there.
    row : mapping of str to object
        Values by column; a column that is left out is null.
    schema : pyarrow.Schema
        Columns.

    Raises
    ------
    InputError
        As `read_history`; the file then stays as it is.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> schema = pa.schema({"run_id": pa.string(), "n_rows": pa.int64()})
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "runs.parquet"
    ...     append(path, {"run_id": "a", "n_rows": 1}, schema)
    ...     append(path, {"run_id": "b"}, schema)
    ...     read_history(path, schema).to_pydict()
    {'run_id': ['a', 'b'], 'n_rows': [1, None]}
    """
    before = read_history(path, schema)
    with ParquetSink(path, schema) as sink:
        sink.write(before)
        sink.write(pa.Table.from_pylist([dict(row)], schema=schema))
