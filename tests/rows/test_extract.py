"""Joins and duplicates."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_nlp import tables
from batch_nlp.errors import InputError
from batch_nlp.rows import extract
from batch_nlp.rows.datasets import MessagesDataset, YelpDataset
from batch_nlp.rows.extract import Engine, Extraction
from batch_nlp.schemas import JOINED_FIELDS, Field, Kind

Read = Callable[..., Any]


@pytest.fixture
def yelp(tmp_path: Path, read_rows: Read) -> Read:
    """Read reviews with their users and businesses."""

    def read(review: list[Any], **tables: list[Any]) -> Any:
        paths = {}
        for name, rows in {"review": review, **tables}.items():
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            paths[name] = tmp_path / f"{name}.json"
            paths[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_rows(YelpDataset(**{name: str(path) for name, path in paths.items()}))

    return read


def review(name: str, **more: Any) -> dict[str, Any]:
    return {"review_id": name, "text": f"text {name}", "stars": 4.0, "user_id": "u1"} | more


USER = {"user_id": "u1", "fans": 3, "useful": 7, "elite": "2018,20,20", "average_stars": 1.5}
BUSINESS = {"business_id": "b1", "city": "Reno", "review_count": 9, "stars": 2.5, "is_open": 1}


def test_columns_of_both_tables_join_under_their_own_names(yelp: Read) -> None:
    got = yelp([review("r1", business_id="b1", useful=1)], user=[USER], business=[BUSINESS])
    row = got.accepted.iloc[0]
    assert (row["useful"], row["useful_user"], row["fans"], row["elite"]) == (1, 7, 3, "2018,20,20")
    assert (row["city"], row["review_count_business"], row["is_open"]) == ("Reno", 9, 1)
    assert row["stars"] == 4


def test_a_review_without_user_or_business_is_kept(yelp: Read) -> None:
    got = yelp(
        [
            review("r1"),
            review("r2", user_id="stranger"),
            review("r3", user_id=None),
            review("r4", business_id="b9"),
        ],
        user=[USER],
        business=[BUSINESS],
    )
    assert got.accepted["id"].tolist() == ["r1", "r2", "r3", "r4"]
    assert got.accepted["fans"].fillna(-1).tolist() == [3, -1, -1, 3]
    assert got.accepted["city"].isna().all()
    assert got.rejected.empty


def test_tables_may_be_absent(yelp: Read) -> None:
    got = yelp([review("r1")])
    assert got.accepted["fans"].isna().all()
    assert set(got.counts) == {"extract", "deduplicate", "validate"}


def test_a_user_twice_does_not_multiply_the_reviews(yelp: Read) -> None:
    got = yelp([review("r1"), review("r2")], user=[USER, USER | {"fans": 8}, USER])
    assert got.accepted["fans"].tolist() == [3, 3]
    assert got.reasons == [(2, "user_id", "not a duplicate"), (3, "user_id", "not a duplicate")]
    counts = got.counts["user"]
    assert (counts.read, counts.delivered, counts.duplicates) == (3, 1, 2)


def test_a_bad_user_is_rejected_and_its_reviews_are_kept(yelp: Read) -> None:
    users = [USER | {"fans": -1}, "broken", {"user_id": None}, USER | {"user_id": "u2"}]
    got = yelp([review("r1"), review("r2", user_id="u2"), review("r3", user_id=None)], user=users)
    assert got.accepted["fans"].fillna(-9).tolist() == [-9, 3, -9]
    assert sorted(got.reasons) == [
        (1, "fans", "whole number of at least 0"),
        (2, "line", "valid JSON"),
        (3, "user_id", "not missing"),
    ]
    assert got.rejected["source"].str.endswith("user.json").all()
    assert got.rejected.set_index("row")["id"].to_dict()[1] == "u1"
    counts = got.counts["user"]
    assert (counts.read, counts.delivered, counts.rejected) == (4, 1, 3)


def test_the_first_of_an_id_is_kept_and_the_order_too(yelp: Read) -> None:
    rows = [review("b"), review("a"), review("b", text="again"), "broken", review("c"), review("a")]
    got = yelp(rows)
    assert got.accepted["text"].tolist() == ["text b", "text a", "text c"]
    assert sorted(got.reasons) == [
        (3, "review_id", "not a duplicate"),
        (4, "line", "valid JSON"),
        (6, "review_id", "not a duplicate"),
    ]
    assert got.counts["extract"].to_dict() == {
        "read": 6,
        "delivered": 5,
        "rejected": 1,
        "duplicates": 0,
    }
    assert got.counts["deduplicate"].duplicates == 2


def test_the_same_text_from_two_people_is_two_messages(yelp: Read) -> None:
    got = yelp([review("r1", text="Good."), review("r2", text="Good.", user_id="u2")])
    assert got.accepted["id"].tolist() == ["r1", "r2"]


def test_several_files_of_each_table(read_rows: Read, tmp_path: Path) -> None:
    for number, rows in enumerate(([review("r2")], [review("r1"), review("r2")])):
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"review_{number}.json").write_text(lines)
        user = USER | {"user_id": f"u{number}", "fans": number}
        (tmp_path / f"user_{number}.json").write_text(json.dumps(user))
    got = read_rows(
        YelpDataset(review=str(tmp_path / "review_*.json"), user=str(tmp_path / "user_*.json"))
    )
    assert got.accepted["id"].tolist() == ["r2", "r1"]
    assert got.accepted["fans"].tolist() == [1, 1]
    assert got.rejected["source"].tolist() == [str(tmp_path / "review_1.json")]


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_stays_in_the_spill_folder(tmp_path: Path, failing: bool) -> None:
    (tmp_path / "review.json").write_text(json.dumps(review("r1")))
    source = YelpDataset(review=str(tmp_path / "review.json")).source()
    spill = tmp_path / "spill"
    if failing:
        (tmp_path / "review.json").unlink()
        with pytest.raises(InputError, match="Cannot read"):
            Extraction(source, Engine(threads=1), spill).__enter__()
    else:
        with Extraction(source, Engine(threads=1), spill) as extraction:
            assert list(spill.iterdir())
            assert sum(batch.num_rows for batch in extraction.rows()) == 1
    assert not list(spill.iterdir())


def test_the_spill_folder_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "review.json").write_text(json.dumps(review("r1")))
    source = YelpDataset(review=str(tmp_path / "review.json")).source()
    engine = Engine(threads=1, spill=str(tmp_path / "fast disk"))
    with Extraction(source, engine, tmp_path / "spill"):
        assert list((tmp_path / "fast disk").iterdir())
    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_rows": 0}, r"engine\.batch_rows must be at least 1, got 0"),
        ({"memory_limit": "lots"}, "engine: DuckDB does not start with"),
        ({"threads": 0}, "engine: DuckDB does not start with"),
    ],
)
def test_an_engine_that_cannot_run(tmp_path: Path, options: dict[str, Any], complaint: str) -> None:
    (tmp_path / "review.json").write_text(json.dumps(review("r1")))
    source = YelpDataset(review=str(tmp_path / "review.json")).source()
    with pytest.raises(InputError, match=complaint):
        Extraction(source, Engine(**options), tmp_path / "spill").__enter__()


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_real_reviews_without_a_user_table(read_rows: Read, shared_data: Path) -> None:
    paths = {
        table: shared_data / "yelp_head" / f"yelp_academic_dataset_{table}.json"
        for table in ("review", "business")
    }
    got = read_rows(YelpDataset(**{table: str(path) for table, path in paths.items()}))
    known = {row["business_id"]: row["city"] for row in rows_of(paths["business"])}
    expected = [known.get(row["business_id"]) for row in rows_of(paths["review"])]
    assert [city if isinstance(city, str) else None for city in got.accepted["city"]] == expected
    assert 0 < sum(city is not None for city in expected) < len(expected)
    assert got.accepted["fans"].isna().all()
    assert got.rejected.empty


def test_real_reviews_with_users(read_rows: Read, shared_data: Path) -> None:
    folder = shared_data / "yelp"
    paths = {
        "review": folder / "yelp_academic_dataset_review.json",
        "user": folder / "yelp_academic_dataset_user.json",
    }
    got = read_rows(YelpDataset(**{table: str(path) for table, path in paths.items()}))
    known = {row["user_id"]: row["fans"] for row in rows_of(paths["user"])}
    expected = [known.get(row["user_id"], -1) for row in rows_of(paths["review"])]
    assert got.accepted["fans"].fillna(-1).tolist() == expected
    assert max(expected) > 0
    assert got.accepted["stars"].tolist() == [row["stars"] for row in rows_of(paths["review"])]


def extraction_of(
    folder: Path, rows: list[dict[str, Any]], *, name: str = "review.json", **engine: Any
) -> Extraction:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Extraction(YelpDataset(review=str(file)).source(), Engine(**engine), folder / "spill")


def limit_of(extraction: Extraction) -> str:
    return str(extraction._run("SELECT current_setting('memory_limit')")[0][0])


def test_a_limit_below_what_a_statement_needs_is_named(tmp_path: Path) -> None:
    rows = [review(f"r{i}") for i in range(3000)]
    with (
        pytest.raises(InputError, match=r"engine\.memory_limit=200KB is too little, or the disk"),
        extraction_of(tmp_path, rows, memory_limit="200KB") as extraction,
    ):
        list(extraction.rows())


@pytest.mark.parametrize(
    ("engine", "threads"),
    [(Engine(), 18), (Engine(memory_limit="1GB"), 96), (Engine(threads=30), 30)],
)
def test_many_cores_share_the_memory(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, threads: int
) -> None:
    monkeypatch.setattr(extract, "own_threads", lambda: 96)
    with engine.connect() as database:
        assert database.sql("SELECT current_setting('threads')").fetchall() == [(threads,)]


def test_a_large_message_gets_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [review("r1", text="x" * 9_000_000), review("r2")]
    longest = len(json.dumps(rows[0]))
    with extraction_of(tmp_path, rows, memory_limit="40MB") as extraction:
        texts = [text for batch in extraction.rows() for text in batch["text"].to_pylist()]
        assert limit_of(extraction) == f"{16 * longest / 2**20:.1f} MiB"
    assert texts == [row["text"] for row in rows]
    monkeypatch.setattr(extract, "_TIMES_A_MESSAGE", 1)
    with (
        pytest.raises(InputError, match=r"engine\.memory_limit=40MB is too little"),
        extraction_of(tmp_path, rows, memory_limit="40MB") as extraction,
    ):
        list(extraction.rows())


def test_long_messages_are_joined_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "PART_BYTES", 3000)
    monkeypatch.setattr(extract, "PART_ROWS", 40)
    small = extract._small
    monkeypatch.setattr(extract, "_small", lambda batch, most=1000: small(batch, most))
    sizes = []
    part = Extraction._part

    def counted(self: Extraction, *args: Any) -> Any:
        found = part(self, *args)
        sizes.append(found.num_rows)
        return found

    monkeypatch.setattr(Extraction, "_part", counted)
    names = [f"r{i}" for i in range(100)]
    with extraction_of(tmp_path, [review(name) for name in names]) as extraction:
        ids = [each for batch in extraction.rows() for each in batch["id"].to_pylist()]
    assert ids == names
    assert sum(sizes) == 100
    assert 5 < max(sizes) < 40


@pytest.mark.parametrize(("limit", "packed"), [("20MB", True), ("1GB", False)])
def test_tables_are_compressed_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, packed: bool
) -> None:
    said = []
    run = Extraction._run
    monkeypatch.setattr(
        Extraction, "_run", lambda self, sql, *values: said.append(sql) or run(self, sql, *values)
    )
    rows = [review(f"a review with a long name {i}") for i in range(100_000)]
    with extraction_of(tmp_path, rows, memory_limit=limit) as extraction:
        assert sum(batch.num_rows for batch in extraction.rows()) == len(rows)
    assert any("CHECKPOINT" in sql for sql in said) == packed


@pytest.mark.parametrize("characters", [0, 5000])
def test_many_messages_do_not_raise_the_limit(tmp_path: Path, characters: int) -> None:
    n_rows = 40_000_000 // (characters + 200)
    rows = [review(f"r{i}", text="x" * characters) for i in range(n_rows)]
    name = "a long name " * 15 + ".json"
    with extraction_of(tmp_path, rows, name=name, memory_limit="200MiB") as extraction:
        assert sum(batch.num_rows for batch in extraction.rows()) == n_rows
        assert limit_of(extraction) == "200.0 MiB"


def test_order_and_joins_do_not_depend_on_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a few blocks, in some of which nothing is wanted; two threads, two files."""
    monkeypatch.setattr(extract, "PART_ROWS", 40)
    monkeypatch.setattr(tables, "LINES_BYTES", 1000)
    users = [USER | {"user_id": f"u{i}", "fans": i} for i in range(50) if i % 7]
    rows = [
        review(f"r{i}", user_id=f"u{i % 50}", date=f"20{10 + i // 100}-01-01") for i in range(1000)
    ]
    repeats = [rows[i] for i in range(0, 600, 9)]
    files = {"a": rows[:600], "b": [*repeats, *rows[600:]], "user": [*users, users[3]]}
    for name, content in files.items():
        lines = [json.dumps(row) for row in content]
        lines[30:30] = ["no JSON", ""]
        (tmp_path / f"{name}.json").write_text("\n".join(lines), encoding="utf-8")
    dataset = YelpDataset(
        review=[str(tmp_path / "a.json"), str(tmp_path / "b.json")],
        user=str(tmp_path / "user.json"),
        since="2012-01-01",
        max_reviews=500,
    )
    engine = Engine(threads=2, batch_rows=64)
    with Extraction(dataset.source(), engine, tmp_path / "spill", targets=False) as extraction:
        batches = list(extraction.rows())
        assert extraction.counts["user"].rejected == extraction.counts["user"].duplicates == 1
    got = pa.Table.from_batches(batches).to_pylist()
    n_rows = 500 - 2 - sum(i >= 200 for i in range(0, 600, 9))  # no JSON, repeats
    assert [row["id"] for row in got] == [f"r{i}" for i in range(200, 200 + n_rows)]
    for row in got:
        i = int(row["id"][1:])
        assert row["fans"] == (str(i % 50) if i % 50 % 7 else None)
        assert row["stars"] is None
        file, line = ("a", i) if i < 600 else ("b", i - 600 + len(repeats))
        assert row["source"].endswith(f"{file}.json")
        assert row["row"] == line + 1 + 2 * (line >= 30)
    assert {batch.num_rows for batch in batches[:-1]} == {64}


def test_what_a_review_says_itself_is_not_looked_up(tmp_path: Path) -> None:
    files = {"review": [review("r1", fans=5), review("r2", fans=None)], "user": [USER]}
    for name, content in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.json").write_text(lines, encoding="utf-8")
    dataset = YelpDataset(review=str(tmp_path / "review.json"), user=str(tmp_path / "user.json"))
    source = dataset.source(fields=JOINED_FIELDS | {"fans": Field(Kind.NUMBER, named=True)})
    with Extraction(source, Engine(), tmp_path / "spill") as extraction:
        (batch,) = extraction.rows()
    assert batch["fans"].to_pylist() == ["5", "3"]


def test_a_batch_holds_no_more_than_its_rows(tmp_path: Path) -> None:
    rows = [review(f"r{i}", text="x" * 1000) for i in range(500)]
    with extraction_of(tmp_path, rows, batch_rows=50) as extraction:
        batches = list(extraction.rows())
    assert max(len(pickle.dumps(batch)) for batch in batches) < 2 * 50 * 1000


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"r4"', '"r4', "a line is no longer JSON"),
        ("\n", "\n\n", "10 rows at first, then 9"),
        ("review_id", "\udcff", "10 rows at first, then 9"),
    ],
)
def test_a_file_that_changes_between_the_readings_is_told(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    rows = [review(f"r{i}") for i in range(10)]
    with extraction_of(tmp_path, rows) as extraction:
        path = tmp_path / "review.json"
        changed = path.read_text("utf-8").replace(old, new, 1)
        path.write_text(changed, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(InputError, match=rf"review\.json changed while being read: {what}"):
            list(extraction.rows())


@pytest.mark.parametrize("limits", [{}, {"max_reviews": 3}, {"since": "2020-01-02"}])
def test_rows_are_left_out_of_files_of_any_type(tmp_path: Path, limits: dict[str, Any]) -> None:
    """Also beside columns that nobody asks for."""
    texts = pa.array([f"text {i}" for i in range(6)])
    table = {
        "id": ["a", "b", "a", "c", "d", "b"],
        "text": texts.cast(pa.string_view()),
        "date": [f"2020-01-0{day}" for day in range(1, 7)],
        "other": pa.array([[f"{i}"] for i in range(6)]).cast(pa.list_(pa.string_view())),
    }
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    source = MessagesDataset(path=str(tmp_path / "m.parquet"), **limits).source()
    with Extraction(source, Engine(), tmp_path / "spill") as extraction:
        (batch,) = extraction.rows()
    delivered = {"max_reviews": [0, 1], "since": [1, 2, 3, 4]}
    expected = delivered[next(iter(limits))] if limits else [0, 1, 3, 4]
    assert batch["text"].to_pylist() == [f"text {i}" for i in expected]
    assert batch["row"].to_pylist() == [i + 1 for i in expected]


@pytest.mark.parametrize("limits", [{}, {"since": "2000-01-01"}, {"max_reviews": 3}])
def test_what_is_added_between_the_readings_is_not_delivered(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        lines = [json.dumps(review(f"{name}{i}", date="2020-01-01")) for i in range(2)]
        (tmp_path / f"{name}.json").write_text("\n".join(lines) + "\n")
    names = [str(tmp_path / "one.json"), str(tmp_path / "two.json")]
    source = YelpDataset(review=names, **limits).source()
    with Extraction(source, Engine(), tmp_path / "spill") as extraction:
        for name in names:
            with Path(name).open("a") as stream:
                stream.write(json.dumps(review("new", date="2020-01-01")) + "\n")
        (batch,) = extraction.rows()
    ids = ["one0", "one1", "two0", "two1"]
    assert batch["id"].to_pylist() == ids[: limits.get("max_reviews")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_without_the_key_of_a_table_joins_nothing(tmp_path: Path, kind: str) -> None:
    table = pa.table({"review_id": ["r0", "r1"], "text": ["x", "y"]})
    if kind == "csv":
        pyarrow.csv.write_csv(table, tmp_path / "review.csv")
    else:
        pq.write_table(table, tmp_path / "review.parquet")
    (tmp_path / "user.json").write_text('{"user_id": "u1", "fans": 3}\n')
    dataset = YelpDataset(review=str(tmp_path / f"review.{kind}"), user=str(tmp_path / "user.json"))
    with Extraction(dataset.source(), Engine(), tmp_path / "spill") as extraction:
        (batch,) = extraction.rows()
    assert batch["id"].to_pylist() == ["r0", "r1"]
    assert batch["user_id"].null_count == batch["fans"].null_count == 2


@pytest.mark.faults
def test_millions_of_messages_that_are_not_asked_for_fit_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "review.json").open("w") as stream:
        for i in range(3_000_000):
            day = f"20{i % 20:02}-01-01"
            stream.write(f'{{"review_id":"r{i}","text":"x","date":"{day}"}}\n')
    source = YelpDataset(review=str(tmp_path / "review.json"), since="2010-01-01").source()
    with Extraction(source, Engine(memory_limit="60MB"), tmp_path / "spill") as extraction:
        assert extraction.n_rows == extraction.skipped == 1_500_000
        assert next(extraction.rows(10))["id"].to_pylist() == [f"r{i}" for i in range(10, 20)]
