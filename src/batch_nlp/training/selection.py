"""Which classifier suits the training rows best, and with which parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from loguru import logger
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, StratifiedGroupKFold
from sklearn.pipeline import Pipeline

from batch_nlp.artifact import installed_libraries
from batch_nlp.errors import InputError
from batch_nlp.kernel import Kernel
from batch_nlp.logs import Clock, Logs
from batch_nlp.records import RunRecord
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import LABELS
from batch_nlp.settings import Paths, build, verify_node
from batch_nlp.store import Manifest
from batch_nlp.tables import (
    ParquetSink,
    atomic_path,
    digest,
    file_digest,
    from_pandas,
    write_json,
    write_text,
)
from batch_nlp.training.classifiers import TARGETS, missing, write_best
from batch_nlp.training.evaluate import class_scores
from batch_nlp.training.flaml_search import search
from batch_nlp.training.job import TrainingJob, inputs_of
from batch_nlp.training.pipeline import grading

BEST_FILE = "best.yaml"
"""The choice, in ``06_models``."""

LEADERBOARD = pa.schema(
    {
        "rank": pa.int64(),
        "candidate": pa.string(),
        "parameters": pa.string(),
        "f1_weighted": pa.float64(),
        "f1_weighted_std": pa.float64(),
        "f1_macro": pa.float64(),
        "f1_macro_std": pa.float64(),
        "precision_neutral": pa.float64(),
        "precision_neutral_std": pa.float64(),
        "recall_neutral": pa.float64(),
        "recall_neutral_std": pa.float64(),
        "seconds": pa.float64(),
        "note": pa.string(),
    }
)

MEASURES = {
    "f1_weighted": "F1 weighted",
    "f1_macro": "F1 macro",
    "precision_neutral": "neutral precision",
    "recall_neutral": "neutral recall",
}
"""What a classifier is judged by, as the leaderboard names it; the first decides."""

FLAML = "flaml"

_FOLDER_CHARACTERS = 16

Node = Mapping[str, Any]
"""A classifier as the configuration describes it."""

Score = Mapping[str, Any]
"""Of one fold: `MEASURES`, ``seconds``, and of FLAML what it ``found``."""


@dataclass(frozen=True)
class Standing:
    """How one classifier with its parameters did.

    Attributes
    ----------
    candidate : str
        Its name.
    node : mapping
        What it is built from.
    tuned : mapping of str to scalar
        The parameters that tuning has set; none in the comparison of the candidates.
    scores : sequence of mapping
        Of each fold.
    note : str
        Why there is no score, or what else there is to say.
    """

    candidate: str
    node: Node = field(default_factory=dict)
    tuned: Mapping[str, Any] = field(default_factory=dict)
    scores: Sequence[Score] = ()
    note: str = ""

    def mean(self, measure: str) -> float:
        """Give the mean of a measure over the folds; NaN where there are none."""
        return float(np.mean([s[measure] for s in self.scores])) if self.scores else np.nan

    def spread(self, measure: str) -> float:
        """Give the standard deviation of a measure over the folds."""
        return float(np.std([s[measure] for s in self.scores])) if self.scores else np.nan


@dataclass(frozen=True, kw_only=True)
class SelectionJob:
    """Compare classifiers by cross-validation on the training rows, and tune the best one.

    Every fold fits the steps before the classifier once, and all candidates learn from what
    these steps make of it. A candidate is scored as training would use it: in the same
    calibration, with the same weights of the rows.

    Parameters
    ----------
    candidates : mapping of str to mapping
        By name, of those in `batch_nlp.training.classifiers.TARGETS`, what is built; None
        leaves one out. One that is not installed has a line without scores.
    grid : mapping of str to mapping of str to list
        By candidate, the values to try of each parameter; a candidate without them is not tuned.
    search : {"grid", "optuna"}, default="grid"
        ``grid`` tries every combination. ``optuna`` samples `n_trials` of them with Optuna's
        tree-structured Parzen estimator, numbers from anywhere between the lowest and the
        highest value (on a logarithmic scale where the one is ten times the other or more).
    n_trials : int, default=20
        Of Optuna.
    cv : int, default=5
        Folds, of the same class shares as far as can be; rows with the same text are in one.
    flaml_seconds : float or None, default=60
        How long FLAML's AutoML may search, on each fold; None leaves it out.
    seed : int, default=0
        Of the folds and the searches.
    """

    candidates: Mapping[str, Mapping[str, Any] | None]
    grid: Mapping[str, Mapping[str, Sequence[Any]] | None] = field(default_factory=dict)
    search: Literal["grid", "optuna"] = "grid"
    n_trials: int = 20
    cv: int = 5
    flaml_seconds: float | None = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_trials", 1), ("cv", 2)):
            if getattr(self, name) < least:
                message = f"selection.{name} must be at least {least}, got {getattr(self, name)}."
                raise InputError(message)
        if self.flaml_seconds is not None and not self.flaml_seconds > 0:
            message = f"selection.flaml_seconds must be above 0 or null, got {self.flaml_seconds}."
            raise InputError(message)
        for name, node in self.candidates.items():
            target = TARGETS.get(name)
            if target is None or (node is not None and node.get("_target_") != target):
                known = ", ".join(f"{each} ({target})" for each, target in TARGETS.items())
                message = f"selection.candidates must be of {known}; got {name}: {node}."
                raise InputError(message)
        strangers = sorted(set(self.grid) - set(TARGETS))
        if strangers:
            message = (
                f"selection.grid must name candidates out of {list(TARGETS)}, got {strangers}."
            )
            raise InputError(message)
        for name, values in self.grid.items():
            if values and (node := self.candidates.get(name)):
                firsts = {each: tried[0] for each, tried in values.items() if tried}
                verify_node({**node, **firsts}, f"selection.grid.{name}")
        lacking = missing("optuna") if self.search == "optuna" else None
        if lacking:
            message = f"selection.search=optuna: Optuna is {lacking}"
            raise InputError(message)

    def run(
        self,
        training: Mapping[str, Any],
        manifest: Manifest,
        kernel: Kernel,
        *,
        store: Path,
        paths: Paths,
        engine: Engine,
        logs: Logs,
        record: RunRecord,
    ) -> Path:
        """Select on the rows of a snapshot that training would train on.

        What is scored is kept as soon as it is; another run on the same rows and steps goes on
        from there, and one on others starts anew.

        Parameters
        ----------
        training : mapping
            What a `TrainingJob` is built from; its classifier is not looked at.
        manifest : Manifest
            The snapshot.
        kernel : Kernel
            The feature pipeline that made it.
        store : Path
            Folder of the feature store.
        paths : Paths
            Where reports and data layers go.
        engine : Engine
            How features are read.
        logs : Logs
            Shows progress.
        record : RunRecord
            Takes the counts and the choice.

        Returns
        -------
        Path
            The file that ``classifier=best`` reads.

        Raises
        ------
        InputError
            If a class has too few rows, a candidate refuses its parameters, or none is there.
        """
        clock = Clock()
        with_prior = _training_job(training, {"_target_": TARGETS["prior"]})
        with logs.working("selection: reading"):
            rows, target, held_out = with_prior.read(
                manifest,
                kernel,
                store=store,
                paths=paths,
                engine=engine,
                record=record,
                clock=clock,
            )
        rows, target = rows[~held_out].reset_index(drop=True), target[~held_out]
        work = paths.layer("06_models") / "selection" / self._key(training, manifest, store)
        _remove_others(work)
        bench = _Bench(
            training=training,
            folds=_Folds(
                work=work,
                steps=with_prior.model[:-1],
                rows=inputs_of(rows),
                target=target,
                stars=rows["stars"],
                parts=self._parts(rows[kernel.embedder.column], target),
            ),
            candidates=self.candidates,
            seed=self.seed,
        )
        with clock.step("compare"):
            compared = self._compare(bench, logs)
        best = _ranked(compared)[0]
        with clock.step("tune"):
            tuned = self._tune(best, bench, logs)
            best = _ranked([best, *tuned])[0]
            name, node = bench.settled(best)
        for step in ("compare", "tune"):
            counts = Counts(read=len(rows), delivered=len(rows))
            record.stage(f"selection/{step}", counts, clock.seconds[step])
        outputs = self._report([*compared, *tuned], paths.layer("08_reporting"))
        parameters = {key: value for key, value in node.items() if key != "_target_"}
        scores = {measure: round(best.mean(measure), 6) for measure in ("f1_weighted", "f1_macro")}
        path = paths.layer("06_models") / BEST_FILE
        write_best(path, name, parameters, **scores, run_id=record.run_id)
        for each in (path, *outputs):
            record.produced(each)
        record.facts["selection"] = {"name": name, "parameters": parameters, **scores}
        bench.folds.remove()
        logger.info(
            "Best of {} settings: {} {}, F1 weighted {:.3f}, F1 macro {:.3f} in {} folds. "
            "Train with it: pipeline=training classifier=best",
            len(compared) + len(tuned),
            name,
            json.dumps(dict(best.tuned)),
            scores["f1_weighted"],
            scores["f1_macro"],
            self.cv,
        )
        return path

    def _key(self, training: Mapping[str, Any], manifest: Manifest, store: Path) -> str:
        """Name what a score depends on, the classifier aside."""
        kept = {key: training[key] for key in training if key not in {"thresholds", "features"}}
        steps = {key: each for key, each in training["model"].items() if key != "classifier"}
        content = {
            "snapshot": file_digest(store / manifest.snapshot),
            "fingerprint": manifest.fingerprint,
            "vector_fingerprint": manifest.vector_fingerprint,
            "training": {**kept, "model": steps},
            "cv": self.cv,
            "seed": self.seed,
            "measures": list(MEASURES),
            "libraries": installed_libraries(),
        }
        return digest(content)[:_FOLDER_CHARACTERS]

    def _parts(
        self, texts: pd.Series, target: npt.NDArray[np.int64]
    ) -> list[npt.NDArray[np.bool_]]:
        """Tell for each fold which rows judge; a text is in one fold alone."""
        groups = pd.factorize(texts)[0]
        fewest = pd.Series(groups).groupby(target).nunique().min()
        if fewest < self.cv:
            message = (
                f"selection.cv={self.cv} needs as many different texts of each class among the "
                f"training rows; there are {fewest}."
            )
            raise InputError(message)
        cut = StratifiedGroupKFold(n_splits=self.cv, shuffle=True, random_state=self.seed)
        every = np.arange(len(target))
        return [np.isin(every, judging) for _, judging in cut.split(every, target, groups)]

    def _compare(self, bench: _Bench, logs: Logs) -> list[Standing]:
        """Score the candidates, each in all folds."""
        standings = []
        wanted: dict[str, Node] = {
            name: node for name, node in self.candidates.items() if node is not None
        }
        if self.flaml_seconds is not None:
            wanted[FLAML] = {"_target_": FLAML, "seconds": self.flaml_seconds}
        lacking = {name: missing(name) for name in wanted if name in {"lightgbm", FLAML}}
        absent = {name: why for name, why in lacking.items() if why}
        present = {name: node for name, node in wanted.items() if name not in absent}
        if not present:
            message = "selection.candidates must name one that is installed; got none."
            raise InputError(message)
        for name, why in absent.items():
            logger.warning("{} is left out, {}", name, why)
        fits = logs.progress(list(product(present, range(self.cv))), what="candidates", unit="fits")
        for name, fold in fits:
            bench.score(present[name], fold)
            if fold == self.cv - 1:
                standing = bench.standing(name, present[name])
                _say(standing)
                standings.append(standing)
        return [*standings, *(Standing(name, note=why) for name, why in absent.items())]

    def _tune(self, best: Standing, bench: _Bench, logs: Logs) -> list[Standing]:
        """Score the best candidate with other parameters."""
        grid = self.grid.get(best.candidate)
        if not grid:
            return []
        if self.search == "optuna":
            return list(self._sample(best, grid, bench, logs))
        points = logs.progress(
            list(ParameterGrid(grid)), what=f"tuning {best.candidate}", unit="settings"
        )
        return [bench.tried(best, point) for point in points]

    def _sample(
        self, best: Standing, grid: Mapping[str, Sequence[Any]], bench: _Bench, logs: Logs
    ) -> Iterator[Standing]:
        """Score what Optuna asks for.

        The sampler depends on its seed and on the scores so far alone: after an interruption it
        asks for the same settings again, whose scores are kept.
        """
        import optuna  # noqa: PLC0415  an extra

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=self.seed)
        )
        trials = range(self.n_trials)
        for _ in logs.progress(trials, what=f"tuning {best.candidate}", unit="settings"):
            trial = study.ask()
            standing = bench.tried(
                best, {name: _suggested(trial, name, list(grid[name])) for name in grid}
            )
            study.tell(trial, standing.mean("f1_weighted"))
            yield standing

    def _report(self, standings: Sequence[Standing], folder: Path) -> list[Path]:
        """Write the leaderboard, best first, as a table and as a page."""
        scored = _ranked([each for each in standings if each.scores])
        rest = [each for each in standings if not each.scores]
        rows = pd.DataFrame(
            [
                {
                    "rank": rank if each.scores else None,
                    "candidate": each.candidate,
                    "parameters": json.dumps(dict(each.tuned)),
                    **{
                        name: value
                        for measure in MEASURES
                        for name, value in (
                            (measure, each.mean(measure)),
                            (f"{measure}_std", each.spread(measure)),
                        )
                    },
                    "seconds": each.mean("seconds"),
                    "note": each.note,
                }
                for rank, each in enumerate([*scored, *rest], start=1)
            ]
        ).astype({"rank": "Int64"})
        with ParquetSink(folder / "selection_leaderboard.parquet", LEADERBOARD) as sink:
            sink.write(from_pandas(rows[LEADERBOARD.names], LEADERBOARD))
        heads = " | ".join(MEASURES.values())
        lines = [
            f"# Leaderboard: {self.cv} folds of the training rows",
            "",
            "Mean and standard deviation over the folds; seconds are of one fold's fit.",
            "",
            f"| rank | candidate | changed parameters | {heads} | seconds | note |",
            "|---" * (len(MEASURES) + 5) + "|",
            *(_line(row) for _, row in rows.iterrows()),
        ]
        page = folder / "selection_leaderboard.md"
        write_text(page, "\n".join(lines) + "\n")
        return [sink.path, page]


@dataclass(frozen=True, kw_only=True)
class _Folds:
    """The training rows in folds, past the steps before the classifier; kept on disk."""

    work: Path
    steps: Pipeline
    rows: pd.DataFrame
    target: npt.NDArray[np.int64]
    stars: pd.Series
    parts: Sequence[npt.NDArray[np.bool_]]

    def frames(self, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Give the features of the rows that train in a fold, and of those that judge."""
        places = [self.work / f"fold_{fold}_{part}.parquet" for part in ("train", "judge")]
        if not all(place.exists() for place in places):
            judging = self.parts[fold]
            steps, train = self._fitted(~judging)
            for place, frame in zip(
                places, (train, steps.transform(self.rows[judging])), strict=True
            ):
                with atomic_path(place) as beside:
                    frame.reset_index(drop=True).to_parquet(beside)
        train, judge = (pd.read_parquet(place) for place in places)
        return train, judge

    def whole(self) -> pd.DataFrame:
        """Give the features of all rows."""
        return self._fitted(np.ones(len(self.target), dtype=bool))[1]

    def remove(self) -> None:
        for place in self.work.glob("fold_*.parquet"):
            place.unlink()

    def _fitted(self, part: npt.NDArray[np.bool_]) -> tuple[Pipeline, pd.DataFrame]:
        steps = clone(self.steps)
        try:
            rows, target = self.rows[part], self.target[part]
            finer = grading(steps, rows, target, self.stars[part])
            return steps, steps.fit_transform(rows, target, **finer)
        except ValueError as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            message = f"training.model cannot be fitted to the rows of a fold: {reason}"
            raise InputError(message) from error


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """Where classifiers are scored, each at most once in a fold."""

    training: Mapping[str, Any]
    folds: _Folds
    candidates: Mapping[str, Mapping[str, Any] | None]
    seed: int

    def standing(
        self, candidate: str, node: Node, tuned: Mapping[str, Any] | None = None
    ) -> Standing:
        """Give the scores of a classifier in all folds."""
        scores = [self.score(node, fold) for fold in range(len(self.folds.parts))]
        found = sorted({each["found"]["name"] for each in scores if "found" in each})
        note = f"found {', '.join(found)}" if found else ""
        return Standing(candidate, node, tuned or {}, scores, note)

    def tried(self, best: Standing, point: Mapping[str, Any]) -> Standing:
        """Give the scores of a classifier with some other parameters."""
        return self.standing(best.candidate, {**best.node, **point}, point)

    def score(self, node: Node, fold: int) -> Score:
        """Give the scores of a classifier in one fold; those that are kept are not made again."""
        place = self._place(node)
        kept = _read(place)
        if str(fold) not in kept:
            write_json(place, {**kept, str(fold): self._scored(node, fold)})
        score: Score = _read(place)[str(fold)]
        return score

    def settled(self, best: Standing) -> tuple[str, Node]:
        """Give the name and the description of what training is to use."""
        if best.candidate != FLAML:
            return best.candidate, best.node
        place = self._place({**best.node, "rows": "all"})
        if not place.exists():
            write_json(place, self._search(best.node, self.folds.whole(), self.folds.target))
        found = _read(place)
        return found["name"], found["node"]

    def _scored(self, node: Node, fold: int) -> dict[str, Any]:
        train, judge = self.folds.frames(fold)
        judging = self.folds.parts[fold]
        known, truth = self.folds.target[~judging], self.folds.target[judging]
        clock = Clock()
        found: dict[str, Any] = {}
        with clock.step("fit"):
            if node["_target_"] == FLAML:
                found = {"found": self._search(node, train, known)}
                node = found["found"]["node"]
            job = _training_job(self.training, node)
            model = Pipeline(job.model.steps[-1:])
            job.fit(model, train, known)
        predicted = model.predict(judge)
        precision, recall, _ = class_scores(truth, predicted, None)
        neutral = LABELS.index("neutral")
        return {
            "f1_weighted": float(class_scores(truth, predicted, "weighted")[2]),
            "f1_macro": float(class_scores(truth, predicted, "macro")[2]),
            "precision_neutral": float(precision[neutral]),
            "recall_neutral": float(recall[neutral]),
            "seconds": round(clock.seconds["fit"], 3),
            **found,
        }

    def _search(
        self, node: Node, rows: pd.DataFrame, target: npt.NDArray[np.int64]
    ) -> dict[str, Any]:
        name, found = search(rows, target, seconds=node["seconds"], seed=self.seed)
        own = self.candidates.get(name) or {}
        kept = {key: own[key] for key in ("n_jobs", "random_state") if key in own}
        return {"name": name, "node": {"_target_": TARGETS[name], **kept, **found}}

    def _place(self, node: Node) -> Path:
        return self.folds.work / "scores" / f"{digest(node)[:_FOLDER_CHARACTERS]}.json"


def _training_job(training: Mapping[str, Any], node: Node) -> TrainingJob:
    """Build what trains, with another classifier."""
    changed = {**training, "model": {**training["model"], "classifier": dict(node)}}
    job: TrainingJob = build(changed, "training")
    return job


def _ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Sort by F1 weighted, then F1 macro; among equals the first stays first."""
    scored = [each for each in standings if each.scores]
    return sorted(
        scored, key=lambda each: (each.mean("f1_weighted"), each.mean("f1_macro")), reverse=True
    )


def _remove_others(work: Path) -> None:
    """Remove what was kept for other rows or steps."""
    for other in work.parent.glob("*"):
        if other != work and other.is_dir():
            shutil.rmtree(other)


def _read(place: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _say(standing: Standing) -> None:
    logger.info(
        "{:<14} F1 weighted {:.3f} ± {:.3f}, F1 macro {:.3f} ± {:.3f}, {:.1f} s a fit",
        standing.candidate,
        standing.mean("f1_weighted"),
        standing.spread("f1_weighted"),
        standing.mean("f1_macro"),
        standing.spread("f1_macro"),
        standing.mean("seconds"),
    )


def _suggested(trial: Any, name: str, values: list[Any]) -> Any:
    """Let an Optuna trial choose a parameter from the range that a grid's values span."""
    numbers = [each for each in values if isinstance(each, int | float) and each is not True]
    if len(numbers) < len(values) or min(numbers) == max(numbers):
        return trial.suggest_categorical(name, values)
    low, high = min(numbers), max(numbers)
    log = low > 0 and high >= 10 * low
    if all(isinstance(each, int) for each in numbers):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def _line(row: pd.Series) -> str:
    changed = ", ".join(f"{key}={value}" for key, value in json.loads(row["parameters"]).items())
    if pd.isna(row["rank"]):
        empty = " |" * (len(MEASURES) + 1)
        return f"| | {row['candidate']} | {changed} |{empty} {row['note']} |"
    scores = [f"{row[measure]:.3f} ± {row[f'{measure}_std']:.3f}" for measure in MEASURES]
    cells = [row["rank"], row["candidate"], changed, *scores, f"{row['seconds']:.1f}", row["note"]]
    return f"| {' | '.join(str(cell) for cell in cells)} |"
