"""Accuracy and duration of the default run on real reviews, beside TF-IDF + logistic regression.

    .venv/bin/python benchmarks/real_data.py ../shared/data

Both are trained and judged on the very same rows: the run's own time split.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

SCRIPT = Path(__file__).resolve().parent.parent / "start_batch_nlp.py"


def data_sets(folder: Path) -> dict[str, list[str]]:
    yelp = folder / "yelp" / "yelp_academic_dataset_"
    return {
        "restaurant_reviews.csv": [
            "dataset=messages",
            f"dataset.path={folder / 'messages' / 'restaurant_reviews.csv'}",
        ],
        "Yelp reviews": [
            "dataset=yelp",
            f"dataset.review={yelp}review.json",
            f"dataset.user={yelp}user.json",
            f"dataset.business={yelp}business.json",
        ],
    }


def baseline(root: Path) -> tuple[float, float]:
    """Fit TF-IDF and a balanced logistic regression on the run's own split."""
    split = pd.read_parquet(root / "data/05_model_input/split.parquet").set_index("id")
    texts = pd.read_parquet(root / "data/02_intermediate/validated.parquet").set_index("id")["text"]
    rows = split.join(texts)
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    ).fit(train["text"], train["target"])
    predicted = model.predict(test["text"])
    return (
        f1_score(test["target"], predicted, average="weighted"),
        f1_score(test["target"], predicted, average="macro"),
    )


def main(shared: Path, overrides: list[str]) -> None:
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}\n"
    )
    print(
        "| data | train / test rows | F1 weighted | F1 macro | baseline weighted / macro "
        "| predicted neutral (true) | whole run |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, options in data_sets(shared).items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, str(SCRIPT), f"paths.root={folder}", *options, *overrides]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
            if done.returncode not in {0, 3}:
                sys.exit(done.stderr)
            root = Path(folder)
            metrics = json.loads((root / "data/08_reporting/metrics.json").read_text())
            card = json.loads((root / "data/06_models/card.json").read_text())
            weighted, macro = baseline(root)
            print(
                f"| {name} | {card['n_train']} / {card['n_test']} | {metrics['f1_weighted']:.3f} "
                f"| {metrics['f1_macro']:.3f} | {weighted:.3f} / {macro:.3f} "
                f"| {metrics['predicted_shares']['neutral']:.1%} "
                f"({metrics['true_shares']['neutral']:.1%}) "
                f"| {seconds:.0f} s, status {done.returncode} |"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
