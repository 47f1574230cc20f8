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
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from batch_nlp.errors import BatchNlpError, InputError

TRUSTED = ("batch_nlp.", "sklearn.", "xgboost.")
"""Where a ``_target_`` may come from: naming one runs its code."""


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where everything lives.

    Parameters
    ----------
    root : str
        Folder of one installation; data and models lie under it.
    """

    root: str

    @cached_property
    def data(self) -> Path:
        """Folder of the data layers."""
        return Path(self.root).expanduser().absolute() / "data"

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
        Of ``feature``, ``training``, ``inference`` and ``distill``, in order.
    on_skew : {"retrain", "report", "fail"}, default="report"
        What to do when a class's share of the predictions is outside the band.
    max_retrains : int, default=1
        How often one run may retrain.
    """

    name: str
    stages: list[typing.Literal["feature", "training", "inference", "distill"]]
    on_skew: typing.Literal["retrain", "report", "fail"] = "report"
    max_retrains: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model is trained or used.

    Parameters
    ----------
    name : str
        Its folder under ``models``.
    """

    name: str = "sentiment"


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
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    _verify(plain, key)
    try:
        return instantiate(OmegaConf.create(plain), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, BatchNlpError):
            raise cause from error
        reason = str(cause or error).split("\n", maxsplit=1)[0]
        message = f"{key} cannot be built: {reason}"
        raise InputError(message) from error


def _verify(node: Any, key: str) -> None:
    if isinstance(node, list):
        for position, each in enumerate(node):
            _verify(each, f"{key}[{position}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _verify_call(node, key)
    for name, each in node.items():
        _verify(each, f"{key}.{name}")


def _verify_call(node: Mapping[str, Any], key: str) -> None:
    target = str(node["_target_"])
    if not target.startswith(TRUSTED):
        message = f"{key}._target_ must begin with one of {', '.join(TRUSTED)}; got {target!r}."
        raise InputError(message)
    try:
        made = get_object(target)
    except Exception as error:
        message = f"{key}._target_: there is no {target!r}."
        raise InputError(message) from error
    own = {name: value for name, value in node.items() if not name.startswith("_")}
    parameters = inspect.signature(made).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for name in own:
        if name not in parameters:
            message = f"{key}.{name} is unknown; {key} takes {', '.join(parameters)}."
            raise InputError(message)
    if target.startswith("batch_nlp."):
        _verify_types(made, own, key)


def _verify_types(made: Callable[..., Any], values: Mapping[str, Any], key: str) -> None:
    """Hold values against the constructor's annotations; what is built from a node is its own."""
    own = made.__init__ if inspect.isclass(made) else made
    # Modules may import the abstract collections for the type checker alone.
    hints = typing.get_type_hints(own, localns=vars(collections.abc))
    for name, value in values.items():
        if name not in hints or _builds(value):
            continue
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            adapter.validate_python(value)
        except PydanticUserError:
            continue
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([key, name, *map(str, first["loc"])])
            message = f"{where}: {first['msg'].lower()}; got {first['input']!r}."
            raise InputError(message) from error


def _builds(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_builds(each) for each in value.values())
    return isinstance(value, list) and any(_builds(each) for each in value)


def plain(config: DictConfig | ListConfig) -> Any:
    """Give a configuration as plain data, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)
