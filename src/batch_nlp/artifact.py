"""The trained model as a folder that explains itself: save, verify, load, put in use.

One model is ``<folder>/<name>/<version>/``: the two fitted pipelines, the booster where there is
one, the configuration, and ``card.json``, which says how the model came about and holds the
SHA-256 of every other file. ``<folder>/<name>/current`` says which version is in use, and
``ledger.jsonl`` beside it which one was in use when.

Digests show damage and mix-ups before anything is unpickled. They do not make a folder
trustworthy: who can write to it can write its card too. With a signing key in the environment
(`SIGNING_KEY`), a model that was not signed with it is refused; without one, guard the folder
like the program itself.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import io
import json
import math
import os
import platform
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from batch_nlp import ledger
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.locks import locked
from batch_nlp.redaction import redacted
from batch_nlp.tables import atomic_folder, digest, remove, write_json, write_text
from batch_nlp.training.calibrate import inner_classifier

FEATURE_FILE = "feature_pipeline.joblib"
MODEL_FILE = "model_pipeline.joblib"
BOOSTER_FILE = "booster.ubj"
CONFIG_FILE = "config.yaml"
REFERENCE_FILE = "reference.json"
TRAINED_ON_FILE = "trained_on.npy"
CARD_FILE = "card.json"
SIGNATURE_FILE = "card.sig"
CURRENT_FILE = "current"
LEDGER_FILE = "ledger.jsonl"

SIGNING_KEY = "BATCH_NLP_SIGNING_KEY"
"""Environment variable: with it models are signed, and only those signed with it are read."""

_SHORTEST_KEY = 16
_LOCK_FILE = ".lock"
_LOCK_SECONDS = 60.0
_PRUNED = ".pruned"
_PUT_IN_USE = ("promoted", "rolled back", "found")

_NEEDED = (FEATURE_FILE, MODEL_FILE, CONFIG_FILE)
_RETRAIN = "train again (pipeline=training)"

_IN_PICKLES = (
    "python",
    "batch_nlp",
    "joblib",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "xgboost",
)
_RECORDED = (
    *_IN_PICKLES,
    "duckdb",
    "lightgbm",
    "model2vec",
    "pyarrow",
    "sentence-transformers",
    "torch",
)

_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Artifact:
    """A trained model with what it takes to use and to judge it.

    Attributes
    ----------
    feature_pipeline : sklearn.pipeline.Pipeline
        From the typed rows to features; row-local.
    model_pipeline : sklearn.pipeline.Pipeline
        From features to classes; its last step is the classifier, or what calibrates it.
    card : dict
        How the model came about: metrics, class shares, digests of the data and of the
        configuration, seed, parameters. `Registry.save` adds ``name``, ``version``,
        ``created``, ``libraries``, ``files`` and the card's own ``sha256``.
    version : str
        Under which it is kept; empty while it has not been saved.
    reference : dict or None
        What monitoring holds new messages against, as plain data; None in the models of earlier
        versions.
    trained_on : ndarray of uint64, optional
        Fingerprints of the texts that it was trained on, sorted; None where it is not known.
    """

    feature_pipeline: Any
    model_pipeline: Any
    card: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    reference: Mapping[str, Any] | None = None
    trained_on: npt.NDArray[np.uint64] | None = None


class Registry:
    r"""The versions of one model, and which of them is in use.

    Parameters
    ----------
    folder : Path
        Where all models are kept.
    name : str
        The model's name and its folder's: letters, digits, ``.``, ``_`` and ``-``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> features = Pipeline([("same", FunctionTransformer())])
    >>> model = Pipeline([("prior", DummyClassifier())]).fit([[0.0]] * 3, [0, 1, 2])
    >>> with TemporaryDirectory() as folder:
    ...     registry = Registry(Path(folder), "sentiment")
    ...     version = registry.save(
    ...         Artifact(features, model, card={"seed": 7}), config_text="seed: 7\n"
    ...     )
    ...     registry.promote(version)
    ...     used = registry.load()
    >>> used.card["seed"], used.version == version
    (7, True)
    """

    def __init__(self, folder: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            message = (
                f"A model's name must be letters, digits, '.', '_' and '-', beginning with a "
                f"letter or a digit, got {name!r}."
            )
            raise InputError(message)
        self.name = name
        self.folder = Path(folder) / name

    def versions(self) -> list[str]:
        """Give the versions that were saved to the end, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.folder.iterdir()
            if _VERSION.fullmatch(entry.name) and entry.is_dir()
        )

    def current(self) -> str:
        """Give the version in use.

        Raises
        ------
        ArtifactError
            If none is in use, or the one named is not there.
        """
        place = self.folder / CURRENT_FILE
        try:
            version = place.read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            message = f"No model is in use in {self.folder}: run pipeline=training first."
            raise ArtifactError(message) from error
        except (OSError, UnicodeDecodeError) as error:
            message = f"Cannot read which model is in use from {place}: {error}."
            raise ArtifactError(message) from error
        try:
            self._place(version)
        except ArtifactError as error:
            message = f"{place} names no model that can be used. {error}"
            raise ArtifactError(message) from error
        return version

    def save(self, artifact: Artifact, *, config_text: str) -> str:
        """Write an artifact as a new version; which one is in use stays as it is.

        The folder is written under a temporary name and renamed when it is complete.

        Parameters
        ----------
        artifact : Artifact
            Its pipelines are left as they are; its ``version`` is not looked at. What JSON
            cannot hold in its card is written as null (NaN, infinity) or as text.
        config_text : str
            The composed configuration, kept as ``config.yaml``.

        Returns
        -------
        str
            The version: time (UTC) and four random digits, as in ``20261123T130501Z-1a2b``.
            Names sort by time.
        """
        key = _signing_key()
        now = datetime.now(UTC)
        version = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        final = self.folder / version
        with self._changing(f"saving {version}"), atomic_folder(final) as beside:
            model, booster = _without_booster(artifact.model_pipeline)
            joblib.dump(artifact.feature_pipeline, beside / FEATURE_FILE)
            joblib.dump(model, beside / MODEL_FILE)
            if booster is not None:
                booster.save_model(beside / BOOSTER_FILE)
            write_text(beside / CONFIG_FILE, config_text)
            if artifact.reference is not None:
                write_json(beside / REFERENCE_FILE, _plain(artifact.reference))
            if artifact.trained_on is not None:
                np.save(beside / TRAINED_ON_FILE, artifact.trained_on, allow_pickle=False)
            card = {
                **redacted(_plain(artifact.card)),
                "name": self.name,
                "version": version,
                "created": now.isoformat(timespec="seconds"),
                "libraries": installed_libraries(),
                "files": {
                    path.name: _digest(path.read_bytes()) for path in sorted(beside.iterdir())
                },
            }
            sealed = card_digest(card)
            write_json(beside / CARD_FILE, {**card, "sha256": sealed})
            if key is not None:
                write_text(beside / SIGNATURE_FILE, f"{_signature(sealed, key)}\n")
            # A model is code: nobody but its owner may change it, whatever the umask.
            for path in (beside, *beside.iterdir()):
                _owner_writes(path)
        return version

    def promote(
        self,
        version: str,
        *,
        event: Literal["promoted", "rolled back"] = "promoted",
        why: str = "",
    ) -> None:
        """Put a version in use, in one step: readers see the old one or the new one.

        Parameters
        ----------
        version : str
            One of `versions`; its files are verified first.
        event : {"promoted", "rolled back"}, default="promoted"
            For the ledger.
        why : str, default=""
            For the ledger, such as the run that trained it.

        Raises
        ------
        ArtifactError
            If there is no such version, its files do not match its card, or it was made with
            other major versions of the libraries.
        LockedError
            If another process is at work on the ledger for too long.
        """
        card, _ = self._verified(version)
        _check_libraries(card, self.folder / version)
        with self._changing(f"{event} {version}"):
            self._place(version)  # it may have been pruned meanwhile
            previous = self._used()[-1:]
            # First what counts, then the ledger: it never says what was not so. Who is killed
            # in between leaves a line to add, which the next one adds.
            self._write_current(version)
            self._log(event, version, previous=previous[0] if previous else None, why=why)

    def hold(self, version: str, *, why: str) -> None:
        """Note in the ledger that a version was saved and not put in use.

        Parameters
        ----------
        version : str
            One of `versions`.
        why : str
            For the ledger.
        """
        with self._changing(f"holding {version}"):
            self._log("held", version, why=why)

    def roll_back(self, version: str | None = None, *, why: str = "") -> str:
        """Put an earlier version in use again.

        Parameters
        ----------
        version : str, optional
            One of `versions`; without it, the one used before the one in use.
        why : str, default=""
            For the ledger.

        Returns
        -------
        str
            The version that is now in use.

        Raises
        ------
        ArtifactError
            As `promote`, or if none was used before.
        """
        if version is None:
            version = self.previous()
            if version is None:
                message = (
                    f"No version of {self.name} that is still there was in use before the one in "
                    f"use; {self.folder} has {self.versions()}."
                )
                raise ArtifactError(message)
        self.promote(version, event="rolled back", why=why)
        return version

    def prune(self, keep: int, *, why: str = "") -> list[str]:
        """Remove the oldest versions, never the one in use nor the one used before it.

        A version is renamed first and then deleted; what a killed process left of that goes
        the next time.

        Parameters
        ----------
        keep : int
            How many of the newest stay; at least 1.
        why : str, default=""
            For the ledger.

        Returns
        -------
        list of str
            The versions that are gone.
        """
        if keep < 1:
            message = f"At least the newest version must be kept, got {keep}."
            raise InputError(message)
        gone = []
        with self._changing(f"pruning to {keep}"):
            kept = {*self.versions()[-keep:], self.in_use(), self.previous()}
            for version in self.versions():
                if version not in kept:
                    (self.folder / version).rename(self.folder / f".{version}{_PRUNED}")
                    gone.append(version)
            self._sweep(why)
        return gone

    def ledger(self) -> list[dict[str, Any]]:
        """Give what happened to the versions, oldest first.

        Returns
        -------
        list of dict
            ``time`` (UTC), ``event`` (``promoted``, ``rolled back``, ``held``, ``pruned``, or
            ``found``: it was in use and the ledger did not say so), ``version``, ``previous``
            (in use until then; null where nothing was replaced) and ``why``.
        """
        return ledger.entries(self.folder / LEDGER_FILE)

    def previous(self) -> str | None:
        """Give the version that was in use before the one in use, where it is still there."""
        in_use, kept = self.in_use(), self.versions()
        others = [version for version in self._used() if version != in_use and version in kept]
        return others[-1] if others else None

    def _used(self) -> list[str]:
        """Give the versions that were put in use, in that order."""
        return [each["version"] for each in self.ledger() if each["event"] in _PUT_IN_USE]

    def in_use(self) -> str | None:
        """Give what `current` says, whether or not it can be used."""
        try:
            return (self.folder / CURRENT_FILE).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        """Hold the lock of the model, once what a killed process left undone is done."""
        new = not self.folder.is_dir()
        with locked(self.folder / _LOCK_FILE, what=what, wait=_LOCK_SECONDS):
            if new:
                _owner_writes(self.folder)
                _owner_writes(self.folder / _LOCK_FILE)
            # Who holds the lock is alone: temporary names are those of the dead.
            for stray in self.folder.glob(".*.tmp"):
                remove(stray)
            self._sweep("a removal was cut off")
            in_use, used = self.in_use(), self._used()
            if in_use is not None and in_use != (used[-1] if used else None):
                self._log(
                    "found",
                    in_use,
                    previous=used[-1] if used else None,
                    why="in use without a line: a run was cut off, or it was put there by hand",
                )
            yield

    def _sweep(self, why: str) -> None:
        """Delete the versions that were renamed for it."""
        for place in sorted(self.folder.glob(f".*{_PRUNED}")):
            version = place.name.removeprefix(".").removesuffix(_PRUNED)
            if not any(
                (each["event"], each["version"]) == ("pruned", version) for each in self.ledger()
            ):
                self._log("pruned", version, why=why)
            shutil.rmtree(place)

    def _write_current(self, version: str) -> None:
        write_text(self.folder / CURRENT_FILE, f"{version}\n")
        _owner_writes(self.folder / CURRENT_FILE)

    def _log(self, event: str, version: str, *, previous: str | None = None, why: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        ledger.append(
            self.folder / LEDGER_FILE,
            {"time": now, "event": event, "version": version, "previous": previous, "why": why},
        )

    def verify(self, version: str) -> dict[str, Any]:
        """Give the card of a version whose files are the ones that were saved.

        Raises
        ------
        ArtifactError
            As `promote`.
        """
        return self._verified(version)[0]

    def load(self, version: str | None = None) -> Artifact:
        """Read a version, once its files are known to be the ones that were saved.

        Parameters
        ----------
        version : str, optional
            One of `versions`; without it, the one in use.

        Raises
        ------
        ArtifactError
            If there is no such version; if a file is missing, changed or not in the card; if
            it was made with other major versions of the libraries in it, or with another
            version of scikit-learn. Nothing is unpickled before the files are verified.
        """
        version = self.current() if version is None else version
        card, contents = self._verified(version)
        place = self.folder / version
        _check_libraries(card, place)
        features = _unpickle(contents[FEATURE_FILE], place / FEATURE_FILE)
        model = _unpickle(contents[MODEL_FILE], place / MODEL_FILE)
        if BOOSTER_FILE in contents:
            _put_booster_back(model, contents[BOOSTER_FILE], place)
        reference = json.loads(contents[REFERENCE_FILE]) if REFERENCE_FILE in contents else None
        trained_on = contents.get(TRAINED_ON_FILE)
        return Artifact(
            features,
            model,
            card,
            version,
            reference,
            None if trained_on is None else np.load(io.BytesIO(trained_on), allow_pickle=False),
        )

    def described(self, version: str) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
        """Give the card of a version and its reference, once verified; nothing is unpickled.

        Raises
        ------
        ArtifactError
            As `load`, the libraries aside.
        """
        card, contents = self._verified(version)
        return card, json.loads(contents[REFERENCE_FILE]) if REFERENCE_FILE in contents else None

    def card(self, version: str) -> dict[str, Any]:
        """Read a version's card; its other files are not looked at.

        Raises
        ------
        ArtifactError
            If there is no such version, or its card was changed.
        """
        return _read_card(self._place(version))

    def _place(self, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            message = (
                f"A version must look like 20261123T130501Z-1a2b, got {version!r}; "
                f"{self.folder} has {self.versions()}."
            )
            raise ArtifactError(message)
        place = self.folder / version
        if not place.is_dir():
            message = (
                f"There is no version {version} in {self.folder}; it has {self.versions()}. "
                f"Put one of them in use, or {_RETRAIN}."
            )
            raise ArtifactError(message)
        return place

    def _verified(self, version: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Give the card and the bytes that were verified, so that no other bytes are used."""
        place = self._place(version)
        card = _read_card(place)
        if (card.get("name"), card.get("version")) != (self.name, version):
            message = (
                f"{place / CARD_FILE} must be the card of {self.name} {version}, got that of "
                f"{card.get('name')} {card.get('version')}: the folder was renamed or mixed up. "
                f"Restore it, or {_RETRAIN}."
            )
            raise ArtifactError(message)
        _check_signature(card, place)
        digests = card["files"]
        unlisted = sorted(
            path.name
            for path in place.iterdir()
            if path.name not in {CARD_FILE, SIGNATURE_FILE, *digests}
            and not path.name.startswith(".")
        )
        if unlisted:
            message = f"{place} holds {unlisted}, which its {CARD_FILE} does not list: remove them."
            raise ArtifactError(message)
        return card, {name: _intact(place / name, digest) for name, digest in digests.items()}


def installed_libraries() -> dict[str, str]:
    """Give the versions of Python and of the libraries that a model depends on.

    Examples
    --------
    >>> sorted(installed_libraries())[:3]
    ['batch_nlp', 'duckdb', 'joblib']
    """
    versions = {"python": platform.python_version()}
    for library in _RECORDED[1:]:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed
    return versions


def card_digest(card: Mapping[str, Any]) -> str:
    """Give the SHA-256 of a card's content, its own ``sha256`` aside, however it is laid out.

    Examples
    --------
    >>> card_digest({"seed": 1, "sha256": "x"}) == card_digest({"seed": 1})
    True
    """
    content = {key: value for key, value in card.items() if key != "sha256"}
    return digest(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    """Give `value` in the types of JSON: NaN and infinity are null, strangers are text."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
        case None | str() | int():
            return value
        case _:
            return str(value)


def _without_booster(model: Any) -> tuple[Any, Any]:
    """Take the booster out of a copy of the pipeline, where its classifier has one."""
    # Whoever made such a classifier has imported xgboost; nobody else needs to.
    xgboost = sys.modules.get("xgboost")
    if xgboost is None or not isinstance(model, Pipeline):
        return model, None
    classifier = inner_classifier(model)
    if not isinstance(classifier, xgboost.XGBClassifier):
        return model, None
    booster = classifier.get_booster()
    bare = copy.copy(classifier)
    del bare._Booster  # noqa: SLF001
    name, last = model.steps[-1]
    if last is not classifier:
        around = copy.copy(last)
        around.estimator_ = bare
        bare = around
    rest = copy.copy(model)
    rest.steps = [*model.steps[:-1], (name, bare)]
    return rest, booster


def _put_booster_back(model: Any, content: bytes, place: Path) -> None:
    classifier = inner_classifier(model)
    # Loading overwrites constructor parameters with what the booster knows of them.
    parameters = classifier.get_params()
    try:
        classifier.load_model(bytearray(content))
    except ValueError as error:  # xgboost's own errors are ValueErrors
        message = f"Cannot read {place / BOOSTER_FILE}: {error}. To use this model, {_RETRAIN}."
        raise ArtifactError(message) from error
    for parameter, value in parameters.items():
        setattr(classifier, parameter, value)


def _read_card(place: Path) -> dict[str, Any]:
    path = place / CARD_FILE
    try:
        card = json.loads(_content(path))
    except ValueError as error:
        message = f"{path} must be JSON: {error}. Restore it from a backup, or {_RETRAIN}."
        raise ArtifactError(message) from error
    if not isinstance(card, dict) or card.get("sha256") != card_digest(card):
        message = (
            f"{path} was changed after it was saved: its content does not match its own sha256. "
            f"Restore it from a backup, or {_RETRAIN}."
        )
        raise ArtifactError(message)
    files = card.get("files", {})
    missing = [name for name in _NEEDED if name not in files]
    if missing:
        message = f"{path} must list the files {list(_NEEDED)}, but lacks {missing}: {_RETRAIN}."
        raise ArtifactError(message)
    strangers = [name for name in files if not _NAME.fullmatch(name)]
    if strangers:
        message = f"{path} must list files of its own folder, got {strangers}: {_RETRAIN}."
        raise ArtifactError(message)
    return card


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = (
            f"Cannot read {path}, which is part of the model: {error.strerror}. "
            f"Restore it from a backup, or {_RETRAIN}."
        )
        raise ArtifactError(message) from error


def _intact(path: Path, digest: str) -> bytes:
    content = _content(path)
    if _digest(content) != digest:
        message = (
            f"{path} was changed after it was saved: its SHA-256 must be {digest}, got "
            f"{_digest(content)}. Restore it from a backup, or {_RETRAIN}."
        )
        raise ArtifactError(message)
    return content


def _signing_key() -> bytes | None:
    text = os.environ.get(SIGNING_KEY, "")
    if text and len(text) < _SHORTEST_KEY:
        message = f"{SIGNING_KEY} must have at least {_SHORTEST_KEY} characters."
        raise InputError(message)
    return text.encode() or None


def _signature(card_sha256: str, key: bytes) -> str:
    return hmac.new(key, card_sha256.encode(), "sha256").hexdigest()


def _check_signature(card: Mapping[str, Any], place: Path) -> None:
    """Refuse a model that was not signed with the key of this installation, if it has one."""
    key = _signing_key()
    if key is None:
        return
    path = place / SIGNATURE_FILE
    try:
        found = path.read_bytes().strip()
    except FileNotFoundError as error:
        message = f"The model in {place} is not signed, and {SIGNING_KEY} is set: {_RETRAIN}."
        raise ArtifactError(message) from error
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror}."
        raise ArtifactError(message) from error
    if not hmac.compare_digest(found, _signature(card["sha256"], key).encode()):
        message = (
            f"The model in {place} was signed with another key than that of {SIGNING_KEY}, or "
            f"changed since: put the right key there, or {_RETRAIN}."
        )
        raise ArtifactError(message)


def _owner_writes(path: Path) -> None:
    path.chmod(path.stat().st_mode & 0o7777 & ~0o022)


def _check_libraries(card: Mapping[str, Any], place: Path) -> None:
    saved, installed = card.get("libraries", {}), installed_libraries()
    others = [
        f"{library} {saved[library]} (installed: {installed.get(library, 'none')})"
        for library in _IN_PICKLES
        if library in saved and _major(saved[library]) != _major(installed.get(library, ""))
    ]
    if others:
        message = (
            f"The model in {place} was made with other major versions: {', '.join(others)}. "
            f"Install those versions, or {_RETRAIN}."
        )
        raise ArtifactError(message)


def _major(version: str) -> str:
    """Give the part of a version that says what fits together.

    Before 1.0 that is the second number too.

    Examples
    --------
    >>> _major("3.2.0"), _major("0.10.1")
    ('3', '0.10')
    """
    first, _, rest = version.partition(".")
    return first if first != "0" else f"0.{rest.partition('.')[0]}"


def _unpickle(content: bytes, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(io.BytesIO(content))
    except InconsistentVersionWarning as error:
        message = (
            f"{path} was made with scikit-learn {error.original_sklearn_version}, and "
            f"{error.current_sklearn_version} is installed. Install scikit-learn "
            f"{error.original_sklearn_version}, or {_RETRAIN}."
        )
        raise ArtifactError(message) from error
    except (ImportError, AttributeError) as error:
        message = (
            f"{path} needs code that this installation lacks: {error}. "
            f"Install what the card's libraries name, or {_RETRAIN}."
        )
        raise ArtifactError(message) from error
