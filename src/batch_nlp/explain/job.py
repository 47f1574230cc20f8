"""Some messages, and why each got its label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from loguru import logger

from batch_nlp.artifact import Artifact
from batch_nlp.errors import InputError
from batch_nlp.explain.explained import explain
from batch_nlp.explain.page import explanations_html
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock, Logs
from batch_nlp.records import RunRecord
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.rows.stream import RowStream
from batch_nlp.schemas import EXPLANATIONS
from batch_nlp.settings import Paths
from batch_nlp.store import FeatureStore
from batch_nlp.tables import ParquetSink, from_pandas, write_text

MOST = 1000
"""Messages that one run explains at most: a page of more is not read, and all are in memory."""


@dataclass(frozen=True, kw_only=True)
class ExplainJob:
    """Which messages are explained.

    Parameters
    ----------
    source : str or list of str, optional
        File or glob of messages; None takes what training held out.
    ids : list of str, optional
        Messages to explain; None takes a random sample.
    sample : int, default=20
        Messages of the sample, from 1 to `MOST`; all, where there are fewer.
    seed : int, default=0
        Of the sample, which depends on the ids of the messages alone and not on their order.
    top_words : int, default=15
        Words, and features of each kind, on the page at most; the table has all.
    """

    source: str | list[str] | None = None
    ids: list[str | int] | None = None
    sample: int = 20
    seed: int = 0
    top_words: int = 15

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= MOST:
            message = f"explain.sample must be from 1 to {MOST:,}, got {self.sample}."
            raise InputError(message)
        if self.top_words < 1:
            message = f"explain.top_words must be at least 1, got {self.top_words}."
            raise InputError(message)
        if self.ids is not None and not 1 <= len(set(self.ids)) <= MOST:
            message = (
                f"explain.ids must be null or name 1 to {MOST:,} messages, got {len(self.ids)}."
            )
            raise InputError(message)

    def run(
        self,
        source: Source,
        artifact: Artifact,
        kernel: Kernel,
        *,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
    ) -> None:
        """Explain the labels of some messages of `source`.

        Parameters
        ----------
        source : Source
            Messages.
        artifact : Artifact
            The trained model.
        kernel : Kernel
            The feature pipeline of `artifact`.
        paths, engine, logs : Paths, Engine, Logs
            Where, how, and how loudly.
        record : RunRecord
            Takes the counts of each stage, and how exactly the explanations add up.

        Raises
        ------
        InputError
            If an id is not in the source, no message is left to explain, or the classifier
            cannot be taken apart.
        """
        clock = Clock()
        folder = paths.layer("09_inference")
        rejected = folder / "explanations_rejected.parquet"
        stream: RowStream[pd.DataFrame] = RowStream(
            source,
            kernel.check,
            engine=engine,
            spill=folder / ".spill",
            rejected=rejected,
            clock=clock,
            targets=False,
        )
        with stream:
            rows = logs.progress(
                stream, what="explain", unit="rows", total=stream.n_rows, done=stream.passed
            )
            chosen = self._chosen(rows)
        stream.report(record, "explain")
        record.produced(rejected)
        turned_away = self._turned_away(chosen, rejected, source)
        stream.require_some(rejected)
        if chosen.empty:
            message = f"None of the messages in explain.ids was accepted: see {rejected}."
            raise InputError(message)
        store = FeatureStore(paths.layer("04_feature"), kernel, clock, engine)
        features = store.features(chosen).drop(columns="key")
        with clock.step("explain"):
            found = explain(artifact.model_pipeline, chosen["id"].tolist(), features)
            with ParquetSink(folder / "explanations.parquet", EXPLANATIONS) as sink:
                for each in found:
                    sink.write(from_pandas(each.table(), EXPLANATIONS))
            page = explanations_html(
                [each.shown(artifact.model_pipeline, self.top_words) for each in found],
                model=f"{artifact.card['name']} {artifact.version}",
            )
            write_text(folder / "explanations.html", page)
        record.produced(folder / "explanations.parquet")
        record.produced(folder / "explanations.html")
        record.stage(
            "explain/explain",
            Counts(
                read=len(chosen) + len(turned_away),
                delivered=len(found),
                rejected=len(turned_away),
            ),
            clock.seconds["explain"],
        )
        record.facts["model_version"] = artifact.version
        record.facts["explained"] = [each.id for each in found]
        record.facts["not_explained"] = turned_away
        record.facts["largest_gap"] = max(each.gap for each in found)
        if turned_away:
            logger.warning(
                "{} of the messages in explain.ids were rejected: see {}",
                len(turned_away),
                rejected,
            )
        logger.info("Explanations: {}", folder / "explanations.html")

    def _chosen(self, batches: Iterator[pd.DataFrame]) -> pd.DataFrame:
        """Give the accepted rows to explain, in the order of the input."""
        kept = pd.DataFrame()
        for accepted in batches:
            if self.ids is not None:
                new = accepted[accepted["id"].isin(self._asked())]
                kept = pd.concat([kept, new], ignore_index=True)
                continue
            both = pd.concat([kept, accepted], ignore_index=True)
            ranks = [_rank(each, self.seed) for each in both["id"]]
            lowest = np.argsort(np.array(ranks), kind="stable")[: self.sample]
            kept = both.iloc[np.sort(lowest)].reset_index(drop=True)
        return kept

    def _asked(self) -> list[str]:
        return [str(each) for each in self.ids or ()]

    def _turned_away(self, chosen: pd.DataFrame, rejected: object, source: Source) -> list[str]:
        """Give the ids that were asked for and rejected; one that is nowhere is an error."""
        known = set(chosen["id"]) if len(chosen) else set()
        left = [each for each in dict.fromkeys(self._asked()) if each not in known]
        if not left:
            return []
        listed = set(pq.read_table(rejected, columns=["id"])["id"].to_pylist())
        unknown = [each for each in left if each not in listed]
        if unknown:
            more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
            message = (
                f"explain.ids must be ids of {', '.join(source.files[:3])}, which has no message "
                f"{unknown[0]!r}{more}."
            )
            raise InputError(message)
        return left


def _rank(message: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {message}".encode(), digest_size=8).digest()
