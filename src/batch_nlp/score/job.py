"""Labels that came after the predictions: how good these were, and how good the estimate was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger

from batch_nlp.artifact import Registry
from batch_nlp.errors import InputError
from batch_nlp.logs import Clock, Logs
from batch_nlp.monitoring.estimate import MEASURES, Estimate, Expected, estimate
from batch_nlp.monitoring.history import append, read_history
from batch_nlp.monitoring.monitor import MONITORING
from batch_nlp.monitoring.reference import Reference
from batch_nlp.predict import PROBABILITIES
from batch_nlp.records import RunRecord, utc_now
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine, Source
from batch_nlp.rows.stream import RowStream
from batch_nlp.rows.validate import FAILURE_COLUMNS, Verdict, validate
from batch_nlp.schemas import LABELS, Field
from batch_nlp.settings import Paths
from batch_nlp.tables import expand
from batch_nlp.training.evaluate import Evaluation, evaluate
from batch_nlp.training.labels import StarRule

NOT_PREDICTED = "among the predictions"
NEITHER = "not missing"

_NEEDED = ["id", "prediction", *PROBABILITIES, "model_version", "run_id"]

SCORES = pa.schema(
    {
        "run_id": pa.string(),
        "time": pa.string(),
        "predictions_run_id": pa.string(),
        "model": pa.string(),
        "model_version": pa.string(),
        "labels_read": pa.int64(),
        "labels_matched": pa.int64(),
        "labels_not_predicted": pa.int64(),
        "labels_rejected": pa.int64(),
        "labels_duplicates": pa.int64(),
        "predictions": pa.int64(),
        "predictions_without_label": pa.int64(),
        **dict.fromkeys(
            ("f1_macro", "f1_weighted", "recall_macro", "accuracy", "log_loss"), pa.float64()
        ),
        "expected_calibration_error": pa.float64(),
        **{f"f1_{label}": pa.float64() for label in LABELS},
        "precision_neutral": pa.float64(),
        "recall_neutral": pa.float64(),
        **{
            f"estimated_{name}{end}": pa.float64()
            for name in MEASURES
            for end in ("", "_low", "_high")
        },
        **{f"{name}_as_estimated": pa.bool_() for name in MEASURES},
        **{f"run_estimated_{name}": pa.float64() for name in MEASURES},
    }
)
"""One row a scoring, in ``08_reporting/scores.parquet``."""


@dataclass(frozen=True)
class _Check:
    """Holds a labels file against its contract and against the predictions."""

    fields: Mapping[str, Field]
    rule: StarRule
    predicted: pd.Index[str]

    def __call__(self, frame: pd.DataFrame) -> Verdict:
        verdict = validate(frame, self.fields)
        accepted = verdict.accepted
        target = self.rule.apply(accepted)
        known = accepted["id"].isin(self.predicted)
        more = [
            pd.DataFrame({"column": column, "check": check, "value": values}, index=values.index)
            for column, check, values in (
                ("label", NEITHER, accepted["label"][target.isna()]),
                ("id", NOT_PREDICTED, accepted["id"][~known]),
            )
        ]
        failures = pd.concat([verdict.failures, *more])[list(FAILURE_COLUMNS)].astype("str")
        fine = target.notna() & known
        return Verdict(
            accepted[fine].assign(target=target[fine].astype("int64")),
            failures.sort_index(kind="stable"),
        )


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """Which labels are held against which predictions.

    Parameters
    ----------
    labels : str or list of str, optional
        File or glob of labels, with the columns that the data set names.
    predictions : str or list of str, optional
        Parquet file or glob that inference wrote; None takes the last.
    """

    labels: str | list[str] | None = None
    predictions: str | list[str] | None = None

    def run(
        self,
        source: Source,
        registry: Registry,
        *,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
    ) -> Evaluation:
        """Join labels to predictions by id, judge these, and add a row to the history.

        The predictions and the labels that belong to them are held in memory.

        Parameters
        ----------
        source : Source
            Labels.
        registry : Registry
            Has the model that made the predictions, which says which stars are which class.
        paths, engine, logs : Paths, Engine, Logs
            Where, how, and how loudly.
        record : RunRecord
            Takes the counts of each stage and, as the fact ``score``, what came out.

        Returns
        -------
        Evaluation
            Of the predictions that have a label.

        Raises
        ------
        InputError
            If there are no predictions, they are of several runs, or no label belongs to them.
        ArtifactError
            If the model that made them is gone.
        """
        clock = Clock()
        reporting = paths.layer("08_reporting")
        predictions = self._predictions(paths)
        run_id, version = predictions["run_id"].iloc[0], predictions["model_version"].iloc[0]
        card, plain = registry.described(version)
        rejected = reporting / "scores_rejected.parquet"
        stream: RowStream[pd.DataFrame] = RowStream(
            source,
            _Check(source.fields, StarRule(**card["rules"]["label"]), pd.Index(predictions["id"])),
            engine=engine,
            spill=reporting / ".spill",
            rejected=rejected,
            clock=clock,
        )
        with stream:
            batches = [
                rows[["id", "target"]]
                for rows in logs.progress(
                    stream, what="score", unit="rows", total=stream.n_rows, done=stream.passed
                )
            ]
        stream.report(record, "score")
        stream.require_some(rejected)
        with clock.step("evaluate"):
            both = predictions.merge(pd.concat(batches), on="id", validate="1:1")
            evaluation = evaluate(both["target"], both[PROBABILITIES], predicted=both["prediction"])
            evaluation.write(record.path)
            estimates = _estimates(both, plain)
        record.stage(
            "score/evaluate",
            Counts(read=len(both), delivered=len(both)),
            clock.seconds["evaluate"],
        )
        read = stream.counts["extract"].read
        reasons = Counter(pq.read_table(rejected, columns=["check"])["check"].to_pylist())
        duplicates = stream.counts["deduplicate"].duplicates
        not_predicted = reasons[NOT_PREDICTED]
        row = {
            "run_id": record.run_id,
            "time": utc_now(),
            "predictions_run_id": run_id,
            "model": registry.name,
            "model_version": version,
            "labels_read": read,
            "labels_matched": len(both),
            "labels_not_predicted": not_predicted,
            "labels_rejected": read - len(both) - duplicates - not_predicted,
            "labels_duplicates": duplicates,
            "predictions": len(predictions),
            "predictions_without_label": len(predictions) - len(both),
            **{name: value for name, value in asdict(evaluation).items() if name in SCORES.names},
            **{f"f1_{label}": evaluation.per_class[label]["f1"] for label in LABELS},
            **{
                f"{name}_neutral": evaluation.per_class["neutral"][name]
                for name in ("precision", "recall")
            },
            **_compared(evaluation, estimates),
            **_of_the_run(reporting / "monitoring.parquet", run_id, version),
        }
        append(reporting / "scores.parquet", row, SCORES)
        record.facts["model_version"] = version
        record.facts["score"] = {**row, "rejected_for": dict(reasons)}
        self._tell(row, evaluation, estimates, rejected)
        return evaluation

    def _predictions(self, paths: Paths) -> pd.DataFrame:
        if self.predictions is None:
            path = paths.layer("09_inference") / "predictions.parquet"
            if not path.exists():
                message = (
                    f"There are no predictions in {path.parent}: run pipeline=inference first."
                )
                raise InputError(message)
            files = [str(path)]
        else:
            files = expand(self.predictions, key="score.predictions")
        rows = pd.concat([_read(Path(file)) for file in files], ignore_index=True)
        shown = ", ".join(files[:3])
        if rows.empty:
            message = f"score.predictions: {shown} holds no predictions."
            raise InputError(message)
        runs = rows["run_id"].unique().tolist()
        if len(runs) > 1:
            message = (
                f"score.predictions must be of one run, but {shown} has {len(runs)}: "
                f"{', '.join(runs[:3])}."
            )
            raise InputError(message)
        if rows["id"].duplicated().any():
            again = rows["id"][rows["id"].duplicated()].iloc[0]
            message = f"score.predictions: {shown} has the id {again!r} more than once."
            raise InputError(message)
        return rows

    @staticmethod
    def _tell(
        row: Mapping[str, Any],
        evaluation: Evaluation,
        estimates: Mapping[str, Estimate],
        rejected: Path,
    ) -> None:
        logger.info(
            "Labels: {:,} read, {:,} matched, {:,} not among the predictions, {:,} rejected, "
            "{:,} duplicates; {:,} of {:,} predictions have no label yet.",
            row["labels_read"],
            row["labels_matched"],
            row["labels_not_predicted"],
            row["labels_rejected"],
            row["labels_duplicates"],
            row["predictions_without_label"],
            row["predictions"],
        )
        if row["labels_matched"] < row["labels_read"]:
            logger.warning("Labels that were not used, with reasons: {}", rejected)
        lines = [f"{'':<14}{'measured':>10}{'estimated':>24}"]
        for name in MEASURES:
            found, told = estimates.get(name), "-"
            if found is not None:
                told = f"{found.value:.3f} ({found.low:.3f}-{found.high:.3f})"
            lines.append(f"{name:<14}{getattr(evaluation, name):>10.3f}{told:>24}")
        logger.info(
            "Scored the predictions of run {}; neutral precision {:.3f}, recall {:.3f}:\n{}",
            row["predictions_run_id"],
            row["precision_neutral"],
            row["recall_neutral"],
            "\n".join(lines),
        )


def _read(path: Path) -> pd.DataFrame:
    try:
        rows: pd.DataFrame = pq.read_table(path, columns=_NEEDED).select(_NEEDED).to_pandas()
    except (pa.ArrowException, KeyError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].removesuffix(".")
        message = f"score.predictions: {path} is no Parquet file of predictions ({reason})."
        raise InputError(message) from error
    return rows


def _estimates(both: pd.DataFrame, plain: Mapping[str, Any] | None) -> dict[str, Estimate]:
    """Estimate, without their labels, the very rows that have one."""
    reference = Reference.from_dict(plain) if plain is not None else None
    if reference is None:
        return {}
    expected = Expected.of(both["prediction"].to_numpy(), both[PROBABILITIES].to_numpy())
    return estimate(expected, reference.calibration)


def _compared(evaluation: Evaluation, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in estimates.items():
        found |= {
            f"estimated_{name}": each.value,
            f"estimated_{name}_low": each.low,
            f"estimated_{name}_high": each.high,
            f"{name}_as_estimated": each.low <= getattr(evaluation, name) <= each.high,
        }
    return found


def _of_the_run(path: Path, run_id: str, version: str) -> dict[str, Any]:
    """Give what monitoring estimated for all predictions of a run, labelled or not."""
    rows = read_history(path, MONITORING).to_pylist()
    same = [row for row in rows if (row["run_id"], row["model_version"]) == (run_id, version)]
    if not same:
        return {}
    return {f"run_estimated_{name}": same[-1][f"estimated_{name}"] for name in MEASURES}
