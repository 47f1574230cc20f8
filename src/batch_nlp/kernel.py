"""The row-and-feature kernel: one function from a batch of text to a batch of features."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
from sklearn.pipeline import Pipeline

from batch_nlp import __version__
from batch_nlp.errors import InputError
from batch_nlp.logs import Clock
from batch_nlp.rows.validate import FAILURE_COLUMNS, Verdict, validate
from batch_nlp.schemas import TARGETS, Field, Kind, typed_schema
from batch_nlp.tables import digest, from_pandas
from batch_nlp.transformers.base import MissingColumnError
from batch_nlp.transformers.embedding import TextEmbedder

NOT_CONTENT = ("id", *TARGETS)
"""Columns that never enter the feature pipeline: who a message is, and what it was labelled."""

FAILURES = pa.list_(pa.struct([(name, pa.string()) for name in FAILURE_COLUMNS]))


@dataclass(frozen=True)
class Kernel:
    """Everything that happens to one row on its own.

    Calling it maps a batch of untyped rows to a batch of features, one row in, one row out, so
    that any engine that maps functions over Arrow batches can run it. The local engine calls
    its parts, so that what the feature store already holds is not computed again.

    Parameters
    ----------
    fields : mapping of str to Field
        The contract that rows must meet.
    pipeline : Pipeline
        Row-local steps, the last a `TextEmbedder`.
    spec : mapping
        The configuration that `pipeline` was built from, which identifies it.

    Raises
    ------
    InputError
        If the last step is no `TextEmbedder`, or a step makes a column that the rows bring.
    """

    fields: Mapping[str, Field]
    pipeline: Pipeline
    spec: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.pipeline[-1], TextEmbedder):
            last = type(self.pipeline[-1]).__name__
            message = f"feature.steps must end with a TextEmbedder, got {last}."
            raise InputError(message)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Validate, clean, derive and embed.

        Parameters
        ----------
        batch : RecordBatch
            Rows as text, with the columns of the contract.

        Returns
        -------
        RecordBatch
            A row for each row of `batch`: its typed columns, its features, ``vector``, and
            ``failures``, a list of (column, check, value) that is empty for an accepted row.
            A rejected row has its failures and nothing else.
        """
        frame = batch.to_pandas()
        verdict = self.check(frame)
        derived = self.derive(verdict.accepted)
        features = verdict.accepted[list(NOT_CONTENT)].join(derived)
        vectors = self.embedder.encode_distinct(features[self.embedder.column]).vectors
        features["vector"] = pd.Series(list(vectors), index=features.index, dtype="object")
        cases: dict[Any, list[Any]] = {row: [] for row in frame.index}
        for row, case in zip(
            verdict.failures.index, verdict.failures.to_dict("records"), strict=True
        ):
            cases[row].append(case)
        schema = pa.schema(
            [*self.schema, ("vector", vector_type(self.n_dims)), ("failures", FAILURES)]
        )
        whole = features.reindex(frame.index).assign(failures=pd.Series(cases, dtype="object"))
        columns = [column.combine_chunks() for column in from_pandas(whole, schema).columns]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def check(self, frame: pd.DataFrame) -> Verdict:
        """Hold untyped rows against the contract (see `validate`)."""
        return validate(frame, self.fields)

    def derive(self, accepted: pd.DataFrame, clock: Clock | None = None) -> pd.DataFrame:
        """Clean the text and derive the features of typed rows, the embedding left out.

        Parameters
        ----------
        accepted : DataFrame
            Rows that meet the contract.
        clock : Clock, optional
            Measures each step.

        Returns
        -------
        DataFrame of the same index, with the columns of `features`
        """
        frame = accepted[self.content]
        for name, step in self.pipeline.steps[:-1]:
            with clock.step(name) if clock else nullcontext():
                frame = step.transform(frame)
        return frame

    @property
    def embedder(self) -> TextEmbedder:
        """The last step."""
        last: TextEmbedder = self.pipeline[-1]
        return last

    @cached_property
    def n_dims(self) -> int:
        """Dimensions of a vector; 0 without an embedder."""
        return 0 if self.embedder.embedder is None else int(self.embedder.embedder.n_dims)

    @property
    def content(self) -> list[str]:
        """Columns that enter the feature pipeline."""
        return [name for name in self.fields if name not in NOT_CONTENT]

    @cached_property
    def features(self) -> pa.Schema:
        """Columns that leave the feature pipeline, the embedding left out.

        Raises
        ------
        InputError
            If a step makes a column that the rows already have, or needs one that no step
            before it makes.
        """
        own = {name: self.fields[name] for name in self.content}
        try:
            derived = self.derive(typed_schema(own).empty_table().to_pandas())
        except MissingColumnError as error:
            message = f"feature.steps: {error}"
            raise InputError(message) from error
        if self.embedder.column not in derived:
            message = (
                f"feature.steps.{self._embed_name} needs the column {self.embedder.column!r}, "
                "which no step before it makes."
            )
            raise InputError(message)
        for name, step in self.pipeline.steps:
            # What a step adds to no columns is what it makes itself.
            taken = sorted(own.keys() & set(step.get_feature_names_out([])))
            if taken:
                message = (
                    f"feature.steps.{name} makes the columns {taken}, which the data set brings "
                    "too: rename them there."
                )
                raise InputError(message)
        made = [name for name in derived.columns if name not in own]
        return pa.schema(
            [*typed_schema(own), *pa.Schema.from_pandas(derived[made], preserve_index=False)]
        ).remove_metadata()

    @property
    def schema(self) -> pa.Schema:
        """Columns of a row with its features: `NOT_CONTENT`, then `features`."""
        fixed = typed_schema({name: self.fields[name] for name in NOT_CONTENT})
        return pa.schema([*fixed, *self.features])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the features, the embedding left out."""
        steps = {name: step for name, step in self.spec.items() if name != self._embed_name}
        kinds = {name: field.kind for name, field in self.fields.items()}
        return digest({"version": __version__, "fields": kinds, "steps": steps})

    @cached_property
    def vector_fingerprint(self) -> str:
        """SHA-256 of all that decides a vector, given the text; empty without an embedder."""
        embedder = self.embedder.embedder
        return "" if embedder is None else str(embedder.fingerprint())

    @property
    def _embed_name(self) -> str:
        return str(self.pipeline.steps[-1][0])


def vector_type(n_dims: int) -> pa.DataType:
    """Give the Arrow type of an embedding."""
    return pa.list_(pa.float32(), n_dims)


def fields_to_json(fields: Mapping[str, Field]) -> dict[str, dict[str, Any]]:
    """Write a contract as plain data."""
    return {
        name: {"kind": str(field.kind), "required": field.required, "named": field.named}
        for name, field in fields.items()
    }


def fields_from_json(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Field]:
    """Read a contract back.

    Examples
    --------
    >>> from batch_nlp.schemas import JOINED_FIELDS
    >>> fields_from_json(fields_to_json(JOINED_FIELDS)) == JOINED_FIELDS
    True
    """
    return {
        name: Field(
            Kind(field["kind"]), required=bool(field["required"]), named=bool(field.get("named"))
        )
        for name, field in plain.items()
    }
