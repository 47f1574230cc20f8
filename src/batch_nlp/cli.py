"""The command line: Hydra composes the configuration, a run follows, its status is returned."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from batch_nlp.errors import InputError

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal."""


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
        outside its band, 130 interrupted. A multirun gives the highest of its runs.
    """
    statuses: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(config_folder), config_name="config")
    def task(config: DictConfig) -> int:
        from batch_nlp.run import run  # noqa: PLC0415  --help need not wait for the libraries

        statuses.append(run(config))
        return statuses[-1]

    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        _complain(_one_line(error))
        return InputError.exit_status
    except KeyboardInterrupt:
        _complain("Interrupted.")
        return INTERRUPTED
    return max(statuses, default=0)


def _one_line(error: Exception) -> str:
    """Give the telling parts of a configuration error in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("object_type=", "reference_type=", "full_key: ", "Set the environment variable")
    told = [line for line in lines if line and not line.startswith(noise)]
    cause = error.__cause__
    if cause is not None and not isinstance(error, OmegaConfBaseException):
        first = str(cause).strip().split("\n", maxsplit=1)[0]
        if first and first not in told:
            told.append(first)
    return " ".join(told)


def _complain(message: str) -> None:
    sys.stderr.write(f"batch_nlp: {message}\n")
