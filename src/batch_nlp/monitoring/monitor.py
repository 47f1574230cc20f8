"""Is a run's batch still what the model was judged on? One verdict, with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from loguru import logger
from sklearn.pipeline import Pipeline

from batch_nlp.artifact import Artifact
from batch_nlp.errors import InputError
from batch_nlp.monitoring.drift import Drift, drift, mean_drift, shift
from batch_nlp.monitoring.estimate import MEASURES, Estimate, estimate
from batch_nlp.monitoring.history import append
from batch_nlp.monitoring.reference import (
    EMPTY,
    LABEL,
    UNSEEN,
    Reference,
    Seen,
    Words,
)
from batch_nlp.records import RunRecord, utc_now
from batch_nlp.schemas import LABELS
from batch_nlp.settings import Paths
from batch_nlp.store import Usage

EMBEDDING = "embedding"
CLASS_PROBABILITIES = "probabilities"
OUTPUTS = (LABEL, CLASS_PROBABILITIES)

_SHOWN = 8
_NAMED = 5
_DIFFERS = 0.01
_DIGITS = 6

_ESTIMATES = {
    f"estimated_{name}{end}": pa.float64() for name in MEASURES for end in ("", "_low", "_high")
}

MONITORING = pa.schema(
    {
        "run_id": pa.string(),
        "time": pa.string(),
        "model": pa.string(),
        "model_version": pa.string(),
        "verdict": pa.string(),
        "drifting": pa.list_(pa.string()),
        "n_rows": pa.int64(),
        **{f"share_{label}": pa.float64() for label in LABELS},
        "mean_confidence": pa.float64(),
        "mean_entropy": pa.float64(),
        "empty_share": pa.float64(),
        "truncated_share": pa.float64(),
        "unknown_words": pa.float64(),
        "embedding_drift": pa.float64(),
        **_ESTIMATES,
        **{f"reference_{name}": pa.float64() for name in MEASURES},
        "measures": pa.list_(
            pa.struct(
                {
                    "measure": pa.string(),
                    "value": pa.float64(),
                    "reference": pa.float64(),
                    "psi": pa.float64(),
                    "js": pa.float64(),
                    "distance": pa.float64(),
                    "p_value": pa.float64(),
                    "alarm": pa.bool_(),
                }
            )
        ),
    }
)
"""One row a scoring, in ``08_reporting/monitoring.parquet``."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that was held against the reference.

    Attributes
    ----------
    measure : str
        Its name.
    value, reference : float or None
        A share or a mean, where the measure is one, in the batch and in the reference.
    psi, js : float or None
        See `Drift`.
    distance : float or None
        See `MeanDrift`; of the means of the probabilities, and of the embeddings.
    p_value : float
        How often chance alone would give a difference as large.
    alarm : bool
        Whether it is both larger than chance makes it and large enough to matter.
    """

    measure: str
    value: float | None = None
    reference: float | None = None
    psi: float | None = None
    js: float | None = None
    distance: float | None = None
    p_value: float = 1.0
    alarm: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What monitoring says of a batch.

    Attributes
    ----------
    verdict : {"fits", "drifting", "too few rows"}
    drifting : list of str
        Measures that raise the alarm, the surest first.
    seen, reference : Seen
        What was seen in the batch, and among the rows held out.
    measures : list of Measure
        All of them.
    estimates : dict of str to Estimate
        F1 and accuracy without labels.
    measured : dict of str to float
        What they were on the rows held out.
    truncated_share : float or None
        Of the texts embedded in this run; None where none was.
    """

    verdict: Literal["fits", "drifting", "too few rows"]
    drifting: list[str]
    seen: Seen
    reference: Seen
    measures: list[Measure]
    estimates: dict[str, Estimate]
    measured: dict[str, float]
    truncated_share: float | None = None

    @property
    def line(self) -> str:
        """The verdict in a few words."""
        if not self.drifting:
            return self.verdict
        more = len(self.drifting) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        return f"{self.verdict}: {', '.join(self.drifting[:_NAMED])}{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, for the run record."""
        by_name = {each.measure: each for each in self.measures}
        embedding = by_name.get(EMBEDDING)
        found: dict[str, Any] = {
            "verdict": self.verdict,
            "drifting": self.drifting,
            "n_rows": self.seen.n_rows,
            "mean_confidence": self.seen.confidence,
            "mean_entropy": self.seen.entropy,
            "empty_share": by_name[EMPTY].value,
            "truncated_share": self.truncated_share,
            "unknown_words": self.seen.unknown_words,
            "embedding_drift": embedding.distance if embedding is not None else None,
            "estimates": {name: each.to_dict() for name, each in self.estimates.items()},
            "reference": {
                "n_rows": self.reference.n_rows,
                "mean_confidence": self.reference.confidence,
                "mean_entropy": self.reference.entropy,
                "unknown_words": self.reference.unknown_words,
                **self.measured,
            },
            "measures": [asdict(each) for each in self.measures],
        }
        rounded: dict[str, Any] = _rounded(found)
        return rounded

    def row(self) -> dict[str, Any]:
        """Give the columns of `MONITORING` that are the batch's own."""
        plain = self.to_dict()
        shares = self.seen.counts[LABEL] / self.seen.n_rows
        for name, each in plain.pop("estimates").items():
            plain |= {
                f"estimated_{name}": each["value"],
                f"estimated_{name}_low": each["low"],
                f"estimated_{name}_high": each["high"],
            }
        reference = plain.pop("reference")
        plain |= {f"reference_{name}": reference[name] for name in MEASURES}
        return plain | {
            f"share_{label}": float(share) for label, share in zip(LABELS, shares, strict=True)
        }

    def table(self) -> str:
        """Show the batch beside the reference, and what differs most."""
        now, then = self.seen, self.reference
        f1, measured = self.estimates["f1_macro"], self.measured["f1_macro"]
        estimated = f"{f1.value:.3f} ({f1.low:.3f}-{f1.high:.3f})"
        lines = [
            f"{'':<32}{'batch':>22}{'held out':>10}",
            f"{'F1 macro, estimated | measured':<32}{estimated:>22}{measured:>10.3f}",
            f"{'mean confidence':<32}{now.confidence:>22.3f}{then.confidence:>10.3f}",
            f"{'mean entropy':<32}{now.entropy:>22.3f}{then.entropy:>10.3f}",
        ]
        if now.unknown_words is not None and then.unknown_words is not None:
            lines.append(
                f"{'unknown words':<32}{f'{100 * now.unknown_words:.1f} %':>22}"
                f"{f'{100 * then.unknown_words:.1f} %':>10}"
            )
        differing = [each for each in self.measures if each.alarm or each.p_value < _DIFFERS]
        if differing:
            title = "what differs most"
            lines.append(f"{title:<32}{'PSI | distance':>22}{'JS':>10}{'p':>10}")
        for each in sorted(differing, key=_rank)[:_SHOWN]:
            size = each.psi if each.psi is not None else each.distance or 0.0
            js = "" if each.js is None else f"{each.js:.3f}"
            alarm = "   drifting" if each.alarm else ""
            lines.append(f"{each.measure:<32}{size:>22.3f}{js:>10}{each.p_value:>10.1g}{alarm}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Watch:
    """Looks at each batch while it is scored, in any process.

    Attributes
    ----------
    reference : Reference
        Of the model.
    words : Words or None
        That the model knows.
    """

    reference: Reference
    words: Words | None

    def __call__(self, features: pd.DataFrame, predicted: pd.DataFrame) -> Seen:
        """Give what is seen in a batch.

        Parameters
        ----------
        features : DataFrame of shape (n_rows, n_columns)
            What the feature pipeline made.
        predicted : DataFrame of shape (n_rows, n_columns)
            See `predict`.
        """
        return self.reference.look(features, predicted, self.words).seen()


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """When a batch is said to be drifting.

    A measure raises the alarm where it differs from the reference by more than chance makes of
    so many rows and so many measures, and by so much that it matters.

    Parameters
    ----------
    enabled : bool, default=True
        Whether runs are monitored.
    min_rows : int, default=200
        Messages below which nothing is concluded.
    false_alarms : float, default=0.01
        Share of batches of unchanged messages that may raise the alarm. Half of it is for the
        outputs of the model, half for its inputs, each shared out among their measures
        (Bonferroni).
    psi : float, default=0.2
        Population stability index, from which a change of a feature matters.
    js : float, default=0.2
        Jensen-Shannon distance, the same.
    psi_label : float, default=0.05
        Population stability index, from which a change of the labels matters. A model that tells
        the classes apart badly shows a change of their shares weakened.
    probabilities : float, default=0.03
        Squared distance of the mean probabilities in standard deviations, the same. It is
        somewhat less than the 0.04 of a small effect (Cohen 1988, Statistical Power Analysis),
        because a scarce class that triples moves them little more.
    share : float, default=0.05
        Change of the share of empty texts, and of unseen kinds of a column, the same.
    embedding : float, default=0.02
        Distance of the embeddings' means as a share of their variance, the same.
    f1_drop : float, default=0.05
        How far the estimated F1 macro may lie below the one measured in training.
    """

    enabled: bool = True
    min_rows: int = 200
    false_alarms: float = 0.01
    psi: float = 0.2
    js: float = 0.2
    psi_label: float = 0.05
    probabilities: float = 0.03
    share: float = 0.05
    embedding: float = 0.02
    f1_drop: float = 0.05

    def __post_init__(self) -> None:
        if self.min_rows < 1:
            message = f"inference.monitor.min_rows must be at least 1, got {self.min_rows}."
            raise InputError(message)
        if not 0 < self.false_alarms < 1:
            message = (
                f"inference.monitor.false_alarms must be between 0 and 1, got {self.false_alarms}."
            )
            raise InputError(message)
        for name in ("psi", "js", "psi_label", "probabilities", "share", "embedding", "f1_drop"):
            if not getattr(self, name) >= 0:
                message = f"inference.monitor.{name} must be at least 0, got {getattr(self, name)}."
                raise InputError(message)

    def watch(self, model: Pipeline, plain: Mapping[str, Any] | None) -> Watch | None:
        """Get ready to look at batches.

        Parameters
        ----------
        model : Pipeline
            The trained model.
        plain : mapping, optional
            Its reference as the artifact keeps it; models of earlier versions have none.

        Returns
        -------
        Watch or None
            None without a reference, or where monitoring is switched off.
        """
        reference = Reference.from_dict(plain) if self.enabled and plain is not None else None
        return None if reference is None else Watch(reference, Words.of(model))

    def judge(
        self, seen: Seen, reference: Reference, *, truncated_share: float | None = None
    ) -> Verdict:
        """Hold what was seen against the reference.

        Parameters
        ----------
        seen : Seen
            Of all rows of a run, at least one.
        reference : Reference
            Of the model.
        truncated_share : float, optional
            Share of the texts that were longer than the embedder reads, to be told.
        """
        enough = seen.n_rows >= self.min_rows
        measures = self._compared(seen, reference)
        if enough:
            measures = self._alarmed(measures)
        estimates = estimate(seen.expected, reference.calibration)
        alarms = sorted((each for each in measures if each.alarm), key=_rank)
        drifting = [each.measure for each in alarms]
        f1, measured = estimates["f1_macro"], reference.measured["f1_macro"]
        if enough and f1.value < measured - self.f1_drop and f1.high < measured:
            drifting.insert(0, "estimated F1")
        verdict: Literal["fits", "drifting"] = "drifting" if drifting else "fits"
        return Verdict(
            verdict=verdict if enough else "too few rows",
            drifting=drifting,
            seen=seen,
            reference=reference.held_out,
            measures=measures,
            estimates=estimates,
            measured=reference.measured,
            truncated_share=truncated_share,
        )

    def report(
        self,
        seen: Seen | None,
        watch: Watch | None,
        artifact: Artifact,
        usage: Usage,
        *,
        paths: Paths,
        record: RunRecord,
    ) -> Verdict | None:
        """Judge a run, and say so in the log, in its record and in the history.

        Parameters
        ----------
        seen : Seen or None
            Of all its rows.
        watch : Watch or None
            That saw them.
        artifact : Artifact
            The model.
        usage : Usage
            Of the feature store: which texts were embedded.
        paths : Paths
            Where the history is.
        record : RunRecord
            Takes the verdict as the fact ``monitoring``.

        Returns
        -------
        Verdict or None
            None where nothing was seen: monitoring is off, or the model has no reference.
        """
        if seen is None or watch is None:
            record.facts["monitoring"] = None
            if self.enabled:
                logger.warning(
                    "Model {} has no reference to monitor against: train again to get one.",
                    artifact.version,
                )
            return None
        verdict = self.judge(
            seen,
            watch.reference,
            truncated_share=usage.truncated / usage.embedded if usage.embedded else None,
        )
        record.facts["monitoring"] = verdict.to_dict()
        append(
            paths.layer("08_reporting") / "monitoring.parquet",
            {
                "run_id": record.run_id,
                "time": utc_now(),
                "model": artifact.card["name"],
                "model_version": artifact.version,
                **verdict.row(),
            },
            MONITORING,
        )
        level = "WARNING" if verdict.verdict == "drifting" else "INFO"
        logger.log(level, "Monitoring: {}\n{}", verdict.line, verdict.table())
        return verdict

    @staticmethod
    def _compared(seen: Seen, reference: Reference) -> list[Measure]:
        held_out = reference.held_out
        measures = []
        for name, counts in seen.counts.items():
            found: Drift = drift(held_out.counts[name], counts)
            share = _is_share(name)
            measures.append(
                Measure(
                    measure=name,
                    value=float(counts[1] / seen.n_rows) if share else None,
                    reference=float(held_out.counts[name][1] / held_out.n_rows) if share else None,
                    psi=found.psi,
                    js=found.js,
                    p_value=found.p_value,
                )
            )
        moved = shift(*held_out.expected.moments, *seen.expected.moments[:2])
        measures.append(
            Measure(measure=CLASS_PROBABILITIES, distance=moved.distance, p_value=moved.p_value)
        )
        if reference.embedding is not None:
            moved = mean_drift(
                held_out.waves / held_out.n_rows,
                held_out.n_rows,
                seen.waves / seen.n_rows,
                seen.n_rows,
                variance=reference.spread[0],
                squared=reference.spread[1],
            )
            measures.append(
                Measure(measure=EMBEDDING, distance=moved.distance, p_value=moved.p_value)
            )
        return measures

    def _alarmed(self, measures: list[Measure]) -> list[Measure]:
        n_outputs = sum(each.measure in OUTPUTS for each in measures)
        surest = {
            True: self.false_alarms / 2 / n_outputs,
            False: self.false_alarms / 2 / max(1, len(measures) - n_outputs),
        }
        return [
            replace(
                each,
                alarm=each.p_value < surest[each.measure in OUTPUTS] and self._matters(each),
            )
            for each in measures
        ]

    def _matters(self, each: Measure) -> bool:
        if each.measure == CLASS_PROBABILITIES:
            return (each.distance or 0.0) >= self.probabilities
        if each.measure == EMBEDDING:
            return (each.distance or 0.0) >= self.embedding
        if each.value is not None and each.reference is not None:
            return abs(each.value - each.reference) >= self.share
        if each.measure == LABEL:
            return (each.psi or 0.0) >= self.psi_label
        return (each.psi or 0.0) >= self.psi or (each.js or 0.0) >= self.js


def _is_share(name: str) -> bool:
    return name == EMPTY or name.startswith(UNSEEN)


def _rank(each: Measure) -> tuple[bool, float, float]:
    return (not each.alarm, each.p_value, -(each.psi or each.distance or 0.0))


def _rounded(value: Any) -> Any:
    """Round, so that no figure depends on the order in which batches were added."""
    match value:
        case dict():
            return {key: _rounded(each) for key, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
        case float():
            return float(np.format_float_positional(value, _DIGITS, unique=False, fractional=False))
        case _:
            return value
