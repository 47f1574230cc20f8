"""Hold rows against their contract: typed rows on one side, failures with reasons on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batch_nlp.schemas import Field, contract, read_and_check

FAILURE_COLUMNS = ("column", "check", "value")


@dataclass(frozen=True)
class Verdict:
    """What became of a batch of rows.

    Attributes
    ----------
    accepted : DataFrame
        Typed rows that meet the contract, their index kept.
    failures : DataFrame
        ``column``, ``check`` and ``value``, one line for each failed check, indexed by the
        failing row's index.
    """

    accepted: pd.DataFrame
    failures: pd.DataFrame


def validate(frame: pd.DataFrame, fields: Mapping[str, Field]) -> Verdict:
    """Hold untyped rows against the contract of `fields` and give a type to those that meet it.

    Parameters
    ----------
    frame : DataFrame of str columns
        Rows as read, with a unique index. A contract's column that the frame lacks is missing
        in every row; columns outside the contract are dropped.
    fields : mapping of str to Field
        The contract.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from batch_nlp.schemas import USER_FIELDS
    >>> rows = pd.DataFrame({"user_id": ["u1", "u2"], "fans": ["3", "-1"]}, dtype="str")
    >>> verdict = validate(rows, USER_FIELDS)
    >>> verdict.accepted["fans"].tolist()
    [3.0]
    >>> verdict.failures
      column                       check value
    1   fans  whole number of at least 0    -1
    """
    rows = frame.reindex(columns=list(fields)).astype("str")
    held = {name: read_and_check(rows[name], name, field) for name, field in fields.items()}
    fine = np.all([meets for _, meets in held.values()], axis=0)
    typed = pd.DataFrame({name: parsed for name, (parsed, _) in held.items()}, index=rows.index)
    nothing = pd.DataFrame(columns=list(FAILURE_COLUMNS), dtype="str")
    if fine.all():
        return Verdict(accepted=typed, failures=nothing)
    failures = pd.concat([nothing, *_failures(rows[~fine], fields)])
    accepted = typed.loc[~rows.index.isin(failures.index)]
    return Verdict(accepted=accepted, failures=failures.astype("str").sort_index(kind="stable"))


def _failures(remaining: pd.DataFrame, fields: Mapping[str, Field]) -> list[pd.DataFrame]:
    """Have pandera say all that is wrong with rows; few have anything wrong with them."""
    from pandera.errors import SchemaErrors  # noqa: PLC0415  a second of start-up

    found: list[pd.DataFrame] = []
    # One lazy pass does not list every failure (pandera#484): go on until the rest is clean.
    while len(remaining):
        try:
            contract(fields).validate(remaining, lazy=True)
            break
        except SchemaErrors as errors:
            cases = errors.failure_cases
        if cases["index"].isna().any():
            message = f"The contract failed as a whole: {cases.iloc[0].to_dict()}."
            raise RuntimeError(message)
        found.append(
            pd.DataFrame(
                {
                    "column": cases["column"].to_numpy(),
                    "check": cases["check"].replace("not_nullable", "not missing").to_numpy(),
                    "value": cases["failure_case"].astype("str").to_numpy(),
                },
                index=pd.Index(cases["index"].to_numpy(), dtype=remaining.index.dtype),
            )
        )
        remaining = remaining.drop(index=cases["index"].unique())
    return found
