"""The Hydra tree: every combination of its groups composes, is accepted and can be built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from batch_nlp.errors import InputError
from batch_nlp.settings import Configuration, build, verify

CONF = Path(__file__).resolve().parents[1] / "conf"

ALONE = "pipeline"
"""The group whose options refer to no other part, so that it need not be composed with each."""


def options_of_groups() -> dict[str, list[str | None]]:
    """Give the options of each group that leaves a choice; an experiment may also be left out."""
    groups: dict[str, list[str | None]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        if path.parent != CONF:
            groups.setdefault(str(path.parent.relative_to(CONF)), []).append(path.stem)
    groups["experiment"].insert(0, None)
    return {group: options for group, options in groups.items() if len(options) > 1}


GROUPS = options_of_groups()
OTHERS = {group: options for group, options in GROUPS.items() if group != ALONE}
COMBINATIONS = [dict(zip(OTHERS, chosen, strict=True)) for chosen in product(*OTHERS.values())]

Compose = Callable[[Mapping[str, str | None]], DictConfig]


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Compose]:
    """Compose the configuration with some options, its root an empty folder."""

    def give(chosen: Mapping[str, str | None]) -> DictConfig:
        overrides = [f"{group}={option}" for group, option in chosen.items() if option is not None]
        return compose("config", overrides=[*overrides, f"paths.root={tmp_path}"])

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield give


def named(chosen: Mapping[str, str | None]) -> str:
    return "-".join(str(option) for option in chosen.values())


def lacking(chosen: Mapping[str, str | None]) -> str | None:
    """Say what the classifier of a combination lacks in an empty root, if anything."""
    if chosen["classifier"] == "best":
        return "run pipeline=selection first"
    if chosen["classifier"] == "lightgbm" and find_spec("lightgbm") is None:
        return "make install EXTRAS=lightgbm"
    return None


def test_what_people_swap_are_groups() -> None:
    assert {"dataset", "embedder", "classifier", "pipeline", "experiment"} <= set(GROUPS)
    assert len(COMBINATIONS) >= 3 * 4 * 4 * 2


@pytest.mark.parametrize("chosen", COMBINATIONS, ids=named)
def test_every_combination_composes_and_its_parts_build(
    composed: Compose, tmp_path: Path, chosen: dict[str, str | None]
) -> None:
    config = composed(chosen)
    verify(config)
    why = lacking(chosen)
    for part in ("dataset", "embedder", "classifier", "feature", "training"):
        if why and part in {"classifier", "training"}:
            with pytest.raises(InputError, match=why):
                build(config[part], part)
        else:
            assert build(config[part], part) is not None or chosen[part] == "none"
    assert list(tmp_path.iterdir()) == []


def test_the_parts_that_leave_no_choice_build(composed: Compose, tmp_path: Path) -> None:
    config = composed({})
    for part in (
        "model",
        "sample",
        "paths",
        "logs",
        "engine",
        "inference",
        "distill",
        "explain",
        "selection",
        "score",
        "models",
        "audit",
    ):
        assert build(config[part], part) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
@pytest.mark.parametrize("option", GROUPS[ALONE])
def test_every_pipeline_fits_every_combination(
    composed: Compose, option: str, experiment: str | None
) -> None:
    config = composed({"pipeline": option, "experiment": experiment})
    verify(config)
    pipeline = config.pipeline
    assert pipeline.name == option
    # Without a reference to another part, what the other parts are is all the same to it.
    assert OmegaConf.to_container(pipeline) == OmegaConf.to_container(pipeline, resolve=True)
    assert set(build(pipeline, "pipeline").stages) <= {"feature", "training", "inference", option}


def test_no_global_state_is_left_behind(composed: Compose) -> None:
    assert GlobalHydra.instance().is_initialized()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        compose("config")
    assert not GlobalHydra.instance().is_initialized()


def test_the_parts_are_those_that_the_program_knows(composed: Compose) -> None:
    assert set(composed({})) == set(Configuration.__dataclass_fields__)


def test_defaults(composed: Compose) -> None:
    config = composed({})
    assert config.dataset._target_.endswith("SampleDataset")
    assert config.embedder._target_.endswith("SentimentEmbedder")
    assert config.classifier._target_.endswith("LogisticRegression")
    assert config.pipeline.name == "full"
    assert config.pipeline.on_skew == "retrain"
    assert config.pipeline.max_retrains == 1
    assert dict(config.training.thresholds) == {"f1_macro": 0.4, "recall_macro": 0.4}
    shares = config.inference.shares
    assert (shares.low, shares.high, shares.min_rows) == (0.1, 0.9, 100)


@pytest.mark.parametrize("option", ["feature", "training", "inference"])
def test_a_single_stage_reports_the_shares_and_does_not_retrain(
    composed: Compose, option: str
) -> None:
    pipeline = composed({"pipeline": option}).pipeline
    assert list(pipeline.stages) == [option]
    assert pipeline.on_skew == "report"


def test_every_file_of_the_tree_is_found_by_hydra() -> None:
    files = [path for path in CONF.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix != ".yaml"] == []


def hydra_references(node: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Say where a plain tree refers to Hydra's own configuration."""
    if isinstance(node, dict):
        return [p for key, each in node.items() for p in hydra_references(each, (*place, str(key)))]
    if isinstance(node, list):
        return [p for each in node for p in hydra_references(each, place)]
    return [place] if isinstance(node, str) and "${hydra:" in node else []


def test_hydras_own_values_are_used_under_hydra_alone() -> None:
    assert hydra_references({"a": [{"b": "x ${hydra:job.name}"}]}) == [("a", "b")]
    for path in sorted(CONF.rglob("*.yaml")):
        tree = OmegaConf.to_container(OmegaConf.load(path))
        found = [place for place in hydra_references(tree) if place[0] != "hydra"]
        assert found == [], path


def test_every_target_comes_with_the_program(composed: Compose) -> None:
    from batch_nlp.settings import TRUSTED

    def targets(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from [node["_target_"]] if "_target_" in node else []
            for each in node.values():
                yield from targets(each)

    found = [
        target
        for path in sorted(CONF.rglob("*.yaml"))
        for target in targets(OmegaConf.to_container(OmegaConf.load(path)))
    ]
    assert len(found) > 20
    assert [target for target in found if not target.startswith(TRUSTED)] == []
