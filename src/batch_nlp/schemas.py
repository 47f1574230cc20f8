"""Names of columns and the contracts that rows meet at the door.

Every value arrives as text. A contract says which texts are acceptable, so that a rejected
value is reported just as it stands in the file; what passes is then given its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

LABELS = ("negative", "neutral", "positive")
"""Names of the classes 0, 1 and 2."""

TARGETS = ("stars", "label")
"""What a message may be labelled by; never a feature."""

LEAKING = ("average_stars", "stars_business")
"""Averages that contain the review being judged; never read."""


NO_CATEGORY = ("id", "key", "text", "clean_text", "user_id", "business_id", "elite", "categories")
"""Text columns that name or say something, and do not sort rows into kinds."""


class Kind(StrEnum):
    """What the text of a column must be, and so which type it is given."""

    TEXT = "text"
    """Any text: dtype str."""
    COUNT = "count"
    """A whole number of at least 0: float64."""
    FLAG = "flag"
    """0 or 1: float64."""
    NUMBER = "number"
    """A finite number: float64."""
    STARS = "stars"
    """A number from 1 to 5: float64."""
    DATE = "date"
    """An ISO 8601 date or time, UTC where it names no zone: datetime64[us]."""
    LABEL = "label"
    """A class as number or name: float64 0, 1 or 2."""


@dataclass(frozen=True)
class Field:
    """One column of a contract.

    Parameters
    ----------
    kind : Kind
        What its text must be.
    required : bool, default=False
        Whether a missing value rejects the row.
    named : bool, default=False
        Whether the configuration names it as a feature, and the program does not look for it
        by itself.
    """

    kind: Kind
    required: bool = False
    named: bool = False


USER_FIELDS: dict[str, Field] = {
    "user_id": Field(Kind.TEXT, required=True),
    "review_count": Field(Kind.COUNT),
    "yelping_since": Field(Kind.DATE),
    "useful": Field(Kind.COUNT),
    "funny": Field(Kind.COUNT),
    "cool": Field(Kind.COUNT),
    "elite": Field(Kind.TEXT),
    "fans": Field(Kind.COUNT),
}
"""Columns read from a user table; the others are never parsed."""

BUSINESS_FIELDS: dict[str, Field] = {
    "business_id": Field(Kind.TEXT, required=True),
    "city": Field(Kind.TEXT),
    "state": Field(Kind.TEXT),
    "review_count": Field(Kind.COUNT),
    "is_open": Field(Kind.FLAG),
    "categories": Field(Kind.TEXT),
}
"""Columns read from a business table."""

MESSAGE_FIELDS: dict[str, Field] = {
    "id": Field(Kind.TEXT, required=True),
    "text": Field(Kind.TEXT, required=True),
    "date": Field(Kind.DATE),
    "stars": Field(Kind.STARS),
    "label": Field(Kind.LABEL),
    "user_id": Field(Kind.TEXT),
    "business_id": Field(Kind.TEXT),
    "useful": Field(Kind.COUNT),
    "funny": Field(Kind.COUNT),
    "cool": Field(Kind.COUNT),
}
"""Columns of a message itself; a Yelp review's `review_id` is its `id`."""

REFERENCE_KEYS = {"user": "user_id", "business": "business_id"}
"""What joins a message to each reference table."""

REFERENCE_FIELDS = {"user": USER_FIELDS, "business": BUSINESS_FIELDS}


def joined_name(table: str, column: str) -> str:
    """Name a reference table's column as it stands after the join.

    Examples
    --------
    >>> joined_name("user", "useful"), joined_name("user", "fans")
    ('useful_user', 'fans')
    """
    others = [fields for name, fields in REFERENCE_FIELDS.items() if name != table]
    clash = column in MESSAGE_FIELDS or any(column in fields for fields in others)
    return f"{column}_{table}" if clash else column


JOINED_FIELDS: dict[str, Field] = {
    **MESSAGE_FIELDS,
    **{
        joined_name(table, column): field
        for table, fields in REFERENCE_FIELDS.items()
        for column, field in fields.items()
        if column != REFERENCE_KEYS[table]
    },
}
"""Columns of a row after the join, before any that a data set adds by name."""

REJECTED = pa.schema(
    {
        "source": pa.string(),
        "row": pa.int64(),
        "id": pa.string(),
        "column": pa.string(),
        "check": pa.string(),
        "value": pa.string(),
    }
)
"""One line for each check that a rejected row failed."""

PREDICTIONS = pa.schema(
    {
        "id": pa.string(),
        "prediction": pa.int64(),
        "label": pa.string(),
        "proba_negative": pa.float64(),
        "proba_neutral": pa.float64(),
        "proba_positive": pa.float64(),
        "model_version": pa.string(),
        "run_id": pa.string(),
    }
)
"""What inference delivers, one row a message in the order of the input."""

EXPLANATIONS = pa.schema(
    {
        "id": pa.string(),
        "class": pa.int64(),
        "model": pa.string(),
        "part": pa.string(),
        "name": pa.string(),
        "value": pa.float64(),
        "contribution": pa.float64(),
    }
)
"""Why a message got its label: for each message, class and model, the rows whose part is
``base``, ``feature`` or ``word`` add up to the one whose part is ``margin``. The class of a model
of the text that has learned stars is a number of stars."""

IMPORTANCES = pa.schema({"feature": pa.string(), "class": pa.int64(), "importance": pa.float64()})
"""How far each feature moves the margin of each class, on average."""

_NUMBER_TYPES = (Kind.COUNT, Kind.FLAG, Kind.NUMBER, Kind.STARS, Kind.LABEL)


def arrow_type(kind: Kind) -> pa.DataType:
    """Give the Arrow type of a column once it is typed."""
    if kind in _NUMBER_TYPES:
        return pa.float64()
    return pa.timestamp("us") if kind is Kind.DATE else pa.string()


def text_schema(names: Sequence[str]) -> pa.Schema:
    """Give the Arrow schema of untyped columns."""
    return pa.schema([(name, pa.string()) for name in names])


def typed_schema(fields: Mapping[str, Field]) -> pa.Schema:
    """Give the Arrow schema of the columns once they are typed."""
    return pa.schema([(name, arrow_type(field.kind)) for name, field in fields.items()])


def _numbers(texts: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    return numbers.where(np.isfinite(numbers))


def _dates(texts: pd.Series) -> pd.Series:
    # pandas takes "now" and "today" for dates, and they would change with the clock.
    texts = texts.where(texts.str.match(r"\d"))
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    return dates.dt.tz_localize(None).astype("datetime64[us]")


def _labels(texts: pd.Series) -> pd.Series:
    names = {name: float(number) for number, name in enumerate(LABELS)}
    named = texts.str.strip().str.lower().map(names)
    numbers = _numbers(texts)
    return named.fillna(numbers.where(numbers.isin([0, 1, 2]))).astype("float64")


_PARSERS: dict[Kind, Callable[[pd.Series], pd.Series]] = {
    Kind.DATE: _dates,
    Kind.LABEL: _labels,
    **dict.fromkeys((Kind.COUNT, Kind.FLAG, Kind.NUMBER, Kind.STARS), _numbers),
}

_CHECKS: dict[Kind, tuple[str, Callable[[pd.Series], pd.Series]]] = {
    Kind.COUNT: ("whole number of at least 0", lambda n: (n >= 0) & (n % 1 == 0)),
    Kind.FLAG: ("0 or 1", lambda n: n.isin([0, 1])),
    Kind.NUMBER: ("finite number", lambda n: n.notna()),
    Kind.STARS: ("number from 1 to 5", lambda n: n.between(1, 5)),
    Kind.DATE: ("ISO 8601 date between 1970 and 2100", lambda d: d.dt.year.between(1970, 2100)),
    Kind.LABEL: (f"0, 1, 2 or one of {', '.join(LABELS)}", lambda n: n.notna()),
}


def parse(texts: pd.Series, kind: Kind) -> pd.Series:
    """Give a column of accepted texts its type; a missing value stays missing.

    Parameters
    ----------
    texts : Series of str
        Values that meet the contract.
    kind : Kind
        What they are.

    Returns
    -------
    Series of the same index, of the dtype that `Kind` names.

    Examples
    --------
    >>> parse(pd.Series(["Neutral", "2"], dtype="str"), Kind.LABEL).tolist()
    [1.0, 2.0]
    """
    return texts.astype("str") if kind is Kind.TEXT else _spread(*_distinct(texts, kind), texts)


def read_and_check(
    texts: pd.Series, name: str, field: Field
) -> tuple[pd.Series, npt.NDArray[np.bool_]]:
    """Give a column its type, and tell which values meet its contract.

    Parameters
    ----------
    texts : Series of str
        Values as read.
    name : str
        Of the column.
    field : Field
        Its contract.

    Returns
    -------
    parsed : Series of the same index
        See `parse`.
    fine : ndarray of bool of shape (n_rows,)

    Examples
    --------
    >>> texts = pd.Series(["3", "9", None], dtype="str")
    >>> read_and_check(texts, "stars", MESSAGE_FIELDS["stars"])[1].tolist()
    [True, False, True]
    """
    if field.kind is Kind.TEXT:
        fine = texts.notna().to_numpy() | (not field.required)
        if name == "text":
            fine &= _not_blank(texts).to_numpy()
        return texts.astype("str"), fine
    parsed, codes = _distinct(texts, field.kind)
    # A missing value has the number -1, and so the last place.
    fine = np.append(_CHECKS[field.kind][1](parsed), not field.required)[codes]
    return _spread(parsed, codes, texts), fine


def _distinct(texts: pd.Series, kind: Kind) -> tuple[pd.Series, npt.NDArray[np.intp]]:
    """Read each value of a column once, for most columns repeat few; -1 is a missing one."""
    codes, distinct = pd.factorize(texts)
    return _PARSERS[kind](pd.Series(distinct, dtype="str")), codes


def _spread(parsed: pd.Series, codes: npt.NDArray[np.intp], texts: pd.Series) -> pd.Series:
    values = pd.api.extensions.take(parsed.array, codes, allow_fill=True)
    return pd.Series(values, index=texts.index)


def _not_blank(texts: pd.Series) -> pd.Series:
    return texts.isna() | ~((texts == "") | texts.str.isspace())


@cache
def _contract(fields: tuple[tuple[str, Field], ...]) -> DataFrameSchema:
    import pandera.pandas as pandera  # noqa: PLC0415  a second of start-up, paid when rows come

    def checks(name: str, kind: Kind) -> list[Any]:
        if kind is Kind.TEXT and name == "text":
            return [pandera.Check(_not_blank, name="not blank")]
        if kind not in _CHECKS:
            return []
        label, accepts = _CHECKS[kind]
        return [pandera.Check(lambda s: accepts(parse(s, kind)), name=label)]

    return pandera.DataFrameSchema(
        {
            name: pandera.Column(str, checks(name, field.kind), nullable=not field.required)
            for name, field in fields
        },
        strict="filter",
    )


def contract(fields: Mapping[str, Field]) -> DataFrameSchema:
    """Give the pandera contract on untyped columns.

    Columns outside the contract are filtered away.

    Examples
    --------
    >>> frame = pd.DataFrame({"user_id": ["u1"], "fans": ["3"], "extra": ["x"]}, dtype="str")
    >>> fields = {name: USER_FIELDS[name] for name in ("user_id", "fans")}
    >>> contract(fields).validate(frame).columns.tolist()
    ['user_id', 'fans']
    """
    return _contract(tuple(fields.items()))
