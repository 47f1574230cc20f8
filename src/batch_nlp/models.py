"""The versions of a model: listed, one of them put in use again, the oldest removed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from batch_nlp.artifact import CARD_FILE, Registry
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.records import RunRecord

PREVIOUS = "previous"
"""What stands for the version that was in use before the one in use."""

_COLUMNS = ("version", "created", "trained on", "F1 macro", "F1 weighted", "status")
_LATEST = re.compile(r"promoted|rolled back|found|held")


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Which versions are removed.

    Parameters
    ----------
    keep : int, optional
        How many of the newest stay, besides the one in use and the one used before it; None
        removes none.
    """

    keep: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            message = f"models.prune.keep must be at least 1 (or null), got {self.keep}."
            raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class ModelsJob:
    """What is done with the versions of a model.

    Parameters
    ----------
    rollback : str, optional
        Version to put in use, or ``previous`` for the one used before the one in use.
    prune : Prune
        Which versions are removed, after a rollback.
    """

    rollback: str | None = None
    prune: Prune = field(default_factory=Prune)

    def run(self, registry: Registry, record: RunRecord) -> list[dict[str, Any]]:
        """Do it, then list the versions that are there.

        Parameters
        ----------
        registry : Registry
            The model's versions.
        record : RunRecord
            Takes what was done, and the list.

        Returns
        -------
        list of dict
            As `listed`.

        Raises
        ------
        ArtifactError
            If a version is not there or cannot be used.
        """
        why = f"run {record.run_id}"
        if self.rollback is not None:
            asked = None if self.rollback == PREVIOUS else self.rollback
            version = registry.roll_back(asked, why=why)
            record.facts["rolled_back"] = version
            logger.info("Model {} {} is in use.", registry.name, version)
        if self.prune.keep is not None:
            gone = registry.prune(self.prune.keep, why=why)
            record.facts["pruned"] = gone
            cards = [registry.folder / version / CARD_FILE for version in gone]
            record.facts.setdefault("removed", []).extend(record.name_of(card) for card in cards)
            logger.info("Removed {} versions: {}", len(gone), ", ".join(gone) or "none")
        rows = listed(registry)
        record.facts["models"] = rows
        logger.info("Versions of {}: {}\n{}", registry.name, len(rows), table(rows))
        return rows


def listed(registry: Registry) -> list[dict[str, Any]]:
    """Describe the versions that are there, oldest first.

    Parameters
    ----------
    registry : Registry
        The model's versions.

    Returns
    -------
    list of dict
        ``version``, ``created``, ``n_train``, ``f1_macro``, ``f1_weighted`` and ``status``:
        ``in use``, ``used before``, ``held`` (passed the thresholds, and not put in use),
        ``saved`` (the ledger does not say more) or ``damaged: ...``.
    """
    last: dict[str, str] = {}
    for entry in registry.ledger():
        # What was once in use stays so, though the same version may be held against another.
        if _LATEST.fullmatch(entry["event"]) and last.get(entry["version"]) != "used before":
            last[entry["version"]] = "held" if entry["event"] == "held" else "used before"
    in_use = registry.in_use()
    rows = []
    for version in registry.versions():
        try:
            card, damage = registry.card(version), ""
        except ArtifactError as error:
            card, damage = {}, f"damaged: {error}"
        metrics = card.get("metrics", {})
        rows.append(
            {
                "version": version,
                "created": card.get("created"),
                "n_train": card.get("n_train"),
                "f1_macro": metrics.get("f1_macro"),
                "f1_weighted": metrics.get("f1_weighted"),
                "status": damage or ("in use" if version == in_use else last.get(version, "saved")),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the versions out as lines.

    Examples
    --------
    >>> row = {"version": "20261123T130501Z-1a2b", "created": "2026-11-23T13:05:01+00:00"}
    >>> figures = {"n_train": 2313, "f1_macro": 0.7519, "f1_weighted": None}
    >>> print(table([{**row, **figures, "status": "in use"}]))
    version               created                    trained on  F1 macro  F1 weighted  status
    20261123T130501Z-1a2b 2026-11-23T13:05:01+00:00       2,313     0.752            -  in use
    """
    line = "{:<21} {:<25} {:>11} {:>9} {:>12}  {}"
    return "\n".join(
        [
            line.format(*_COLUMNS),
            *(
                line.format(
                    row["version"],
                    row["created"] or "-",
                    "-" if row["n_train"] is None else f"{row['n_train']:,}",
                    _figure(row["f1_macro"]),
                    _figure(row["f1_weighted"]),
                    row["status"],
                )
                for row in rows
            ),
        ]
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
