"""The feature store."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Generator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.pipeline import Pipeline

from batch_nlp import keys as keys_module
from batch_nlp import store as store_module
from batch_nlp.embedders import Encoded, HashingEmbedder
from batch_nlp.errors import InputError
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import JOINED_FIELDS
from batch_nlp.store import (
    SNAPSHOT,
    FeatureStore,
    Manifest,
    StoreAccess,
    make_room,
    making_room,
    manifest_of,
    read_manifest,
    write_manifest,
)
from batch_nlp.tables import ParquetSink, from_pandas
from batch_nlp.training.labels import StarRule
from batch_nlp.transformers import CleanText, TextEmbedder, TextStatistics
from batch_nlp.workers import mapped


class Counting(HashingEmbedder):
    """Remembers what it was asked for."""

    asked: ClassVar[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Encoded:
        self.asked.extend(texts)
        return super().encode(texts)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that `Counting` embedded."""
    found: list[str] = []
    monkeypatch.setattr(Counting, "asked", found)
    return found


class Features:
    """Takes features from a store, in any process."""

    def __init__(self, access: StoreAccess) -> None:
        self.access = access

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self.access.for_batch(Clock()).features(rows)


def kernel(embedder: Any, **spec: Any) -> Kernel:
    steps = [
        ("clean_text", CleanText(**spec)),
        ("text_statistics", TextStatistics()),
        ("embed", TextEmbedder(embedder=embedder)),
    ]
    return Kernel(JOINED_FIELDS, Pipeline(steps), spec)


@pytest.fixture
def one() -> Kernel:
    return kernel(Counting(n_features=4))


def typed(one: Kernel, *rows: dict[str, str]) -> pd.DataFrame:
    whole = [{"id": str(i)} | row for i, row in enumerate(rows)]
    verdict = one.check(pd.DataFrame(whole, dtype="str"))
    assert verdict.failures.empty
    return verdict.accepted


def test_features_are_computed_once(tmp_path: Path, one: Kernel, asked: list[str]) -> None:
    rows = typed(one, {"text": "a b"}, {"text": "c"}, {"text": "a b"}).set_axis([4, 9, 2])
    store = FeatureStore(tmp_path, one, Clock())
    first = store.features(rows)
    assert first.index.tolist() == [4, 9, 2]
    assert first["text"].tolist() == ["a b", "c", "a b"]
    assert first["key"].nunique() == 2
    assert (store.usage.computed, store.usage.reused, store.usage.embedded) == (3, 0, 2)
    again = FeatureStore(tmp_path, one, Clock())
    pd.testing.assert_frame_equal(again.features(rows), first)
    assert (again.usage.computed, again.usage.reused, again.usage.embedded) == (0, 3, 0)
    assert asked == ["a b", "c"]


def test_texts_have_their_vectors_from_the_store(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    texts = pd.Series(["c", "a b", "d", "c", ""], [7, 0, 3, 3, 1], dtype="str")
    expected = HashingEmbedder(n_features=4).encode(texts.tolist()).vectors
    FeatureStore(tmp_path, one, Clock()).keep(typed(one, {"text": "a b"}))
    for embedded in (3, 0):
        store = FeatureStore(tmp_path, one, Clock())
        keys = store.text_keys(texts)
        assert keys.index.tolist() == texts.index.tolist()
        np.testing.assert_array_equal(store.vectors(texts, keys), expected)
        assert store.usage.embedded == embedded
    assert asked == ["a b", "c", "d", ""]


def test_without_an_embedder_vectors_have_no_dimensions(tmp_path: Path) -> None:
    texts = pd.Series(["c", "a b"], dtype="str")
    store = FeatureStore(tmp_path, kernel(None), Clock())
    assert store.vectors(texts, store.text_keys(texts)).shape == (2, 0)


def test_known_and_new_rows_keep_their_order(tmp_path: Path, one: Kernel, asked: list[str]) -> None:
    texts = [{"text": text} for text in "abcdef"]
    expected = FeatureStore(tmp_path / "x", one, Clock()).features(typed(one, *texts))
    store = FeatureStore(tmp_path / "y", one, Clock())
    store.features(typed(one, texts[4], texts[1]))
    pd.testing.assert_frame_equal(store.features(typed(one, *texts)), expected)


def test_a_changed_text_is_computed_and_a_changed_rating_is_not(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    FeatureStore(tmp_path, one, Clock()).features(
        typed(one, {"text": "a", "stars": "1"}, {"text": "b", "stars": "1"})
    )
    rated = FeatureStore(tmp_path, one, Clock())
    rated.features(typed(one, {"text": "a", "stars": "5", "id": "z"}, {"text": "b", "label": "0"}))
    assert (rated.usage.computed, rated.usage.embedded) == (0, 0)
    changed = FeatureStore(tmp_path, one, Clock())
    changed.features(typed(one, {"text": "a"}, {"text": "B"}))
    assert (changed.usage.computed, changed.usage.reused, changed.usage.embedded) == (1, 1, 1)


def test_another_date_is_another_row_but_the_same_text(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    FeatureStore(tmp_path, one, Clock()).features(typed(one, {"text": "a"}))
    store = FeatureStore(tmp_path, one, Clock())
    store.features(typed(one, {"text": "a", "date": "2020-01-01"}, {"text": " a ", "useful": "1"}))
    assert (store.usage.computed, store.usage.embedded) == (2, 0)


def test_another_pipeline_or_embedder_shares_nothing_it_must_not(
    tmp_path: Path, asked: list[str]
) -> None:
    usage = []
    for each in (
        kernel(Counting(n_features=4)),
        kernel(Counting(n_features=4), lowercase=True),
        kernel(Counting(n_features=8)),
        kernel(None),
    ):
        store = FeatureStore(tmp_path, each, Clock())
        features = store.features(typed(each, {"text": "A"}))
        usage.append((store.usage.computed, store.usage.embedded))
        assert features["clean_text"].item() == ("a" if each.spec else "A")
        assert len(features.filter(like="embedding_").columns) == each.n_dims
    assert usage == [(1, 1), (1, 1), (0, 1), (0, 0)]


def test_missing_values_come_back_missing(tmp_path: Path, one: Kernel, asked: list[str]) -> None:
    rows = typed(one, {"text": "a", "elite": ""}, {"text": "a", "city": "Reno", "fans": "3"})
    for _ in range(2):
        features = FeatureStore(tmp_path, one, Clock()).features(rows)
        pd.testing.assert_frame_equal(features[one.content], rows[one.content])
    manifest = deliver(tmp_path, one, rows, dated=False)
    frames = FeatureStore(tmp_path, one, Clock()).read(manifest, batch_rows=9, newest=9)
    pd.testing.assert_frame_equal(pd.concat(frames)[one.content], rows[one.content])


def deliver(store: Path, one: Kernel, rows: pd.DataFrame, *, dated: bool) -> Manifest:
    features = FeatureStore(store, one, Clock()).features(rows)
    snapshot = rows[["id", "stars", "label"]].join(features["key"])
    with ParquetSink(store / "snapshots" / "s.parquet", SNAPSHOT) as sink:
        sink.write(from_pandas(snapshot, SNAPSHOT))
    manifest = manifest_of(
        one,
        run_id="r",
        created="2020-01-01T00:00:00Z",
        snapshot="snapshots/s.parquet",
        n_rows=len(rows),
        sources={},
        dated=dated,
    )
    write_manifest(store, manifest)
    return manifest


DAYS = [3, 1, 5, 4, 2]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_a_snapshot_is_read_in_order(
    tmp_path: Path, one: Kernel, asked: list[str], batch_rows: int
) -> None:
    rows = typed(
        one,
        *({"text": f"{d}", "date": f"2020-01-0{d}", "stars": str(d)} for d in DAYS),
        {"text": "3", "date": "2020-01-03", "label": "neutral"},
    )
    manifest = deliver(tmp_path, one, rows, dated=True)

    def read(newest: int) -> pd.DataFrame:
        store = FeatureStore(tmp_path, one, Clock())
        frames = list(store.read(manifest, batch_rows=batch_rows, newest=newest))
        assert all(len(frame) <= batch_rows for frame in frames)
        return pd.concat(frames)

    whole = read(100)
    assert whole["id"].tolist() == list("012345")
    assert whole["stars"].fillna(0).tolist() == [*DAYS, 0]
    assert whole["label"].fillna(-1).tolist() == [-1] * 5 + [1]
    assert whole["text"].tolist() == [*map(str, DAYS), "3"]
    assert np.isfinite(whole.filter(like="embedding_").to_numpy()).all()
    # Of two equally new ones, the later in the file.
    assert read(3)["id"].tolist() == ["2", "3", "5"]
    assert read(4)["id"].tolist() == ["0", "2", "3", "5"]


def test_a_row_whose_features_are_gone_is_none_of_the_newest(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, *({"text": f"{d}", "date": f"2020-01-0{d}"} for d in DAYS))
    store = FeatureStore(tmp_path, one, Clock())
    store.keep(rows.iloc[[1]])  # the oldest, in a file of its own
    (oldest,) = (tmp_path / "rows").rglob("*.parquet")
    manifest = deliver(tmp_path, one, rows, dated=True)
    oldest.unlink()
    frames = FeatureStore(tmp_path, one, Clock()).read(manifest, batch_rows=2, newest=4)
    assert pd.concat(list(frames))["text"].tolist() == ["3", "5", "4", "2"]


@pytest.mark.parametrize("classes", [None, StarRule().apply])
def test_of_many_rows_few_are_held_at_once(
    tmp_path: Path,
    one: Kernel,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    classes: Any,
) -> None:
    """Beside a date or a class of each row, only those that are asked for."""
    dates = pd.date_range("2020-01-01", periods=60).strftime("%Y-%m-%d")
    rows = typed(one, *({"text": date, "date": date, "stars": "3"} for date in dates))
    manifest = deliver(tmp_path, one, rows, dated=True)
    alive: list[weakref.ref[Any]] = []
    most = 0
    frames_of, take = store_module._frames, store_module._Parts.take

    def watch(rows: Any) -> Any:
        nonlocal most
        alive.append(weakref.ref(rows))
        there = [each() for each in alive]
        most = max(most, sum(len(each) for each in there if each is not None))
        return rows

    monkeypatch.setattr(store_module, "_frames", lambda *args: map(watch, frames_of(*args)))
    monkeypatch.setattr(
        store_module._Parts, "take", lambda *args, **named: watch(take(*args, **named))
    )
    monkeypatch.delattr(pq, "read_table")
    store = FeatureStore(tmp_path, one, Clock())
    frames = list(store.read(manifest, batch_rows=4, newest=8, classes=classes))
    assert sum(map(len, frames)) == 8
    assert len(alive) >= 15 + 15
    # Two of a file's pieces and two of what is found for them.
    assert most <= 16


def test_without_dates_the_last_are_the_newest(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, *({"text": text} for text in "abcd"))
    manifest = deliver(tmp_path, one, rows, dated=False)
    frames = FeatureStore(tmp_path, one, Clock()).read(manifest, batch_rows=1, newest=2)
    assert pd.concat(list(frames))["text"].tolist() == ["c", "d"]


def test_features_that_are_gone_are_missed(tmp_path: Path, one: Kernel, asked: list[str]) -> None:
    manifest = deliver(tmp_path, one, typed(one, {"text": "a"}, {"text": "b"}), dated=False)
    for path in (tmp_path / "rows").rglob("*.parquet"):
        path.unlink()
    frames = FeatureStore(tmp_path, one, Clock()).read(manifest, batch_rows=9, newest=9)
    with pytest.raises(InputError, match=r"lacks the features of 2 messages .* pipeline=feature"):
        list(frames)


def test_the_manifest_describes_what_is_there(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    manifest = deliver(tmp_path, one, typed(one, {"text": "a"}), dated=False)
    assert read_manifest(tmp_path) == manifest
    written = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert written["n_rows"] == 1
    assert written["n_dims"] == 4
    assert written["columns"]["text_length"] == "double"
    assert written["columns"]["date"] == "timestamp[us]"
    assert not {"stars", "label", "id"} & set(written["columns"])
    assert written["fingerprint"] == one.fingerprint
    assert written["vector_fingerprint"] == one.vector_fingerprint


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": "r"}', '{"more": 1}'])
def test_a_manifest_that_says_nothing(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"no features in .*: run pipeline=feature first"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json is damaged .*: run pipeline=feature"):
        read_manifest(tmp_path)


def test_two_runs_that_add_the_same_rows_do_no_harm(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, {"text": "a"}, {"text": "b"})
    expected = FeatureStore(tmp_path, one, Clock()).features(rows)
    for part in list(tmp_path.rglob("*.parquet")):
        shutil.copy(part, part.with_name("of another run.parquet"))
    pd.testing.assert_frame_equal(FeatureStore(tmp_path, one, Clock()).features(rows), expected)


def test_room_is_made_while_batches_come(
    tmp_path: Path, one: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ROOM_EVERY", 2)
    closed = False

    def batches() -> Generator[int]:
        nonlocal closed
        store = FeatureStore(tmp_path, one, Clock())
        try:
            for number in range(5):
                store.keep(typed(one, {"text": f"{number}"}))
                yield number
        finally:
            closed = True

    def kept() -> int:
        return len(list((tmp_path / "rows").rglob("*.parquet")))

    passing = making_room(batches(), tmp_path, 0, remove_snapshot=Path.unlink)
    assert [(number, kept()) for number in passing] == [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1)]
    assert closed


def test_what_gives_the_batches_is_closed_where_room_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ROOM_EVERY", 1)
    closed = []

    def batches() -> Generator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    def refuse(path: Path) -> None:
        raise PermissionError(path)

    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "s.parquet").write_bytes(b"old")
    with pytest.raises(PermissionError) as error:
        list(making_room(batches(), tmp_path, 0, remove_snapshot=refuse))
    # Although the error still holds the frames that it went through.
    assert closed == [True], error


def test_processes_that_add_and_remove_at_once_do_no_harm(tmp_path: Path) -> None:
    plain = kernel(HashingEmbedder(n_features=4))
    rows = typed(plain, *({"text": f"text {i % 30}", "useful": f"{i % 7}"} for i in range(60)))
    batches = [rows.iloc[start : start + 20] for start in [0, 10, 20, 30, 40] * 3]
    access = StoreAccess(tmp_path / "shared", plain, Engine())
    made = mapped(Features(access), batches, processes=2)
    for number, (batch, features) in enumerate(zip(batches, made, strict=True)):
        alone = FeatureStore(tmp_path / f"alone {number}", plain, Clock()).features(batch)
        pd.testing.assert_frame_equal(features, alone)
        make_room(tmp_path / "shared", 4_000 if number % 2 else 0)
    store = FeatureStore(tmp_path / "shared", plain, Clock())
    alone = FeatureStore(tmp_path / "alone", plain, Clock()).features(rows)
    pd.testing.assert_frame_equal(store.features(rows), alone)


def test_what_is_only_kept_is_what_would_be_given(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, {"text": "a b"}, {"text": "c"}, {"text": "a b", "useful": "1"})
    store = FeatureStore(tmp_path, one, Clock())
    keys = store.keep(rows)
    assert (store.usage.computed, store.usage.embedded) == (3, 2)
    again = FeatureStore(tmp_path, one, Clock())
    assert again.keep(rows).tolist() == keys.tolist()
    assert again.features(rows)["key"].tolist() == keys.tolist()
    assert (again.usage.computed, again.usage.reused, again.usage.embedded) == (0, 6, 0)


def test_embeddings_that_are_gone_are_made_again(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, {"text": "a b"}, {"text": "c"})
    first = FeatureStore(tmp_path, one, Clock()).features(rows)
    for path in (tmp_path / "vectors").rglob("*.parquet"):
        path.unlink()
    store = FeatureStore(tmp_path, one, Clock())
    store.keep(rows)
    assert (store.usage.computed, store.usage.embedded) == (0, 2)
    pd.testing.assert_frame_equal(FeatureStore(tmp_path, one, Clock()).features(rows), first)


def test_what_goes_while_it_is_used_is_made_again(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, {"text": "a"}, {"text": "b"})
    store = FeatureStore(tmp_path, one, Clock())
    first = store.features(rows)
    store.features(rows)
    make_room(tmp_path, 0)
    pd.testing.assert_frame_equal(store.features(rows), first)
    assert asked == ["a", "b", "a", "b"]


def test_room_is_made_where_nothing_was_used_for_longest(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    for hour, text in enumerate("abc"):
        FeatureStore(tmp_path, one, Clock()).features(typed(one, {"text": text}))
        for path in tmp_path.rglob("*.parquet"):
            if path.stat().st_mtime > 10**6:
                os.utime(path, (hour, hour))
    FeatureStore(tmp_path, one, Clock()).features(typed(one, {"text": "a"}))
    sizes = {path: path.stat().st_size for path in tmp_path.rglob("*.parquet")}
    assert make_room(tmp_path, sum(sizes.values())) == 0
    assert make_room(tmp_path, sum(sizes.values()) - 1) > 0
    assert make_room(tmp_path, sum(sizes.values()) * 2 // 3) > 0
    store = FeatureStore(tmp_path, one, Clock())
    store.features(typed(one, {"text": "a"}, {"text": "b"}, {"text": "c"}))
    assert asked == ["a", "b", "c", "b"]


def test_old_snapshots_go_and_the_one_delivered_stays(tmp_path: Path, one: Kernel) -> None:
    about: dict[str, Any] = {"created": "", "n_rows": 1, "sources": {}, "dated": False}
    for hour, run in enumerate("abc"):
        snapshot = tmp_path / "snapshots" / f"{run}.parquet"
        with ParquetSink(snapshot, SNAPSHOT) as sink:
            sink.write(SNAPSHOT.empty_table())
        os.utime(snapshot, (hour, hour))
    write_manifest(tmp_path, manifest_of(one, run_id="a", snapshot="snapshots/a.parquet", **about))
    make_room(tmp_path, snapshot.stat().st_size)
    assert sorted(path.name for path in snapshot.parent.iterdir()) == ["a.parquet", "c.parquet"]
    make_room(tmp_path, 0)
    assert [path.name for path in snapshot.parent.iterdir()] == ["a.parquet"]


def test_a_part_of_the_rows_and_then_all_is_as_all_at_once(
    tmp_path: Path, one: Kernel, asked: list[str]
) -> None:
    rows = typed(one, *({"text": f"{number % 7} x", "useful": str(number)} for number in range(40)))

    def content(store: Path, kind: str) -> pd.DataFrame:
        frame = pd.concat(map(pd.read_parquet, (store / kind).rglob("*.parquet")))
        frame = frame.sort_values(frame.columns[0], ignore_index=True)
        assert frame[frame.columns[0]].is_unique
        return frame

    FeatureStore(tmp_path / "whole", one, Clock()).keep(rows)
    parts = FeatureStore(tmp_path / "parts", one, Clock())
    for part in (rows[:31], rows[20:35], rows):
        parts.keep(part)
    for kind in ("rows", "vectors"):
        pd.testing.assert_frame_equal(
            content(tmp_path / "parts", kind), content(tmp_path / "whole", kind)
        )


@pytest.fixture
def columns() -> list[list[str]]:
    """The columns that are read of a file, each time."""
    return []


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, columns: list[list[str]]) -> list[list[int]]:
    """The row groups that are read of a file, each time."""
    seen: list[list[int]] = []
    whole = pq.ParquetFile.read_row_groups

    def read(self: pq.ParquetFile, groups: list[int], names: list[str]) -> pa.Table:
        seen.append(groups)
        columns.append(names)
        return whole(self, groups, names)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read)
    return seen


def test_many_files_are_searched_by_an_index(
    tmp_path: Path, one: Kernel, asked: list[str], reads: list[list[int]]
) -> None:
    for number in range(6):
        FeatureStore(tmp_path, one, Clock()).keep(typed(one, {"text": f"{number}"}))
    store = FeatureStore(tmp_path, one, Clock())
    store.keep(typed(one, {"text": "0"}))
    reads.clear()
    store.features(typed(one, {"text": "3"}))
    assert len(reads) == 2  # of rows and of vectors


def test_the_content_that_is_at_hand_is_not_read(
    tmp_path: Path,
    one: Kernel,
    asked: list[str],
    reads: list[list[int]],
    columns: list[list[str]],
) -> None:
    rows = typed(one, {"text": "a b", "date": "2020-01-01"}, {"text": "c"}, {"text": "a b"})
    made = FeatureStore(tmp_path, one, Clock()).features(rows)
    columns.clear()
    known = FeatureStore(tmp_path, one, Clock()).features(rows)
    assert len(reads) > 0
    assert set(one.content).isdisjoint(chain.from_iterable(columns))
    pd.testing.assert_frame_equal(known, made)
    assert known.columns.tolist()[:1] == ["key"]
    assert known.columns.tolist()[1 : len(one.features) + 1] == one.features.names


def test_of_a_large_file_only_what_is_asked_for_is_read(
    tmp_path: Path, one: Kernel, asked: list[str], reads: list[list[int]]
) -> None:
    rows = typed(one, *({"text": f"{number} words"} for number in range(2500)))
    whole = FeatureStore(tmp_path, one, Clock()).features(rows)
    store = FeatureStore(tmp_path, one, Clock())
    chosen = [2499, 7, 8, 7]
    some = store.features(rows.iloc[chosen].reset_index(drop=True))
    assert reads == [[0, 2], [0, 2]]
    pd.testing.assert_frame_equal(some, whole.iloc[chosen].reset_index(drop=True))
    assert store.usage.computed == store.usage.embedded == 0


def test_keys_of_one_digest_are_told_apart(
    tmp_path: Path, one: Kernel, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = typed(one, *({"text": f"{number} words"} for number in range(9)))
    expected = FeatureStore(tmp_path / "other", one, Clock()).features(rows)
    monkeypatch.setattr(
        keys_module,
        "short",
        lambda keys: keys_module.Short(
            np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.uint16)
        ),
    )
    store = FeatureStore(tmp_path, one, Clock())
    for part in (rows[:5], rows[3:]):
        found = store.features(part)
        pd.testing.assert_frame_equal(found, expected.loc[part.index])
    assert store.usage.computed == 9


def test_a_written_index_serves_the_store(
    tmp_path: Path, one: Kernel, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_KEPT_ROWS", 4)
    rows = typed(one, *({"text": f"{number} words"} for number in range(9)))
    whole = FeatureStore(tmp_path, one, Clock()).features(rows)
    pd.testing.assert_frame_equal(FeatureStore(tmp_path, one, Clock()).features(rows), whole)
    kinds = {path.parts[-3] for path in tmp_path.rglob("*.index")}
    assert kinds == {"rows", "vectors"}
    for path in tmp_path.glob("rows/*/*.parquet"):
        path.unlink()
    store = FeatureStore(tmp_path, one, Clock())
    pd.testing.assert_frame_equal(store.features(rows), whole)
    assert (store.usage.computed, store.usage.embedded) == (9, 0)


def test_room_is_made_of_indexes_too(tmp_path: Path) -> None:
    older, newer = (tmp_path / "rows" / "x" / name for name in ("a.index", "b.parquet"))
    older.parent.mkdir(parents=True)
    for age, path in ((2, older), (1, newer)):
        path.write_bytes(b"x" * 10)
        os.utime(path, (1_000 - age, 1_000 - age))
    assert make_room(tmp_path, 15) == 10
    assert not older.exists()
    assert newer.exists()
