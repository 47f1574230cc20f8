"""The classifiers that a selection compares, and the one that it wrote down."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from sklearn.base import BaseEstimator

from batch_nlp.errors import InputError
from batch_nlp.settings import build
from batch_nlp.tables import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGETS = {
    "prior": "sklearn.dummy.DummyClassifier",
    "logistic": "sklearn.linear_model.LogisticRegression",
    "random_forest": "sklearn.ensemble.RandomForestClassifier",
    "xgboost": "xgboost.XGBClassifier",
    "lightgbm": "batch_nlp.training.classifiers.lightgbm",
}
"""What can be selected, by name: a file that names anything else is refused."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")


def missing(module: str) -> str | None:
    """Say what to do about an extra of the same name as its module; None where it is installed.

    Examples
    --------
    >>> missing("json") is None
    True
    >>> missing("jsn")
    'not installed: make install EXTRAS=jsn'
    """
    return None if find_spec(module) else f"not installed: make install EXTRAS={module}"


def lightgbm(
    *,
    n_estimators: int = 100,
    num_leaves: int = 31,
    max_depth: int = -1,
    learning_rate: float = 0.1,
    min_child_samples: int = 20,
    subsample: float = 1.0,
    subsample_freq: int = 0,
    colsample_bytree: float = 1.0,
    reg_alpha: float = 0.0,
    reg_lambda: float = 0.0,
    max_bin: int = 255,
    n_jobs: int | None = None,
    random_state: int | None = None,
) -> BaseEstimator:
    """Make a LightGBM classifier that is quiet, and the same for a seed.

    Parameters
    ----------
    n_estimators, num_leaves, max_depth, min_child_samples, subsample_freq, max_bin : int
        As in ``lightgbm.LGBMClassifier``, which would let a misspelt one pass.
    learning_rate, subsample, colsample_bytree, reg_alpha, reg_lambda : float
        The same.
    n_jobs : int, optional
        Threads; None is every core.
    random_state : int, optional
        Of the rows and columns drawn.

    Raises
    ------
    InputError
        If LightGBM is not installed.
    """
    lacking = missing("lightgbm")
    if lacking:
        message = f"LightGBM is {lacking}"
        raise InputError(message)
    from lightgbm import LGBMClassifier  # noqa: PLC0415  an extra

    classifier: BaseEstimator = LGBMClassifier(
        n_estimators=n_estimators,
        num_leaves=num_leaves,
        max_depth=max_depth,
        learning_rate=learning_rate,
        min_child_samples=min_child_samples,
        subsample=subsample,
        subsample_freq=subsample_freq,
        colsample_bytree=colsample_bytree,
        reg_alpha=reg_alpha,
        reg_lambda=reg_lambda,
        max_bin=max_bin,
        n_jobs=n_jobs,
        random_state=random_state,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    return classifier


def write_best(path: Path, name: str, parameters: Mapping[str, Any], **facts: Any) -> None:
    """Write a choice down for `best_classifier`, whole or not at all.

    Parameters
    ----------
    path : Path
        The YAML file.
    name : str
        Of `TARGETS`.
    parameters : mapping of str to scalar
        What to build it with.
    **facts
        What else a reader may want to know: scores, the run.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "best.yaml"
    ...     write_best(path, "logistic", {"C": 0.5}, f1_weighted=0.8)
    ...     best_classifier(str(path))
    LogisticRegression(C=0.5)
    """
    content = {"name": name, "parameters": dict(parameters), **facts}
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def best_classifier(path: str) -> BaseEstimator:
    """Build the classifier that a selection chose.

    Parameters
    ----------
    path : str
        The file that it wrote. It is read as data: the name must be one of `TARGETS`, the
        parameters numbers, words, true, false or null.

    Returns
    -------
    classifier
        Unfitted.

    Raises
    ------
    InputError
        If there is no such file, or it holds anything else, or what it names is not installed.

    Examples
    --------
    >>> best_classifier("nowhere/best.yaml")
    Traceback (most recent call last):
    batch_nlp.errors.InputError: classifier=best needs the choice of a selection, and there is \
no nowhere/best.yaml: run pipeline=selection first.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = (
            f"classifier=best needs the choice of a selection, and there is no {path}: "
            "run pipeline=selection first."
        )
        raise InputError(message) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _damaged(path, str(error).split("\n", maxsplit=1)[0]) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it must hold a name and parameters")
    name, parameters = content.get("name"), content.get("parameters")
    if name not in TARGETS:
        raise _damaged(path, f"name must be one of {', '.join(TARGETS)}; got {name!r}")
    if not isinstance(parameters, dict):
        raise _damaged(path, f"parameters must be a mapping; got {parameters!r}")
    for key, value in parameters.items():
        if not (_WORD.fullmatch(str(key)) and _is_plain(value)):
            raise _damaged(path, f"parameters.{key} must be a number or a word; got {value!r}")
    lacking = missing("lightgbm") if name == "lightgbm" else None
    if lacking:
        message = f"{path} chose lightgbm, which is {lacking}"
        raise InputError(message)
    try:
        classifier: BaseEstimator = build({"_target_": TARGETS[name], **parameters}, "parameters")
    except InputError as error:
        raise _damaged(path, str(error).removesuffix(".")) from error
    return classifier


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, bool | int | float)


def _damaged(path: str, why: str) -> InputError:
    return InputError(f"{path} cannot be used ({why}): run pipeline=selection again.")
