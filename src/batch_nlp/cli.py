"""The command line: Hydra composes the configuration, a run follows, its status is returned."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from batch_nlp.errors import InputError
from batch_nlp.interrupt import listen, was_asked

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal."""

_PLAIN = re.compile(r"(?!hydra\b)[~+]?[A-Za-z]")
"""How an override begins that is no option of Hydra's and does not set it up."""


def main(config_folder: Path) -> int:
    """Run what the command line asks for.

    Parameters
    ----------
    config_folder : Path
        Root of the Hydra tree.

    Returns
    -------
    int
        0 done, 1 failed, 2 bad configuration or input, 3 predictions delivered but a class
        outside its band, 130 interrupted. A multirun gives the highest of its runs. 1 also
        where nobody reads what is printed.
    """
    started = False
    statuses: list[int] = []

    def task(config: DictConfig) -> int:
        nonlocal started
        started = True
        from batch_nlp.workers import loading  # noqa: PLC0415  --help need not wait for the libraries

        with loading():
            from batch_nlp.run import run  # noqa: PLC0415

        statuses.append(run(config))
        return statuses[-1]

    listen()
    usual, sys.unraisablehook = sys.unraisablehook, _log_unraisable
    try:
        try:
            overrides = sys.argv[1:]
            if overrides in (["--help"], ["-h"]):
                print(_help(config_folder))  # noqa: T201
            elif all(_PLAIN.match(override) for override in overrides):
                # Hydra's own entry composes twice, the first time to learn what kind of run it is.
                with hydra.initialize_config_dir(str(config_folder), version_base="1.3"):
                    config = hydra.compose("config", overrides)
                task(config)
            else:
                entry = {"config_path": str(config_folder), "config_name": "config"}
                hydra.main(version_base="1.3", **entry)(task)()
        finally:
            # Hydra leaves by way of SystemExit where it only prints.
            if sys.stdout is not None:
                sys.stdout.flush()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if was_asked():
            _complain("Interrupted.")
            return INTERRUPTED
        if started:
            raise
        _complain(_one_line(error))
        return InputError.exit_status
    except KeyboardInterrupt:
        _complain("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever was reading has seen enough; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        sys.unraisablehook = usual
    return max(statuses, default=0)


def _help(config_folder: Path) -> str:
    """Fill in Hydra's template for help: Hydra would compose the configuration for each group."""
    template = OmegaConf.load(config_folder / "config.yaml").hydra.help.template
    groups: dict[str, list[str]] = {}
    for file in sorted(config_folder.glob("*/*.yaml")):
        groups.setdefault(file.parent.name, []).append(file.stem)
    lines = "".join(f"{group}: {', '.join(options)}\n" for group, options in groups.items())
    return Template(template).substitute(APP_CONFIG_GROUPS=lines)


def _log_unraisable(unraisable: Any) -> None:
    """Keep the traceback of what a library's callback cannot raise off the terminal."""
    from loguru import logger  # noqa: PLC0415  --help need not wait for the libraries

    value = unraisable.exc_value
    logger.bind(only="file").opt(exception=value).debug("Ignored in {}", unraisable.object)


def _one_line(error: Exception) -> str:
    """Say in one line what is wrong with the command line."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        parent, _, _ = str(cause.full_key).rpartition(".")
        return _unknown(str(cause.full_key), parent, getattr(cause.parent_node, "keys", list)())
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return _unknown(f"{group}={option}", group, error.options)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        why = next(line for line in lines if not line.startswith("Error parsing override"))
        quoted = "with a value of special characters in quotes, as in \"key='a b(c)'\""
        return f"{error.override!r} cannot be read ({why}): write key=value, {quoted}."
    return " ".join(lines)


def _unknown(name: str, parent: str, known: Iterable[Any]) -> str:
    names = ", ".join(str(each) for each in known if each not in {"_target_", "hydra"})
    return f"{name} is unknown; {parent or 'the configuration'} takes {names or 'no keys'}."


def _complain(message: str) -> None:
    from batch_nlp.redaction import redacted  # noqa: PLC0415

    sys.stderr.write(f"batch_nlp: {redacted(message)}\n")
