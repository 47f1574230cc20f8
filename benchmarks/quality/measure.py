"""Run rivals on splits, each in a process of its own, within a time budget; keep what is done."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.quality.data import LABELS, DataSet, Split
from benchmarks.quality.rivals import ENVIRONMENTS, Rival
from sklearn.metrics import log_loss, precision_recall_fscore_support

ROOT = Path(__file__).resolve().parents[2]
N_BINS = 15
CHANCE_DRAWS = 200
MEASURES = 4
"""Number of the set of measures: results with another one are made again."""

WEIGHTS = ("light", "medium", "heavy", "variant")
EMBEDDED_PER_SECOND = 45
"""Messages that the transformer is expected to embed, for the decision whether time is left."""


class FailedError(Exception):
    """A rival that could not be installed or did not run."""


class OutOfTimeError(Exception):
    """No time was left to run, or to end."""


def calibration_error(
    y: npt.NDArray[Any], probabilities: npt.NDArray[np.float64], n_bins: int = N_BINS
) -> float:
    """Give the expected calibration error of the most probable class, in bins of equal width."""
    confidence = probabilities.max(axis=1)
    return _binned_gap(confidence, probabilities.argmax(axis=1) == y, n_bins)


def chance_error(probabilities: npt.NDArray[np.float64], n_bins: int = N_BINS) -> float:
    """Give the calibration error that would be expected if the probabilities were the true ones.

    It is not 0: in a bin of few rows the share of right ones is not the probability by chance
    alone (Bröcker and Smith 2007, Increasing the Reliability of Reliability Diagrams).
    """
    confidence = probabilities.max(axis=1)
    drawn = np.random.default_rng(0).random((CHANCE_DRAWS, len(confidence))) < confidence
    return float(np.mean([_binned_gap(confidence, right, n_bins) for right in drawn]))


def bins_of(
    y: npt.NDArray[Any], probabilities: npt.NDArray[np.float64], n_bins: int = N_BINS
) -> npt.NDArray[np.float64]:
    """Give what the calibration error is made of; the bins of several sets add up.

    Returns
    -------
    ndarray of shape (n_bins, 4)
        Rows, and the sums of the most probable class's probability, of whether it is right, and
        of the variance that this would have if the probability were the true one.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    variance = np.maximum(confidence * (1 - confidence), 0)  # in single precision 1 may be more
    parts = [np.ones(len(y)), confidence, right, variance]
    return np.stack([np.bincount(bins, part, minlength=n_bins) for part in parts], axis=1)


def error_of_bins(bins: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Give the calibration error of added bins, and what chance alone would make of it.

    A bin's gap is then about normal, whose mean size is its standard deviation times
    sqrt(2 / pi).
    """
    rows, probability, right, variance = bins.T
    error = np.abs(right - probability).sum() / rows.sum()
    return float(error), float(np.sqrt(2 / np.pi * variance).sum() / rows.sum())


def share_gap(
    y: npt.NDArray[Any], predicted: npt.NDArray[Any], n_classes: int = len(LABELS)
) -> float:
    """Give the largest difference, over classes, of the predicted share from that among labels."""
    shares = [np.bincount(each, minlength=n_classes) / len(each) for each in (predicted, y)]
    return float(np.abs(shares[0] - shares[1]).max())


def chance_gap(predicted: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]) -> float:
    """Give the `share_gap` that would be expected if the probabilities were the true ones.

    So many labels drawn at random have shares of their own; and where the rule does not keep the
    shares that the probabilities say, that adds to it.
    """
    ends = np.cumsum(probabilities, axis=1)[:, :-1]
    rng = np.random.default_rng(0)
    draws = ((rng.random((len(ends), 1)) > ends).sum(axis=1) for _ in range(CHANCE_DRAWS))
    return float(np.mean([share_gap(drawn, predicted) for drawn in draws]))


def _binned_gap(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], n_bins: int
) -> float:
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def metrics(
    y: npt.NDArray[Any], predicted: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Give the measures of one set of predictions.

    ``neutral_excess`` is the predicted share of neutral less the true one. ``bins``,
    ``predicted_rows`` and ``true_rows`` add up over sets of predictions: of each bin of the most
    probable class how many rows, the sum of its probability, of whether it is right, and of the
    variance of that; and how many rows of each class.
    """
    numbers = range(len(LABELS))
    precision, recall, f1, support = precision_recall_fscore_support(
        y, predicted, labels=list(numbers), zero_division=0
    )
    clipped = np.clip(probabilities, 1e-15, 1)
    clipped /= clipped.sum(axis=1, keepdims=True)
    return {
        "f1_weighted": float(np.average(f1, weights=support)),
        "f1_macro": float(f1.mean()),
        **{f"f1_{label}": float(f1[i]) for i, label in enumerate(LABELS)},
        "precision_neutral": float(precision[1]),
        "recall_neutral": float(recall[1]),
        "log_loss": float(log_loss(y, clipped, labels=list(numbers))),
        "calibration_error": calibration_error(y, probabilities),
        "chance_error": chance_error(probabilities),
        "neutral_excess": float((predicted == 1).mean() - (y == 1).mean()),
        "share_gap": share_gap(y, predicted),
        "chance_gap": chance_gap(predicted, clipped),
        "bins": bins_of(y, probabilities).tolist(),
        "predicted_rows": np.bincount(predicted, minlength=len(LABELS)).tolist(),
        "true_rows": support.tolist(),
    }


@dataclass
class Bench:
    """Where results are kept and how much time is left.

    Parameters
    ----------
    folder : Path
        Data sets, embeddings, environments and results; nothing in it is committed.
    seconds : float
        For everything together.
    budget : float
        Seconds of one automatic search.
    fresh : bool, default=False
        Whether results that are there are made again.
    """

    folder: Path
    seconds: float
    budget: float
    fresh: bool = False
    start: float = field(default_factory=time.monotonic)
    _failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def run(self, rival: Rival, split: Split) -> dict[str, Any]:
        """Give the result of a rival on a split, from the last time if it is there.

        Raises
        ------
        FailedError
            If its environment cannot be made, or it does not run.
        OutOfTimeError
            If it is not expected to end in time, or did not.
        """
        path = self.folder / "results" / f"{self._key(rival, split)}.json"
        if path.is_file() and not self.fresh:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            # The rows may have come under another name.
            return found | {"group": split.group, "split": split.number}
        self._require_time(rival, split)
        python = self._environment(rival)
        train, of_train = self._part(rival, split.train_set, split.train)
        test, of_test = self._part(rival, split.test_set, split.test)
        task = {
            "work": "contest",
            "rival": rival.name,
            "seed": split.seed,
            "budget": self.budget,
            "train": train,
            "test": test,
        }
        done = self._work(task, python)
        y = split.test_set.y[split.test]
        predicted = np.array(done.pop("predicted"))
        probabilities = np.array(done.pop("probabilities"))
        seconds = done.pop("score_seconds") + of_test["seconds_per_row"] * len(split.test)
        result = {
            "rival": rival.name,
            "weight": rival.weight,
            "group": split.group,
            "split": split.number,
            "seed": split.seed,
            "real": split.real,
            "n_train": len(split.train),
            "n_test": len(split.test),
            **metrics(y, predicted, probabilities),
            "fit_seconds": done["fit_seconds"] + of_train["seconds_per_row"] * len(split.train),
            "rows_per_second": len(split.test) / seconds,
            "peak_mib": max(done["peak_mib"], of_train["peak_mib"], of_test["peak_mib"]),
            "versions": done["versions"],
        }
        _write(path, result)
        return result

    def _key(self, rival: Rival, split: Split) -> str:
        own = rival.source
        if rival.name.startswith("ours"):
            from benchmarks.quality.ours import entry_digest  # noqa: PLC0415

            own += entry_digest(rival.overrides)
        parts = [
            MEASURES, rival.name, own, split.train_set.digest, split.test_set.digest,
            str(split.seed), split.train.tolist(), split.test.tolist(),
            self.budget if rival.environment else 0, ENVIRONMENTS.get(rival.environment or "", []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    def _require_time(self, rival: Rival, split: Split) -> None:
        fixed, per_thousand = rival.seconds
        needed = fixed + per_thousand * len(split.train) / 1000
        for each in {id(part): part for part in (split.train_set, split.test_set)}.values():
            if _transformer(rival) and not self._represented(rival, each).is_file():
                needed += len(each.stars) / EMBEDDED_PER_SECOND
        if needed > self.left:
            raise OutOfTimeError("no time left")

    def _represented(self, rival: Rival, each: DataSet) -> Path:
        name = "minilm"
        if rival.takes == "features":
            from benchmarks.quality.ours import features_digest  # noqa: PLC0415

            name = features_digest(rival.overrides)
        return self.folder / "represented" / f"{each.digest}-{name}.pickle"

    def _part(
        self, rival: Rival, each: DataSet, rows: npt.NDArray[np.int64]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Say where a worker finds rows, and what it took to represent them."""
        path = self.folder / "sets" / f"{each.digest}.pickle"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"texts": each.texts, "table": each.table, "stars": each.stars}
            path.write_bytes(pickle.dumps(content))
        part = {"set": str(path), "rows": rows.tolist(), "represented": None}
        if rival.takes not in {"embedding", "features"}:
            return part, {"seconds_per_row": 0.0, "peak_mib": 0.0}
        represented = self._represented(rival, each)
        facts = represented.with_suffix(".json")
        if not facts.is_file():
            represented.parent.mkdir(parents=True, exist_ok=True)
            task = {
                "work": "represent",
                "kind": rival.takes,
                "set": str(path),
                "overrides": list(rival.overrides),
                "represented": str(represented),
            }
            _write(facts, self._work(task, Path(sys.executable)))
        return part | {"represented": str(represented)}, json.loads(facts.read_text("utf-8"))

    def _work(self, task: dict[str, Any], python: Path) -> dict[str, Any]:
        folder = self.folder / "tasks" / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        given, result = folder / "task.json", folder / "result.json"
        result.unlink(missing_ok=True)
        given.write_text(json.dumps(task | {"result": str(result)}), encoding="utf-8")
        environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.Popen(
            [str(python), "-m", "benchmarks.quality.worker", str(given)],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=max(self.left, 1))
        except subprocess.TimeoutExpired as error:
            message = f"stopped when the {self.seconds / 60:.0f} minutes were over"
            raise OutOfTimeError(message) from error
        finally:
            # What the worker started goes with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            found = result.read_text(encoding="utf-8") if result.is_file() else ""
            shutil.rmtree(folder)
        if process.returncode or not found:
            raise FailedError(reason(said) or f"ended with status {process.returncode}")
        done: dict[str, Any] = json.loads(found)
        return done

    def _environment(self, rival: Rival) -> Path:
        """Give the Python that a rival runs in; its environment is made on first use."""
        name = rival.environment
        if name is None:
            return Path(sys.executable)
        if name in self._failed:
            raise FailedError(self._failed[name])
        folder = self.folder / "envs" / name
        done = folder / ".installed"
        wanted = "\n".join(ENVIRONMENTS[name])
        if not (done.is_file() and done.read_text(encoding="utf-8") == wanted):
            uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
            python = folder / "bin" / "python"
            for command in (
                [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", str(python), *ENVIRONMENTS[name]],
            ):
                try:
                    subprocess.run(
                        command, cwd=ROOT, check=True, capture_output=True, text=True,
                        timeout=max(self.left, 1),
                    )  # fmt: skip
                except (OSError, subprocess.SubprocessError) as error:
                    said = reason(str(getattr(error, "stderr", "") or error))
                    self._failed[name] = f"could not be installed: {said}"
                    raise FailedError(self._failed[name]) from error
            done.write_text(wanted, encoding="utf-8")
        return folder / "bin" / "python"


def _transformer(rival: Rival) -> bool:
    return rival.takes == "embedding" or "embedder=sentence" in rival.overrides


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(path)


def reason(said: str) -> str:
    """Give the last line of an error without the paths of this machine.

    Examples
    --------
    >>> reason("Traceback\\nOSError: no file /home/me/model.bin here\\n")
    'OSError: no file model.bin here'
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
    last = re.sub(r"\w+://\S+", "(address)", last)
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)*([^\s/'\"]*)", r"\1", last)[:200]


def schedule(
    rivals: Iterable[Rival], splits: Sequence[Split], *, every_split: bool = False
) -> list[tuple[Rival, Split]]:
    """Give what is to run, in order, so that the most telling is done when the time is over.

    Round by round: light rivals meet all splits of one seed, then the others, heavier by weight,
    the first split of one more group of texts that people wrote, or with `every_split` in further
    rounds its other splits too. What is for reference only comes last in a round.
    """
    takes = {True: {"texts", "embedding", "features"}, False: {"table"}}
    met = [split for split in splits if split.seed == 0 and split.real and split.of_texts]
    met = sorted((s for s in met if every_split or s.number == 0), key=lambda s: s.number)

    def round_of(rival: Rival, split: Split) -> int:
        return split.seed if rival.weight == "light" else met.index(split)

    def place(pair: tuple[Rival, Split]) -> tuple[int, bool, int, float]:
        rival, split = pair
        cost = 0 if rival.weight == "light" else sum(rival.seconds)
        return round_of(rival, split), not split.real, WEIGHTS.index(rival.weight), cost

    pairs = [
        (rival, split)
        for split in splits
        for rival in rivals
        if rival.takes in takes[split.of_texts] and (rival.weight == "light" or split in met)
    ]
    return sorted(pairs, key=place)
