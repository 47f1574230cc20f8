"""False alarms, detections and cost of monitoring, on real reviews of two kinds.

    .venv/bin/python benchmarks/monitoring.py ../shared/data [override ...]

For each data set a model is trained with its own time split. Batches are then drawn from the rows
it held out, unchanged or with one class three times as frequent, and from the other data set, and
each is judged as an inference run would judge it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score

from batch_nlp.artifact import Registry
from batch_nlp.logs import Clock
from batch_nlp.monitoring.monitor import Monitor
from batch_nlp.monitoring.reference import Look, Reference, Words
from batch_nlp.predict import predict
from batch_nlp.rows.datasets import Dataset, HeldOutDataset, MessagesDataset, YelpDataset
from batch_nlp.rows.extract import Engine
from batch_nlp.rows.stream import RowStream
from batch_nlp.run import kernel_of
from batch_nlp.schemas import LABELS
from batch_nlp.store import FeatureStore

SCRIPT = Path(__file__).resolve().parent.parent / "start_batch_nlp.py"
N_BATCHES = 200
N_ROWS = 500
TEXT = ("text.", "feature.text_", "embedding")
"""How the names of the measures of the text begin."""

Class = npt.NDArray[np.int64]


def data_sets(folder: Path) -> dict[str, tuple[list[str], Dataset]]:
    """Give the overrides that train on each data set, and the data set itself."""
    restaurants = str(folder / "messages" / "restaurant_reviews.csv")
    yelp = {
        table: str(folder / "yelp" / f"yelp_academic_dataset_{table}.json")
        for table in ("review", "user", "business")
    }
    return {
        "restaurant reviews": (
            ["dataset=messages", f"dataset.path={restaurants}"],
            MessagesDataset(path=restaurants),
        ),
        "Yelp reviews": (
            ["dataset=yelp", *(f"dataset.{table}={path}" for table, path in yelp.items())],
            YelpDataset(**yelp),
        ),
    }


class Model:
    """A trained model, and what it sees in any data set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifact = Registry(root / "models", "sentiment").load()
        self.kernel = kernel_of(self.artifact)
        reference = Reference.from_dict(self.artifact.reference or {})
        if reference is None:
            sys.exit("The model has no reference.")
        self.reference = reference
        self.words = Words.of(self.artifact.model_pipeline)
        self.seconds = Counter[str]()

    def looks(self, dataset: Dataset) -> tuple[Look, list[str]]:
        """Look at every message, and give their ids."""
        engine, clock = Engine(), Clock()
        stream: RowStream[pd.DataFrame] = RowStream(
            dataset.source(None, self.kernel.fields),
            self.kernel.check,
            engine=engine,
            spill=self.root / ".spill",
            rejected=self.root / "rejected.parquet",
            clock=clock,
            targets=False,
        )
        with stream:
            accepted = pd.concat(list(stream), ignore_index=True)
        store = FeatureStore(self.root / "data" / "04_feature", self.kernel, clock, engine)
        features = store.features(accepted).drop(columns="key")
        predicted = predict(self.artifact.model_pipeline, features)
        start = time.process_time()
        look = self.reference.look(features, predicted, self.words)
        look.seen()
        self.seconds["monitor"] += time.process_time() - start
        self.seconds["rows"] += len(accepted)
        return look, accepted["id"].tolist()


def batches(
    look: Look, rng: np.random.Generator, weights: npt.NDArray[np.float64]
) -> Iterator[npt.NDArray[np.int64]]:
    """Draw rows with replacement."""
    for _ in range(N_BATCHES):
        yield rng.choice(len(look.predicted), N_ROWS, p=weights / weights.sum())


def told(name: str, alarms: list[list[str]], covered: list[bool], n_rows: int) -> None:
    """Print a row of the table."""
    why = Counter(reason for each in alarms for reason in each)
    reasons = ", ".join(f"{reason} {n}" for reason, n in why.most_common(3)) or "-"
    share = sum(map(bool, alarms)) / len(alarms)
    cover = f"{sum(covered) / len(covered):.0%}" if covered else "-"
    print(f"| {name} | {n_rows} | {share:.1%} | {reasons} | {cover} |", flush=True)


def judged(model: Model, look: Look, target: Class, other: Look) -> None:
    """Print how often each kind of batch raises the alarm."""
    rng, monitor, reference = np.random.default_rng(0), Monitor(), model.reference
    every = np.ones(len(target))
    kinds = {"unchanged, drawn from the rows held out": every}
    for number, label in enumerate(LABELS):
        share = (target == number).mean()
        if 3 * share < 1:
            factor = 3 * (1 - share) / (1 - 3 * share)
            kinds[f"{label} tripled ({share:.0%} to {3 * share:.0%})"] = np.where(
                target == number, factor, 1.0
            )
    for name, weights in kinds.items():
        alarms, covered = [], []
        for rows in batches(look, rng, weights):
            verdict = monitor.judge(look.rows(rows).seen(), reference)
            alarms.append(verdict.drifting)
            f1 = f1_score(target[rows], look.predicted[rows], average="macro")
            estimated = verdict.estimates["f1_macro"]
            covered.append(estimated.low <= f1 <= estimated.high)
        told(name, alarms, covered, N_ROWS)
    # No row is on both sides, so both have the noise of a sample.
    alarms, covered, half = [], [], len(target) // 2
    for _ in range(N_BATCHES):
        order = rng.permutation(len(target))
        first, second = order[:half], order[half:]
        confusion = confusion_matrix(
            target[first], look.predicted[first], labels=range(len(LABELS))
        )
        less = replace(reference, held_out=look.rows(first).seen(), confusion=confusion)
        verdict = replace(monitor, min_rows=1).judge(look.rows(second).seen(), less)
        alarms.append(verdict.drifting)
        f1 = f1_score(target[second], look.predicted[second], average="macro")
        estimated = verdict.estimates["f1_macro"]
        covered.append(estimated.low <= f1 <= estimated.high)
    told("unchanged, one half against the other", alarms, covered, half)
    alarms = [
        monitor.judge(other.rows(rows).seen(), reference).drifting
        for rows in batches(other, rng, np.ones(len(other.predicted)))
    ]
    told("the other data set", alarms, [], N_ROWS)
    by_text = [[reason for reason in each if reason.startswith(TEXT)] for each in alarms]
    told("the other data set, by the text alone", by_text, [], N_ROWS)


def main(shared: Path, overrides: list[str]) -> None:
    """Train on each data set, and judge batches of both."""
    every = data_sets(shared)
    for name, (options, _) in every.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                str(SCRIPT),
                f"paths.root={folder}",
                "pipeline.stages=[feature,training]",
                *options,
                *overrides,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            model = Model(Path(folder))
            held_out = HeldOutDataset(path=f"{folder}/data/09_inference/new/*.parquet")
            look, ids = model.looks(held_out)
            path = Path(folder) / "data" / "07_model_output" / "test_predictions.parquet"
            target = pd.read_parquet(path).set_index("id")["target"].loc[ids].to_numpy()
            other, _ = model.looks(*(each for own, (_, each) in every.items() if own != name))
            print(f"\n{name}: {len(target)} rows held out\n")
            print("| batches | rows | alarm | because of (most frequent) | F1 in the interval |")
            print("|---|---|---|---|---|")
            judged(model, look, target, other)
            cost = 1e6 * model.seconds["monitor"] / model.seconds["rows"]
            print(f"\nMonitoring took {cost:.0f} µs of CPU a row.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
