"""From configuration to objects: what is refused, and how the message names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from batch_nlp.errors import InputError
from batch_nlp.settings import Configuration, Paths, build, plain, verify


@pytest.fixture(scope="session")
def whole(conf_folder: Path) -> DictConfig:
    """The default configuration, with a classifier whose parameters have types."""
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder)):
        return compose("config", overrides=["classifier=xgboost"])


def with_value(config: DictConfig, key: str, value: Any) -> DictConfig:
    changed = config.copy()
    OmegaConf.update(changed, key, value, force_add=True)
    return changed


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("foo", 3, "foo is unknown; the configuration takes seed, force, wait, model,"),
        ("training.blance", "none", "training.blance is unknown; training takes .*balance"),
        ("classifier.n_estimatorz", 3, "classifier.n_estimatorz is unknown; .*n_estimators"),
        ("feature.steps.flags.column", "x", "feature.steps.flags.column is unknown; .*columns"),
        ("inference.shares.lo", 0, "inference.shares.lo is unknown; .* takes low, high, min_rows"),
        ("training.model.classifer", 0, "training.model.classifer is unknown"),
        ("seed", "hello", "seed: input should be a valid integer.* got 'hello'"),
        ("sample.n_reviews", "hello", "^sample.n_reviews: input should be a valid integer"),
        ("engine.batch_rows", "hello", "engine.batch_rows: input should be a valid integer"),
        ("inference.shares.low", "x", "inference.shares.low: input should be a valid number"),
        ("training.split.by", "tme", "training.split.by: input should be 'auto', .*; got 'tme'"),
        ("training.thresholds.f1_macro", "x", "training.thresholds.f1_macro: input should be"),
        ("pipeline.on_skew", "explode", "pipeline.on_skew: input should be 'retrain'"),
        ("pipeline.stages", ["training", "x"], "pipeline.stages.1: .* got 'x'"),
        ("logs.level", "LOUD", "logs.level: input should be 'TRACE', .*; got 'LOUD'"),
        ("classifier.max_depth", "deep", "classifier.max_depth: input should be a valid integer"),
        ("dataset._target_", "os.system", r"dataset._target_ must begin .*; got 'os.system'"),
        ("embedder._target_", "batch_nlp.none", "embedder._target_: there is no 'batch_nlp.none'"),
        ("training.model.select.constant._target_", "subprocess.run", "constant._target_ must"),
        ("seed", "${nope}", "seed: Interpolation key 'nope' not found"),
        ("logs", None, "logs: input should be a valid dictionary; got None"),
    ],
)
def test_a_mistake_anywhere_is_told_by_its_full_key(
    whole: DictConfig, key: str, value: Any, reason: str
) -> None:
    verify(whole)
    with pytest.raises(InputError, match=reason) as caught:
        verify(with_value(whole, key, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", list(Configuration.__dataclass_fields__))
def test_no_part_may_be_missing(whole: DictConfig, part: str) -> None:
    parts = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(parts, dict)
    with pytest.raises(InputError, match=f"^{part} is missing from the configuration"):
        verify(OmegaConf.create({name: node for name, node in parts.items() if name != part}))


def test_nothing_is_run_to_find_out_whether_a_target_may_be_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    node = {"_target_": "pathlib.Path.touch", "self": str(trace)}
    with pytest.raises(InputError, match=r"x._target_ must begin with one of batch_nlp., sklearn."):
        build(node, "x")
    assert not trace.exists()


def test_a_trusted_prefix_is_a_whole_package() -> None:
    with pytest.raises(InputError, match="must begin"):
        build({"_target_": "sklearn_evil.Model"}, "classifier")


def test_a_key_that_a_target_takes_from_its_base_is_known() -> None:
    node = {"_target_": "xgboost.XGBClassifier", "max_depth": 3, "objective": "multi:softprob"}
    assert build(node, "classifier").get_params()["max_depth"] == 3


def test_a_key_that_only_the_constructor_refuses_is_told_with_its_place() -> None:
    words = {"_target_": "batch_nlp.training.pipeline.ngrams", "min_dff": 2}
    node = {"_target_": "batch_nlp.training.pipeline.chain", "words": words}
    with pytest.raises(InputError, match=r"^text\.words cannot be built: .*'min_dff'$"):
        build(node, "text")


def test_a_value_that_only_the_constructor_refuses_keeps_its_message() -> None:
    node = {"_target_": "batch_nlp.inference.shares.ShareRule", "low": 0.95}
    with pytest.raises(InputError, match=r"^inference\.shares needs 0 <= low < high <= 1"):
        build(node, "inference.shares")


def test_what_is_built_holds_plain_python_alone(whole: DictConfig) -> None:
    job = build(whole.feature, "feature")
    assert type(job.steps) is dict
    assert type(job.steps["flags"].columns) is list


def test_nothing_is_made_of_nothing() -> None:
    assert build(None, "embedder") is None


@pytest.mark.parametrize("root", ["", "  ", "~/x"])
def test_a_root_is_taken_as_it_stands_or_not_at_all(root: str) -> None:
    with pytest.raises(InputError, match=r"paths.root must name a folder"):
        Paths(root=root)


def test_a_relative_root_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Paths(root="here")
    assert paths.layer("04_feature") == tmp_path / "here" / "data" / "04_feature"
    assert paths.models == tmp_path / "here" / "models"


def test_paths_stay_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Paths(root="here")
    before = paths.data
    monkeypatch.chdir("/")
    assert paths.data == before


def test_plain_data_has_no_reference_left() -> None:
    assert plain(OmegaConf.create({"a": 1, "b": "${a}"})) == {"a": 1, "b": 1}
