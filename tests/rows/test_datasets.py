"""What files people bring, and how the program reads them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_nlp import tables
from batch_nlp.errors import InputError
from batch_nlp.rows.datasets import (
    Columns,
    HeldOutDataset,
    MessagesDataset,
    SampleDataset,
    YelpDataset,
)
from batch_nlp.sample import Sample
from batch_nlp.schemas import JOINED_FIELDS

Read = Callable[..., Any]


def jsonl(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


# CSV


def test_values_may_hold_delimiters_quotes_and_line_breaks(messages: Read) -> None:
    got = messages("m.csv", 'id,text\na,"x, ""y""\nz"\nb,\u00a0ok\u2028\n')
    assert got.accepted["text"].tolist() == ['x, "y"\nz', "\u00a0ok\u2028"]


def test_rows_of_the_wrong_length_are_rejected_under_their_number(messages: Read) -> None:
    got = messages("m.csv", 'id,text\n"a","1\n1"\nb,2,too many\nc\nd,4\n')
    assert got.accepted["id"].tolist() == ["a", "d"]
    assert got.reasons == [
        (2, "line", "2 values in a record, got 3"),
        (3, "line", "2 values in a record, got 1"),
    ]


@pytest.mark.parametrize(
    ("end", "record"),
    [
        ('2,"open\n3,c\n', 2),
        ('2,b\n3,"open', 3),
        ('2,"', 2),
        ('2,b\n"3,c\n4,d\n', 3),
        ('2,"b""\n', 2),
        ('2,"\n\n', 2),
        ('2,b\n3,"c,\n4,d\n', 3),
        ('2,b\n3,c,"x""\n4,d\n', 3),
    ],
)
@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz"])
def test_a_quote_that_is_never_closed_is_told(
    messages: Read, name: str, end: str, record: int
) -> None:
    content = f"id,text\n1,a\n{end}".encode()
    with pytest.raises(InputError, match=f"a quote that begins in record {record} is never closed"):
        messages(name, gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize("end", ['""', '"x"""', '"x"', '"x\n"', '"\n"', '5" pipe', '"5"" pipe,"'])
@pytest.mark.parametrize("line_end", ["", "\n", "\r\n", "\n\n"])
def test_a_quote_at_the_end_of_a_file_may_be_a_closed_one(
    messages: Read, end: str, line_end: str
) -> None:
    got = messages("m.csv", f"id,text\n1,a\n2,{end}{line_end}")
    assert got.counts["extract"].read == 2


@pytest.mark.parametrize("end", ['5" pipe,x,y', '"5"" pipe","x",y"', '"a""",b,c', '"' * 8 + ",,"])
def test_quotes_in_a_last_record_of_the_wrong_length_may_be_closed(
    messages: Read, end: str
) -> None:
    got = messages("m.csv", f"id,text\n1,a\n{end}\n")
    assert got.reasons == [(2, "line", "2 values in a record, got 3")]


def test_row_numbers_are_right_across_blocks(
    messages: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 512)
    rows = [f'{i},"a\n{i}"' if i % 7 else f"{i},x,y" for i in range(1, 500)]
    got = messages("m.csv", "id,text\n" + "\n".join(rows) + "\n")
    assert got.rejected["row"].tolist() == [i for i in range(1, 500) if i % 7 == 0]
    assert got.accepted["id"].tolist() == [str(i) for i in range(1, 500) if i % 7]


def test_a_mark_and_carriage_returns_are_no_part_of_the_values(messages: Read) -> None:
    got = messages("m.csv", "\ufeffid,text\r\na,x\r\nb,y\r\n")
    assert got.accepted[["id", "text"]].to_numpy().tolist() == [["a", "x"], ["b", "y"]]


def test_a_line_in_another_encoding_is_rejected_and_the_rest_is_read(messages: Read) -> None:
    got = messages("m.csv", "id,text\na,caf\u00e9\nb,ok\n".encode("latin-1"))
    assert got.accepted["id"].tolist() == ["b"]
    assert got.reasons == [(1, "line", "valid UTF-8")]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_header_in_another_encoding_is_said(messages: Read, encoding: str) -> None:
    with pytest.raises(InputError, match=r"m\.csv must be UTF-8 text, but its header is not"):
        messages("m.csv", "id,text,rese\u00f1a\na,b,c\n".encode(encoding))


def test_a_header_alone_holds_no_rows(messages: Read) -> None:
    got = messages("m.csv", "id,text\n")
    assert got.accepted.empty
    assert got.rejected.empty
    assert got.counts["extract"].read == 0


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_said(messages: Read, content: str) -> None:
    with pytest.raises(InputError, match=r"m\.csv cannot be read as CSV .*: .*mpty"):
        messages("m.csv", content)


def test_another_delimiter(messages: Read) -> None:
    assert messages("m.csv", "id;text\na;x, y\n", delimiter=";").accepted["text"].item() == "x, y"
    with pytest.raises(
        InputError, match=r"dataset\.columns\.text: .* no column 'text'; it has \['id;text'\]"
    ):
        messages("m.csv", "id;text\na;b\n")
    with pytest.raises(InputError, match=r"dataset\.delimiter must be one character, got '\|\|'"):
        MessagesDataset(delimiter="||")


def test_two_columns_of_one_name_are_refused(messages: Read, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two columns named 'text': rename one"):
        messages("m.csv", "id,text,text\na,b,c\n")
    table = pa.table([pa.array(["1"]), pa.array(["2"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"several columns named \['text'\]"):
        MessagesDataset(path=str(tmp_path / "m.parquet")).source()


def test_nameless_columns_are_read_past(messages: Read) -> None:
    got = messages("m.csv", ",id,,text\n0,a,?,x\n")
    assert got.accepted[["id", "text"]].to_numpy().tolist() == [["a", "x"]]


def test_names_that_differ_in_case_alone_are_two_columns(messages: Read) -> None:
    got = messages("m.csv", "id,Text,TEXT,text\na,1,2,3\n")
    assert got.accepted["text"].item() == "3"
    got = messages("m.csv", "id,Text,TEXT,text\na,1,2,3\n", columns=Columns(text="TEXT"))
    assert got.accepted["text"].item() == "2"


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_a_file_may_use_names_that_the_program_uses(
    messages: Read, read_rows: Read, tmp_path: Path, name: str
) -> None:
    frame = pd.DataFrame(
        {
            "source": ["web", "app", "web"],
            "row": ["7", "8", "7"],
            "problem": ["yes", None, "yes"],
            "text": ["same"] * 3,
        }
    )
    if name == "m.csv":
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_parquet(tmp_path / name)
    got = read_rows(MessagesDataset(path=str(tmp_path / name)))
    assert len(got.accepted) == 2
    assert got.reasons == [(3, "id", "not a duplicate")]
    assert got.rejected["source"].tolist() == [str(tmp_path / name)]


@pytest.mark.parametrize("name", ["source", "Row", "key", "seq", "City"])
def test_a_feature_may_not_take_a_name_of_the_program(name: str) -> None:
    with pytest.raises(InputError, match=rf"dataset\.categorical.* \['{name}'\]"):
        MessagesDataset(categorical=[name])


@pytest.mark.parametrize("option", ["numeric", "categorical"])
@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({}, "rating"),
        ({}, "label"),
        ({}, "stars"),
        ({"rating": "score"}, "score"),
        ({"label": "kind"}, "kind"),
    ],
)
def test_what_a_message_is_labelled_by_is_no_feature(
    option: str, columns: dict[str, str], name: str
) -> None:
    options: dict[str, Any] = {"columns": Columns(**columns), option: [name]}
    with pytest.raises(InputError, match=rf"dataset\.{option} cannot take \['{name}'\]"):
        MessagesDataset(**options)


# JSON lines


def test_lines_that_are_no_objects_are_rejected_with_what_they_say(messages: Read) -> None:
    content = jsonl({"id": "a", "text": "x"}, '{"id": "b"', [1], None, "-- lost --", "")
    got = messages("m.jsonl", content + jsonl({"text": "y", "id": "c", "more": {"k": []}}))
    assert got.accepted["id"].tolist() == ["a", "c"]
    assert got.reasons == [
        (2, "line", "valid JSON"),
        (3, "line", "a JSON object"),
        (4, "line", "a JSON object"),
        (5, "line", "valid JSON"),
    ]
    assert got.rejected["value"].tolist() == ['{"id": "b"', "[1]", "null", "-- lost --"]


@pytest.mark.parametrize("value", ["NaN", "nan", "Infinity", "-Infinity", "-inf", "NAN"])
def test_numbers_that_json_lacks_are_no_json(messages: Read, value: str) -> None:
    lines = (
        f'{{"id": "1", "text": {value}}}',
        f'{{"id": "2", "text": "x", "date": {value}}}',
        f'{{"id": "3", "text": "\\"{value}, ", "date": {value}}}',
        f'{{"id": "4", "text": "{value}"}}',
        f'{{"id": "5", "text": "{value}", "date": "2020-01-01"}}',
    )
    got = messages("m.jsonl", jsonl(*lines))
    assert got.accepted["text"].tolist() == [value, value]
    assert got.reasons == [(row, "line", "valid JSON") for row in (1, 2, 3)]


def test_lines_of_odd_bytes(messages: Read) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": "a", "text": "x"}\r',
        b'{"id": "b", "text": "caf\xe9"}',
        b'{"id": "c", "text": "\\ud83d\\ude00 \\u0000"}',
        b'{"id": "d", "text": "\\ud800"}',
        b"[" * 100_000,
        b'{"id": "e", "text": "last"}',
    ]
    got = messages("m.jsonl", b"\n".join(lines))
    assert got.accepted["text"].tolist() == ["x", "\U0001f600 \x00", "last"]
    assert [row for row, _, _ in got.reasons] == [2, 4, 5]
    assert got.reasons[0][2] == "valid UTF-8"


def test_an_id_keeps_its_zeros_and_its_digits(messages: Read) -> None:
    content = jsonl(
        '{"id": "00012", "text": "x"}',
        '{"id": 12, "text": "y"}',
        '{"id": 123456789012345678901234567890, "text": "z"}',
    )
    assert messages("m.jsonl", content).accepted["id"].tolist()[:2] == ["00012", "12"]
    assert messages("m.csv", "id,text\n00012,x\n").accepted["id"].item() == "00012"


def test_a_key_that_only_a_late_line_has_is_read(messages: Read) -> None:
    rows = [{"id": str(i), "text": "x"} for i in range(1200)]
    content = jsonl(*rows, {"id": "last", "text": "x", "rating": 2})
    stars = messages("m.jsonl", content).accepted.set_index("id")["stars"]
    assert stars["last"] == 2
    assert stars.notna().sum() == 1


def test_keys_with_odd_characters(messages: Read) -> None:
    content = jsonl({"a/b~c'd": "slashes", "": "nothing"})
    assert messages("m.jsonl", content, columns=Columns(text="a/b~c'd")).accepted[
        "text"
    ].tolist() == ["slashes"]


def test_an_empty_file_of_lines_holds_no_rows(messages: Read) -> None:
    assert messages("m.jsonl", "").counts["extract"].read == 0
    assert messages("m.jsonl", "\n\r\n").counts["extract"].read == 0


# gzip


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz"])
def test_gzipped_files(messages: Read, name: str) -> None:
    content = "id,text\na,x\n" if "csv" in name else jsonl({"id": "a", "text": "x"})
    got = messages(name, gzip.compress(content.encode()))
    assert got.accepted["text"].tolist() == ["x"]


@pytest.mark.parametrize("name", ["M.TSV", "M.TSV.GZ", "m.Tsv.gz"])
def test_endings_may_be_in_capitals(messages: Read, name: str) -> None:
    content = b"id\ttext\na\tx, y\n"
    packed = gzip.compress(content) if name.lower().endswith(".gz") else content
    assert messages(name, packed).accepted["text"].tolist() == ["x, y"]


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz"])
def test_a_gzip_file_cut_short_is_said(
    messages: Read, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cut shows long after the header.
    monkeypatch.setattr(tables, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(tables, "LINES_BYTES", 4096)
    rows = [f"{i},hello {i * i}" for i in range(20_000)]
    if "csv" in name:
        content = "id,text\n" + "\n".join(rows)
    else:
        content = jsonl(*({"text": row} for row in rows))
    whole = gzip.compress(content.encode())
    with pytest.raises(InputError, match="is not a whole gzip file"):
        messages(name, whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is not a whole gzip file"):
        messages(name, content)


# Parquet


def in_parquet(folder: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return str(folder / "m.parquet")


def test_parquet_columns_of_other_types(read_rows: Read, tmp_path: Path) -> None:
    instant = int(datetime(2020, 1, 3, 4, tzinfo=UTC).timestamp())
    path = in_parquet(
        tmp_path,
        id=pa.array([1, 2], pa.int32()),
        text=pa.array(["a", "b"]).dictionary_encode(),
        date=pa.array([instant] * 2, pa.timestamp("s", "-05:00")),
        rating=pa.array([5, None], pa.float32()),
        label=pa.array([None, 1], pa.int8()),
    )
    rows = read_rows(MessagesDataset(path=path)).accepted
    assert rows["id"].tolist() == ["1", "2"]
    assert rows["text"].tolist() == ["a", "b"]
    assert rows["date"].tolist() == [pd.Timestamp("2020-01-03 04:00")] * 2
    assert rows["stars"].fillna(0).tolist() == [5, 0]
    assert rows["label"].fillna(-1).tolist() == [-1, 1]


def test_parquet_dates_and_long_strings(read_rows: Read, tmp_path: Path) -> None:
    path = in_parquet(
        tmp_path,
        text=pa.array(["a", None], pa.large_string()),
        date=pa.array([date(2020, 1, 2), None]),
    )
    got = read_rows(MessagesDataset(path=path))
    assert got.accepted["date"].tolist() == [pd.Timestamp("2020-01-02")]
    assert got.reasons == [(2, "text", "not missing")]


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1" * 5])
def test_what_is_no_parquet_file_is_said(messages: Read, content: bytes) -> None:
    with pytest.raises(InputError, match=r"m\.parquet is not a whole Parquet file"):
        messages("m.parquet", content)


def test_a_damaged_page_is_said(messages: Read, tmp_path: Path) -> None:
    whole = Path(in_parquet(tmp_path, text=["a", "b"])).read_bytes()
    with pytest.raises(InputError, match=r"m\.parquet is not a whole Parquet file"):
        messages("m.parquet", whole[:4] + b"\xff" * 40 + whole[44:])


# Paths


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    for path, complaint in (
        (tmp_path, "must name files, but .* is a folder"),
        (tmp_path / "no.csv", r"dataset\.path: .*no\.csv does not exist"),
        (tmp_path / "*.csv", r"dataset\.path: .*\*\.csv matches no file"),
    ):
        with pytest.raises(InputError, match=complaint):
            MessagesDataset(path=str(path)).source()
    with pytest.raises(InputError, match=r"dataset\.path must name .* not set"):
        MessagesDataset().source()
    with pytest.raises(InputError, match=r"dataset\.review must name .* not set"):
        YelpDataset().source()


def test_a_name_that_says_no_format(messages: Read) -> None:
    with pytest.raises(InputError, match=r"the format must show in the name .* got '\.txt'"):
        messages("m.txt", "id,text\na,x\n")
    assert len(messages("m.txt", "id,text\na,x\n", format="csv").accepted) == 1
    with pytest.raises(InputError, match=r"dataset\.format must be .* got 'xml'"):
        MessagesDataset(format="xml")


def test_files_of_a_glob_are_read_in_order_and_formats_may_mix(
    read_rows: Read, tmp_path: Path
) -> None:
    (tmp_path / "b.csv").write_text("id,text,extra\n3,x,\n1,again,\n")
    (tmp_path / "a.jsonl").write_text(jsonl({"text": "x", "id": "1"}, "broken", {"text": "y"}))
    got = read_rows(MessagesDataset(path=str(tmp_path / "*.*")))
    assert got.accepted["id"].tolist() == ["1", "3"]
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")
    assert sorted(got.rejected[["source", "row"]].itertuples(index=False, name=None)) == [
        (a, 2),
        (a, 3),
        (b, 2),
    ]
    assert got.source.files == [a, b]


# Ids


def test_ids_are_derived_from_the_whole_row(messages: Read) -> None:
    got = messages("m.csv", "text,note\nx,1\nx,2\nx,1\n")
    assert got.source.id_derived
    assert got.accepted["id"].nunique() == 2
    assert got.reasons == [(3, "id", "not a duplicate")]
    again = messages("n.csv", "text,note\nx,2\nx,1\n")
    assert set(again.accepted["id"]) == set(got.accepted["id"])
    assert not messages("m.csv", "id,text\n1,x\n").source.id_derived


def test_derived_ids_do_not_depend_on_line_ends(messages: Read) -> None:
    got = messages("m.jsonl", '{"text":"x"}\r\n{"text":"x"}\n{"text":"x"}\t \n')
    assert len(got.accepted) == 1
    assert got.counts["deduplicate"].duplicates == 2


def test_a_named_id_column_must_be_there(messages: Read) -> None:
    with pytest.raises(InputError, match=r"dataset\.columns\.id: .* no column 'key'"):
        messages("m.csv", "id,text\n1,x\n", columns=Columns(id="key"))


# Which columns are read


def test_columns_are_mapped_and_rejected_rows_speak_the_files_language(messages: Read) -> None:
    columns = Columns(id="No", text="Words", date="When", rating="Score")
    got = messages("m.csv", "No,Words,When,Score\n1,x,2020-01-01,4\n2,y,?,9\n", columns=columns)
    assert got.accepted[["id", "text", "stars"]].to_numpy().tolist() == [["1", "x", 4.0]]
    assert got.reasons == [
        (2, "When", "ISO 8601 date between 1970 and 2100"),
        (2, "Score", "number from 1 to 5"),
    ]


def test_further_columns_become_features_of_their_kind(messages: Read) -> None:
    content = "id,text,age,city\n1,x,30.5,Reno\n2,y,,\n3,z,old,Reno\n"
    got = messages("m.csv", content, numeric=["age"], categorical=["city"])
    assert got.accepted["age"].fillna(-1).tolist() == [30.5, -1]
    assert got.accepted["city"].fillna("?").tolist() == ["Reno", "?"]
    assert got.reasons == [(3, "age", "finite number")]
    assert messages("m.csv", content).accepted["city"].isna().all()
    with pytest.raises(InputError, match=r"dataset\.numeric or dataset\.categorical: .*'size'"):
        messages("m.csv", content, numeric=["size"])


def test_a_models_contract_decides_which_features_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("id,text,city,channel\n1,x,Reno,web\n")
    fields = MessagesDataset(path=str(path), categorical=["city", "channel"]).source().fields
    source = MessagesDataset().source(str(path), fields)
    assert {"city", "channel"} <= set(source.messages[0].columns)
    path.write_text("id,text,city\n1,x,Reno\n")
    with pytest.raises(InputError, match="no column 'channel'"):
        MessagesDataset().source(str(path), fields)


def test_ratings_are_not_asked_of_new_messages(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("id,text\n1,x\n")
    dataset = MessagesDataset(columns=Columns(rating="score", label="kind"))
    assert "stars" not in dataset.source(str(path)).messages[0].columns
    with pytest.raises(InputError, match=r"dataset\.columns\.rating: .*'score'"):
        MessagesDataset(path=str(path), columns=Columns(rating="score")).source()


# Which rows are asked for


DATED = """id,text,date
a,x,2020-01-05
b,x,20200104
c,x,2020-01
d,x,2020-01-05T01:00:00+02:00
e,x,2020-01-04T23:00:00-05:00
f,x,no date
g,x,
h,x,2020-01-06 00:00:00
"""


@pytest.mark.parametrize(
    ("limits", "ids", "skipped"),
    [
        ({}, "abcdegh", 0),
        ({"since": "2020-01-05"}, "aeh", 4),
        ({"until": "2020-01-05"}, "bcd", 4),
        ({"since": "2020-01-05", "until": "2020-01-06T00:00:00Z"}, "ae", 5),
        ({"max_reviews": 3}, "abc", 5),
        ({"since": "2020-01-05", "max_reviews": 2}, "ae", 6),
    ],
)
def test_limits(messages: Read, limits: dict[str, Any], ids: str, skipped: int) -> None:
    got = messages("m.csv", DATED, **limits)
    assert "".join(got.accepted["id"]) == ids
    assert got.skipped == skipped
    assert got.counts["extract"].read == 8 - skipped
    if "max_reviews" not in limits:
        assert got.reasons == [(6, "date", "ISO 8601 date between 1970 and 2100")]


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"since": "yesterday"}, "since must be an ISO 8601 date, got 'yesterday'"),
        ({"until": "2020-02-30"}, "until must be an ISO 8601 date, got '2020-02-30'"),
        ({"max_reviews": 0}, "max_reviews must be at least 1, got 0"),
        ({"max_reviews": -1}, "max_reviews must be at least 1, got -1"),
    ],
)
def test_limits_that_make_no_sense(messages: Read, limits: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=rf"dataset\.{complaint}"):
        messages("m.csv", DATED, **limits)


def test_limits_are_not_for_new_messages(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text(DATED)
    source = MessagesDataset(path="old.csv", since="2020-01-05", max_reviews=1).source(str(path))
    assert (source.since, source.until, source.max_reviews) == (None, None, None)


# Yelp, the sample, what was held out


def test_yelp_calls_its_columns_by_its_own_names(read_rows: Read, tmp_path: Path) -> None:
    path = tmp_path / "review.json"
    path.write_text(jsonl({"review_id": "r", "stars": 7, "text": "x"}))
    assert read_rows(YelpDataset(review=str(path))).reasons == [(1, "stars", "number from 1 to 5")]
    path.write_text(jsonl({"review_id": None, "stars": 5, "text": "x"}))
    assert read_rows(YelpDataset(review=str(path))).reasons == [(1, "review_id", "not missing")]
    path.write_text(jsonl({"id": "r", "text": "x"}))
    with pytest.raises(InputError, match=r"dataset\.review: .* no column 'review_id'"):
        YelpDataset(review=str(path)).source()
    (tmp_path / "user.json").write_text(jsonl({"name": "x"}))
    path.write_text(jsonl({"review_id": "r", "text": "x"}))
    with pytest.raises(InputError, match=r"dataset\.user: .* no column 'user_id'"):
        YelpDataset(review=str(path), user=str(tmp_path / "user.json")).source()


def test_the_sample_writes_itself(read_rows: Read, tmp_path: Path) -> None:
    dataset = SampleDataset(sample=Sample(n_reviews=150), folder=str(tmp_path / "sample"))
    got = read_rows(dataset)
    assert got.counts["extract"].read == 150
    assert got.accepted["review_count_user"].notna().any()
    assert len(got.source.files) == 3


def test_held_out_rows_come_back_as_they_were(read_rows: Read, tmp_path: Path) -> None:
    names = [name for name in JOINED_FIELDS if name not in ("stars", "label")]
    row = dict.fromkeys(names) | {"id": "a", "text": "x", "fans": 3.0, "elite": ""}
    row["date"] = pd.Timestamp("2020-01-01 10:00:00.000001")
    pd.DataFrame([row]).to_parquet(tmp_path / "held_out.parquet")
    back = read_rows(HeldOutDataset(path=str(tmp_path / "*.parquet")), targets=False).accepted
    kept = back.iloc[0]
    assert {name: kept[name] for name in ("id", "text", "fans", "elite", "date")} == {
        name: row[name] for name in ("id", "text", "fans", "elite", "date")
    }
    assert back.drop(columns=["id", "text", "fans", "elite", "date"]).isna().all(axis=None)


def test_real_messages(read_rows: Read, shared_data: Path) -> None:
    path = shared_data / "messages" / "restaurant_reviews.csv"
    got = read_rows(MessagesDataset(path=str(path), categorical=["city"]))
    known = pd.read_csv(path)
    assert got.counts["extract"].read == len(known)
    assert got.rejected.empty
    assert got.accepted["text"].tolist() == known["text"].tolist()
    assert got.accepted["city"].tolist() == known["city"].tolist()
    assert got.accepted["stars"].tolist() == known["rating"].tolist()
