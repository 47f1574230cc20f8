"""From composed configuration to objects: types are checked, and errors name the key."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaError

from batch_nlp.errors import BatchNlpError, InputError

TRUSTED = ("batch_nlp.", "sklearn.", "xgboost.")
"""Where a ``_target_`` may come from: naming one runs its code."""

_SCALAR_FAULTS = {"bool_type", "int_type", "float_type"}
"""Those of pydantic's strict mode that matter: it also wants tuples where YAML has lists."""

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The parts of the whole configuration.

    Parameters
    ----------
    seed : int
        Of everything random.
    force : bool
        Whether stages that an interrupted run finished, and predictions that are there, are
        made again.
    wait : float or None
        Seconds to wait while another run works on the same root; None: for ever.
    model, sample, paths, logs, engine, dataset, embedder, classifier : mapping
        What is built, by its ``_target_``.
    feature, training, inference, pipeline, distill, explain, selection : mapping
        The same.
    score, models, audit : mapping
        The same.
    """

    seed: int
    force: bool
    wait: float | None
    model: Mapping[str, Any]
    sample: Mapping[str, Any]
    paths: Mapping[str, Any]
    logs: Mapping[str, Any]
    engine: Mapping[str, Any]
    dataset: Mapping[str, Any]
    embedder: Mapping[str, Any]
    classifier: Mapping[str, Any]
    feature: Mapping[str, Any]
    training: Mapping[str, Any]
    inference: Mapping[str, Any]
    pipeline: Mapping[str, Any]
    distill: Mapping[str, Any]
    explain: Mapping[str, Any]
    selection: Mapping[str, Any]
    score: Mapping[str, Any]
    models: Mapping[str, Any]
    audit: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where everything lives.

    Parameters
    ----------
    root : str
        Folder of one installation; data and models lie under it.
    """

    root: str

    def __post_init__(self) -> None:
        if not self.root.strip() or self.root.startswith("~"):
            message = f"paths.root must name a folder, with no ~ in it; got {self.root!r}."
            raise InputError(message)

    @cached_property
    def data(self) -> Path:
        """Folder of the data layers."""
        return Path(self.root).absolute() / "data"

    @property
    def models(self) -> Path:
        """Folder of the trained models."""
        return self.data.parent / "models"

    def layer(self, name: str) -> Path:
        """Give a data layer's folder, such as ``04_feature``."""
        return self.data / name


@dataclass(frozen=True, kw_only=True)
class PipelineChoice:
    """Which stages run, and what follows when the shares of the classes are off.

    Parameters
    ----------
    name : str
        What the run is called.
    stages : list of str
        Of ``feature``, ``selection``, ``training``, ``inference``, ``distill``, ``explain``,
        ``score``, ``models`` and ``audit``, in order.
    on_skew : {"retrain", "report", "fail"}, default="report"
        What to do when a class's share of the predictions is outside the band.
    max_retrains : int, default=1
        How often one run may retrain.
    """

    name: str
    stages: list[
        typing.Literal[
            "feature",
            "training",
            "inference",
            "distill",
            "explain",
            "selection",
            "score",
            "models",
            "audit",
        ]
    ]
    on_skew: typing.Literal["retrain", "report", "fail"] = "report"
    max_retrains: int = 1

    def __post_init__(self) -> None:
        if self.max_retrains < 0:
            message = f"pipeline.max_retrains must be at least 0, got {self.max_retrains}."
            raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model is trained or used.

    Parameters
    ----------
    name : str
        Its folder under ``models``.
    """

    name: str = "sentiment"


def verify(config: DictConfig) -> None:
    """Hold a whole configuration against all the constructors that it names; build nothing.

    So that a mistake in the last stage is told before the first one runs.

    Parameters
    ----------
    config : DictConfig
        With the parts of `Configuration`.

    Raises
    ------
    InputError
        As `build`, or if a part is missing.

    Examples
    --------
    >>> verify(OmegaConf.create({"sede": 7}))
    Traceback (most recent call last):
    batch_nlp.errors.InputError: sede is unknown; the configuration takes seed, force, wait, \
model, sample, paths, logs, engine, dataset, embedder, classifier, feature, training, inference, \
pipeline, distill, explain, selection, score, models, \
audit.
    """
    parts = plain(config)
    verify_node({"_target_": f"{__name__}.{Configuration.__name__}", **parts}, "")
    for name in inspect.signature(Configuration).parameters:
        if name not in parts or (parts[name] is None and name != "wait"):
            message = f"{name} is missing from the configuration."
            raise InputError(message)


def build(config: Any, key: str) -> Any:
    """Make the object that a part of the configuration describes.

    Parameters
    ----------
    config : DictConfig
        Node with a ``_target_``, or anything that holds such nodes.
    key : str
        Where it stands in the whole configuration, for messages.

    Returns
    -------
    object

    Raises
    ------
    InputError
        If a target is not trusted, a key is unknown to it, or a value has the wrong type; the
        message names the full key.

    Examples
    --------
    >>> node = OmegaConf.create({"_target_": "batch_nlp.settings.Paths", "rooot": "/data"})
    >>> build(node, "paths")
    Traceback (most recent call last):
    batch_nlp.errors.InputError: paths.rooot is unknown; paths takes root.
    """
    if config is None:
        return None
    node = plain(config) if OmegaConf.is_config(config) else config
    verify_node(node, key)
    try:
        return instantiate(OmegaConf.create(node), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, BatchNlpError):
            raise cause from error
        reason = str(cause or error).split("\n", maxsplit=1)[0]
        # Hydra says last where inside `config` it was.
        _, _, place = str(error).partition("\nfull_key: ")
        message = f"{_dotted(key, place.strip())} cannot be built: {reason}"
        raise InputError(message) from error


def verify_node(node: Any, key: str) -> None:
    """Hold plain data against the constructors that it names; build nothing.

    Parameters
    ----------
    node : Any
        Mapping with a ``_target_``, or anything that holds such mappings.
    key : str
        Where it stands in the whole configuration, for messages.

    Raises
    ------
    InputError
        As `build`.
    """
    if isinstance(node, list):
        for position, each in enumerate(node):
            verify_node(each, f"{key}[{position}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _verify_call(node, key)
    for name, each in node.items():
        verify_node(each, _dotted(key, name))


def _verify_call(node: Mapping[str, Any], key: str) -> None:
    target = str(node["_target_"])
    if not target.startswith(TRUSTED):
        message = f"{key}._target_ must begin with one of {', '.join(TRUSTED)}; got {target!r}."
        raise InputError(message)
    try:
        made = get_object(target)
    except (ImportError, ValueError) as error:
        message = f"{key}._target_: there is no {target!r}."
        raise InputError(message) from error
    own = {name: value for name, value in node.items() if not name.startswith("_")}
    takes, closed = _parameters(made)
    for name in own:
        if closed and name not in takes:
            known = f"{key or 'the configuration'} takes {', '.join(takes)}"
            message = f"{_dotted(key, name)} is unknown; {known}."
            raise InputError(message)
    if target.startswith(("batch_nlp.", "xgboost.")):
        _verify_types(takes, own, key)


def _dotted(*names: object) -> str:
    return ".".join(str(name) for name in names if name != "")


def _parameters(made: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Give the annotations of what `made` takes by name, and whether it takes nothing else."""
    takes: dict[str, Any] = {}
    # A class that passes further keywords on takes what its base takes.
    inits = (
        [vars(each)["__init__"] for each in inspect.getmro(made) if "__init__" in vars(each)]
        if inspect.isclass(made)
        else [made]
    )
    for init in inits:
        # Modules may import the abstract collections for the type checker alone.
        hints = typing.get_type_hints(init, localns=vars(collections.abc))
        parameters = inspect.signature(init).parameters
        for name, each in parameters.items():
            if name != "self" and each.kind not in _ANY:
                takes.setdefault(name, hints.get(name, Any))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            return takes, True
    return takes, inspect.isclass(made)


def _verify_types(hints: Mapping[str, Any], values: Mapping[str, Any], key: str) -> None:
    """Hold values against annotations; what is built from a node is its own."""
    for name, value in values.items():
        if name not in hints or _builds(value):
            continue
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            faults = _faults(adapter, value)
        except (PydanticUserError, SchemaError):  # a type that values cannot be held against
            continue
        if faults:
            first = faults[0]
            where = _dotted(key, name, *first["loc"])
            must = first["msg"][0].lower() + first["msg"][1:]
            message = f"{where}: {must}; got {first['input']!r}."
            raise InputError(message)


def _faults(adapter: TypeAdapter[Any], value: Any) -> list[ErrorDetails]:
    """Say what is wrong with a value, which is used as it is and not as it could be read.

    The text ``no`` could be read as false and 1e4 as an integer, but they are neither.
    """
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return error.errors()
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        faults = error.errors()
        return faults if {each["type"] for each in faults} <= _SCALAR_FAULTS else []
    return []


def _builds(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_builds(each) for each in value.values())
    return isinstance(value, list) and any(_builds(each) for each in value)


def plain(config: DictConfig | ListConfig) -> Any:
    """Give a configuration as plain data, every interpolation resolved.

    Raises
    ------
    InputError
        If an interpolation leads nowhere.
    """
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        message = f"{error.full_key}: {reason}."
        raise InputError(message) from error
