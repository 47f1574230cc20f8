"""One piece of work in a process of its own, so that its time and memory are its own.

    python -m benchmarks.quality.worker task.json

Runs in the environments of the rivals too: the program is imported for its own entries alone.
"""

from __future__ import annotations

import json
import pickle
import platform
import re
import resource
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.quality.rivals import RIVALS, Rival, Rows, embed

LIBRARIES = (
    "scikit-learn", "xgboost", "lightgbm", "torch", "transformers", "sentence-transformers",
    "flaml", "autogluon.tabular", "setfit", "floret", "batch-nlp",
)  # fmt: skip
WARM_UP = 8


def peak_mib() -> float:
    """Give the most memory that this process held.

    On Linux `ru_maxrss` begins with what the parent held, so the kernel's own mark is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(task: dict[str, Any], part: str) -> tuple[list[str], Any, Any]:
    """Give the texts, what represents them, and the stars of the training or the test rows."""
    with Path(task[part]["set"]).open("rb") as file:
        content = pickle.load(file)
    rows = np.asarray(task[part]["rows"])
    X = content["table"]
    if task[part]["represented"]:
        with Path(task[part]["represented"]).open("rb") as file:
            X = pickle.load(file)["X"]
    if X is not None:
        X = X.iloc[rows].reset_index(drop=True) if hasattr(X, "iloc") else X[rows]
    texts = content["texts"]
    return ([texts[i] for i in rows] if texts else []), X, content["stars"][rows]


def entry(task: dict[str, Any]) -> Rival:
    if task["rival"] in RIVALS:
        return RIVALS[task["rival"]]
    from benchmarks.quality.ours import entries  # noqa: PLC0415

    return entries()[task["rival"]]


def contest(task: dict[str, Any]) -> dict[str, Any]:
    """Fit a rival and let it predict."""
    chosen = entry(task)
    texts, X, stars = load(task, "train")
    y = np.select([stars <= 2, stars >= 4], [0, 2], default=1)
    seed = int(task["seed"])
    train = Rows(texts, X, y=y, stars=stars, seed=seed, budget=task["budget"])
    start = time.perf_counter()
    predict = chosen.fit(train)
    fit_seconds = time.perf_counter() - start
    texts, X, _ = load(task, "test")
    predict(Rows(texts[:WARM_UP], X if X is None else X[:WARM_UP]))
    start = time.perf_counter()
    predicted, probabilities = predict(Rows(texts, X))
    return {
        "predicted": np.asarray(predicted, dtype=int).tolist(),
        "probabilities": np.asarray(probabilities, dtype=float).tolist(),
        "fit_seconds": fit_seconds,
        "score_seconds": time.perf_counter() - start,
    }


def represent(task: dict[str, Any]) -> dict[str, Any]:
    """Embed or derive the features of all texts of a set, once."""
    with Path(task["set"]).open("rb") as file:
        texts = pickle.load(file)["texts"]
    if task["kind"] == "embedding":
        embed(texts[:WARM_UP])
        start = time.perf_counter()
        X: Any = embed(texts)
        seconds = time.perf_counter() - start
    else:
        from benchmarks.quality.ours import frame_of  # noqa: PLC0415

        X, seconds = frame_of(texts, task["overrides"])
    facts = {"seconds_per_row": seconds / len(texts), "peak_mib": peak_mib()}
    with Path(task["represented"]).open("wb") as file:
        pickle.dump({"X": X, **facts}, file)
    return facts


def main(arguments: Iterable[str]) -> None:
    (path,) = map(Path, arguments)
    task = json.loads(path.read_text(encoding="utf-8"))
    done = represent(task) if task["work"] == "represent" else contest(task)
    done |= {"peak_mib": peak_mib(), "versions": versions()}
    Path(task["result"]).write_text(json.dumps(done), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
