"""Read any data set through the door, and see what became of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_nlp.logs import Clock
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.datasets import Dataset, MessagesDataset
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.rows.stream import RowStream
from batch_nlp.rows.validate import validate


@dataclass(frozen=True)
class Passed:
    """What a `RowStream` came to."""

    source: Source
    accepted: pd.DataFrame
    rejected: pd.DataFrame
    counts: dict[str, Counts]
    skipped: int

    @property
    def reasons(self) -> list[tuple[Any, ...]]:
        """Row, column and check of every rejected row."""
        return list(self.rejected[["row", "column", "check"]].itertuples(index=False, name=None))


@pytest.fixture
def read_rows(tmp_path: Path) -> Callable[..., Passed]:
    """Read a data set to its end."""

    def read(dataset: Dataset, *, batch_rows: int = 500, targets: bool = True) -> Passed:
        source = dataset.source()
        path = tmp_path / "rejected.parquet"
        stream = RowStream(
            source,
            lambda frame: validate(frame, source.fields),
            engine=Engine(batch_rows=batch_rows, threads=1),
            spill=tmp_path / "spill",
            rejected=path,
            clock=Clock(),
            targets=targets,
        )
        with stream:
            frames = list(stream)
        accepted = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        return Passed(source, accepted, pd.read_parquet(path), stream.counts, stream.skipped)

    return read


@pytest.fixture
def messages(tmp_path: Path, read_rows: Callable[..., Passed]) -> Callable[..., Passed]:
    """Read a messages file of the given content; further options are of `MessagesDataset`."""

    def read(name: str, content: str | bytes, *, targets: bool = True, **options: Any) -> Passed:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_rows(MessagesDataset(path=str(path), **options), targets=targets)

    return read
