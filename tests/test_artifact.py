"""The trained model as a folder: round trips, damage, and which version is in use."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
import types
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from batch_nlp import artifact as module
from batch_nlp.artifact import Artifact, Registry, card_digest
from batch_nlp.errors import ArtifactError, InputError
from batch_nlp.training.calibrate import CalibratedClassifier, inner_classifier

CONFIG = "seed: 7\nname: ñandú\n"
FILES = ("feature_pipeline.joblib", "model_pipeline.joblib", "config.yaml")


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(150, 4)), columns=list("abcd"))
    return X, rng.integers(0, 3, 150)


@pytest.fixture(scope="module")
def boosted(rows: tuple[pd.DataFrame, np.ndarray]) -> Pipeline:
    from xgboost import XGBClassifier

    classifier = XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, random_state=7)
    return Pipeline([("scale", StandardScaler()), ("classify", classifier)]).fit(*rows)


@pytest.fixture(scope="module")
def calibrated(rows: tuple[pd.DataFrame, np.ndarray]) -> Pipeline:
    from xgboost import XGBClassifier

    classifier = XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, random_state=7)
    last = CalibratedClassifier(estimator=classifier)
    return Pipeline([("scale", StandardScaler()), ("classify", last)]).fit(*rows)


@pytest.fixture(scope="module")
def linear(rows: tuple[pd.DataFrame, np.ndarray]) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression())]).fit(*rows)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", "sentiment")


def trained(model: Any, **card: Any) -> Artifact:
    return Artifact(Pipeline([("same", FunctionTransformer())]), model, card=card)


def reseal(place: Path, **changes: Any) -> None:
    """Change a card and make its digests right again."""
    card = json.loads((place / "card.json").read_text(encoding="utf-8"))
    card["files"] = {name: module._digest((place / name).read_bytes()) for name in card["files"]}
    card |= changes
    card["sha256"] = card_digest(card)
    (place / "card.json").write_text(json.dumps(card), encoding="utf-8")


# Round trips


def test_a_linear_model_comes_back_bit_equal(
    registry: Registry, linear: Pipeline, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    loaded = registry.load(version)
    assert loaded.version == version
    assert np.array_equal(
        loaded.model_pipeline.predict_proba(rows[0]), linear.predict_proba(rows[0])
    )
    assert loaded.feature_pipeline.transform(rows[0]).equals(rows[0])
    assert {path.name for path in (registry.folder / version).iterdir()} == {*FILES, "card.json"}


def test_a_boosted_model_comes_back_bit_equal(
    registry: Registry, boosted: Pipeline, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    version = registry.save(trained(boosted), config_text=CONFIG)
    loaded = registry.load(version).model_pipeline
    assert np.array_equal(loaded.predict_proba(rows[0]), boosted.predict_proba(rows[0]))
    assert np.array_equal(loaded.predict(rows[0]), boosted.predict(rows[0]))
    assert np.array_equal(loaded.classes_, boosted.classes_)
    assert str(loaded[-1].get_params()) == str(boosted[-1].get_params())
    assert loaded[-1].feature_importances_ == pytest.approx(boosted[-1].feature_importances_)


def test_the_booster_is_kept_beside_the_pickle_and_not_in_it(
    registry: Registry, boosted: Pipeline
) -> None:
    version = registry.save(trained(boosted), config_text=CONFIG)
    place = registry.folder / version
    assert {path.name for path in place.iterdir()} == {*FILES, "booster.ubj", "card.json"}
    bare = joblib.load(place / "model_pipeline.joblib")[-1]
    assert not bare.__sklearn_is_fitted__()
    assert boosted[-1].__sklearn_is_fitted__()


def test_a_calibrated_model_comes_back_bit_equal(
    registry: Registry, calibrated: Pipeline, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    version = registry.save(trained(calibrated), config_text=CONFIG)
    place = registry.folder / version
    assert {path.name for path in place.iterdir()} == {*FILES, "booster.ubj", "card.json"}
    bare = joblib.load(place / "model_pipeline.joblib")
    assert not inner_classifier(bare).__sklearn_is_fitted__()
    assert inner_classifier(calibrated).__sklearn_is_fitted__()
    loaded = registry.load(version).model_pipeline
    assert np.array_equal(loaded.predict_proba(rows[0]), calibrated.predict_proba(rows[0]))
    assert np.array_equal(loaded.predict(rows[0]), calibrated.predict(rows[0]))
    assert loaded[-1].describe() == calibrated[-1].describe()
    assert str(loaded[-1].get_params()) == str(calibrated[-1].get_params())


def test_early_stopping_survives(registry: Registry, rows: tuple[pd.DataFrame, np.ndarray]) -> None:
    from xgboost import XGBClassifier

    X, y = rows
    classifier = XGBClassifier(n_estimators=40, n_jobs=1, early_stopping_rounds=2)
    classifier.fit(X[:100], y[:100], eval_set=[(X[100:], y[100:])], verbose=False)
    model = Pipeline([("classify", classifier)])
    loaded = registry.load(registry.save(trained(model), config_text=CONFIG)).model_pipeline
    assert loaded[-1].best_iteration == classifier.best_iteration
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_saved_in_one_process_and_used_in_another(
    registry: Registry,
    boosted: Pipeline,
    rows: tuple[pd.DataFrame, np.ndarray],
    tmp_path: Path,
) -> None:
    registry.promote(registry.save(trained(boosted), config_text=CONFIG))
    rows[0].to_pickle(tmp_path / "rows.pickle")
    program = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from batch_nlp.artifact import Registry
assert "xgboost" not in sys.modules
folder = Path(sys.argv[1])
model = Registry(folder / "models", "sentiment").load().model_pipeline
np.save(folder / "out.npy", model.predict_proba(pd.read_pickle(folder / "rows.pickle")))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), boosted.predict_proba(rows[0]))


def test_the_card_and_the_configuration(registry: Registry, linear: Pipeline) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    given = {
        "metrics": {"f1_macro": np.float64(0.5), "n": np.int64(3)},
        "parameters": {"missing": float("nan"), "path": Path("x"), "range": (1, 2)},
        "shares": np.array([0.25, 0.75]),
        "tuned": True,
        "nothing": None,
    }
    version = registry.save(trained(linear, **given), config_text=CONFIG)
    place = registry.folder / version
    assert (place / "config.yaml").read_text(encoding="utf-8") == CONFIG
    card = json.loads((place / "card.json").read_text(encoding="utf-8"))
    assert card == registry.load(version).card
    assert card["metrics"] == {"f1_macro": 0.5, "n": 3}
    assert card["parameters"] == {"missing": None, "path": "x", "range": [1, 2]}
    assert card["shares"] == [0.25, 0.75]
    assert card["tuned"] is True
    assert card["nothing"] is None
    assert (card["name"], card["version"]) == ("sentiment", version)
    assert before <= datetime.fromisoformat(card["created"]) <= datetime.now(UTC)
    assert set(card["files"]) == set(FILES)
    assert {
        "python", "numpy", "pandas", "scikit-learn", "xgboost", "duckdb", "pyarrow", "joblib",
        "batch_nlp",
    } <= set(card["libraries"])  # fmt: skip


def test_a_loaded_model_can_be_saved_again(registry: Registry, linear: Pipeline) -> None:
    first = registry.load(registry.save(trained(linear, seed=7), config_text=CONFIG))
    second = registry.load(registry.save(first, config_text=CONFIG))
    assert second.card["seed"] == 7
    assert second.card["version"] == second.version != first.version


# Damage


@pytest.mark.parametrize("name", [*FILES, "booster.ubj", "card.json"])
@pytest.mark.parametrize("damage", ["byte", "cut", "gone"])
def test_damage_to_any_file_is_found_and_named(
    registry: Registry, boosted: Pipeline, name: str, damage: str
) -> None:
    version = registry.save(trained(boosted, seed=7), config_text=CONFIG)
    file = registry.folder / version / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-5])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    for use in (registry.load, registry.promote):
        with pytest.raises(ArtifactError, match=re.escape(str(file))) as caught:
            use(version)
        assert "train again" in str(caught.value)


def test_a_changed_metric_in_the_card_is_found(registry: Registry, linear: Pipeline) -> None:
    version = registry.save(trained(linear, metrics={"f1_macro": 0.41}), config_text=CONFIG)
    file = registry.folder / version / "card.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.41", "0.91"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="does not match its own sha256"):
        registry.load(version)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_planted_pickle_is_never_opened(
    registry: Registry, linear: Pipeline, tmp_path: Path, name: str
) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    planted, mark = registry.folder / version / name, tmp_path / "mark"
    planted.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ArtifactError, match="was changed after it was saved"):
        registry.load(version)
    assert not mark.exists()
    joblib.load(planted)
    assert mark.exists()


def test_nothing_is_unpickled_before_all_is_verified(
    registry: Registry, boosted: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.save(trained(boosted), config_text=CONFIG)
    (registry.folder / version / "booster.ubj").write_bytes(b"other")
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(ArtifactError, match=r"booster\.ubj"):
        registry.load(version)


def test_a_file_that_is_not_in_the_card_is_refused(registry: Registry, linear: Pipeline) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    place = registry.folder / version
    (place / ".nfs0001").touch()
    registry.load(version)
    (place / "booster.ubj").write_bytes(b"planted")
    with pytest.raises(ArtifactError, match=r"holds \['booster\.ubj'\]"):
        registry.load(version)


@pytest.mark.parametrize("name", ["../outside.joblib", "/outside.joblib", "a/b", "..", ""])
def test_a_card_lists_files_of_its_own_folder_only(
    registry: Registry, linear: Pipeline, name: str
) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    place = registry.folder / version
    (registry.folder / "outside.joblib").write_bytes(b"")
    digests = {file: module._digest((place / file).read_bytes()) for file in FILES}
    reseal(place, files={**digests, name: module._digest(b"")})
    with pytest.raises(ArtifactError, match="must list files of its own folder"):
        registry.load(version)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"name": "sentiment"', "\x00"])
def test_a_card_that_is_none(registry: Registry, linear: Pipeline, content: str) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    (registry.folder / version / "card.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"card\.json"):
        registry.load(version)


def test_a_card_must_list_the_pipelines(registry: Registry, linear: Pipeline) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    reseal(registry.folder / version, files={})
    with pytest.raises(ArtifactError, match=r"lacks .*model_pipeline"):
        registry.load(version)


def test_a_renamed_folder_is_refused(registry: Registry, linear: Pipeline) -> None:
    version = registry.save(trained(linear), config_text=CONFIG)
    other = "20200101T000000Z-0000"
    (registry.folder / version).rename(registry.folder / other)
    with pytest.raises(
        ArtifactError, match=f"must be the card of sentiment {other}, got .*{version}"
    ):
        registry.load(other)


def test_a_booster_that_is_none_is_refused(registry: Registry, boosted: Pipeline) -> None:
    version = registry.save(trained(boosted), config_text=CONFIG)
    place = registry.folder / version
    (place / "booster.ubj").write_bytes(b"not a booster")
    reseal(place)
    with pytest.raises(ArtifactError, match=r"Cannot read .*booster\.ubj"):
        registry.load(version)


# Other libraries


@pytest.mark.parametrize(
    ("library", "version"),
    [
        ("python", "2.7.18"),
        ("numpy", "1.26.4"),
        ("scikit-learn", "0.24.2"),
        ("xgboost", "2.1.0"),
        ("batch_nlp", "0.0.9"),
    ],
)
def test_other_majors_are_refused_by_name(
    registry: Registry, linear: Pipeline, library: str, version: str
) -> None:
    saved = registry.save(trained(linear), config_text=CONFIG)
    place = registry.folder / saved
    reseal(place, libraries=module.installed_libraries() | {library: version})
    with pytest.raises(ArtifactError, match=f"{library} {version} .*train again"):
        registry.load(saved)


def test_other_minors_and_libraries_outside_the_pickles_pass(
    registry: Registry, linear: Pipeline
) -> None:
    saved = registry.save(trained(linear), config_text=CONFIG)
    others = {"python": "3.99.0", "joblib": "1.0", "pyarrow": "1.0", "torch": "1.0"}
    reseal(registry.folder / saved, libraries=module.installed_libraries() | others)
    assert registry.load(saved).version == saved


def test_another_release_of_scikit_learn_is_refused(
    registry: Registry, linear: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.9.99")
        version = registry.save(trained(linear), config_text=CONFIG)
    with pytest.raises(ArtifactError, match=r"Install scikit-learn 1\.9\.99, or train again"):
        registry.load(version)


@pytest.mark.parametrize("gone", ["module", "class"])
def test_code_that_is_gone_is_said(
    registry: Registry, linear: Pipeline, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    vanishing = types.ModuleType("vanishing")

    class Step(TransformerMixin, BaseEstimator):
        __module__ = "vanishing"
        __qualname__ = "Step"

    vanishing.Step = Step  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "vanishing", vanishing)
        version = registry.save(Artifact(Pipeline([("step", Step())]), linear), config_text=CONFIG)
        if gone == "class":
            del vanishing.Step
            with pytest.raises(ArtifactError, match=r"needs code .*Step"):
                registry.load(version)
    if gone == "module":
        with pytest.raises(ArtifactError, match=r"needs code .*vanishing"):
            registry.load(version)


# Which version is in use


def test_nothing_in_use(registry: Registry, linear: Pipeline) -> None:
    says = f"No model is in use in {registry.folder}: run pipeline=training first"
    for _ in range(2):
        for use in (registry.current, registry.load):
            with pytest.raises(ArtifactError, match=re.escape(says)):
                use()
        registry.save(trained(linear), config_text=CONFIG)


def test_a_model_saved_and_not_promoted_leaves_the_old_one_in_use(
    registry: Registry, linear: Pipeline, boosted: Pipeline
) -> None:
    old = registry.save(trained(linear), config_text=CONFIG)
    registry.promote(old)
    new = registry.save(trained(boosted), config_text=CONFIG)
    assert registry.current() == old
    assert isinstance(registry.load().model_pipeline[-1], LogisticRegression)
    registry.promote(new)
    assert registry.current() == new == registry.load().version
    assert (registry.folder / "current").read_bytes() == f"{new}\n".encode()
    assert {path.name for path in registry.folder.iterdir()} == {
        *(old, new, "current", "ledger.jsonl", ".lock")
    }


def test_promotion_that_fails_leaves_the_old_one_in_use(
    registry: Registry, linear: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (registry.save(trained(linear), config_text=CONFIG) for _ in range(2))
    registry.promote(old)

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no space"):
            registry.promote(new)
    assert registry.current() == old
    assert {path.name for path in registry.folder.iterdir()} == {
        *(old, new, "current", "ledger.jsonl", ".lock")
    }


def test_a_save_that_fails_leaves_nothing(
    registry: Registry, linear: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpicklable = Pipeline([("same", FunctionTransformer(lambda frame: frame))])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        registry.save(Artifact(unpicklable, linear), config_text=CONFIG)
    assert registry.versions() == []
    assert [path.name for path in registry.folder.iterdir()] == [".lock"]


def test_versions_are_whole_ones_in_order_of_time(
    registry: Registry, linear: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.versions() == []

    class Clock(datetime):
        seconds = 9

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            cls.seconds += 1
            return datetime(2026, 11, 23, 13, 5, cls.seconds, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Clock)
    saved = [registry.save(trained(linear), config_text=CONFIG) for _ in range(3)]
    (registry.folder / ".20261123T130501Z-1a2b.tmp").mkdir()
    (registry.folder / "notes").mkdir()
    (registry.folder / "20261123T130501Z-1a2b").touch()
    assert registry.versions() == saved
    assert re.fullmatch(r"20261123T130510Z-[0-9a-f]{4}", saved[0])


@pytest.mark.parametrize(
    "version", ["", ".", "..", "../x", "a/b", "/etc", "20261123T130501Z-1a2b/..", "x"]
)
def test_names_that_lead_elsewhere_are_refused(registry: Registry, version: str) -> None:
    registry.folder.mkdir(parents=True)
    for use in (registry.load, registry.promote):
        with pytest.raises(ArtifactError, match="must look like"):
            use(version)
    (registry.folder / "current").write_text(f"{version}\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"current names no model .*must look like"):
        registry.load()


def test_a_version_that_is_not_there(registry: Registry, linear: Pipeline) -> None:
    there = registry.save(trained(linear), config_text=CONFIG)
    gone = "20200101T000000Z-0000"
    with pytest.raises(ArtifactError, match=f"no version {gone} .*{there}"):
        registry.load(gone)
    with pytest.raises(ArtifactError, match=f"no version {gone}"):
        registry.promote(gone)
    (registry.folder / "current").write_text(f"{gone}\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"current names no model .*no version {gone}"):
        registry.current()


def test_a_current_that_is_no_text(registry: Registry) -> None:
    registry.folder.mkdir(parents=True)
    (registry.folder / "current").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="Cannot read which model is in use"):
        registry.current()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_a_models_name_is_a_plain_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="model's name must be"):
        Registry(tmp_path, name)


# The ledger


@pytest.fixture(scope="module")
def prior() -> Pipeline:
    return Pipeline([("prior", DummyClassifier())]).fit([[0.0]] * 3, [0, 1, 2])


@pytest.fixture
def three(registry: Registry, prior: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three versions, the oldest first, all put in use in turn."""
    digits = iter(("0001", "0002", "0003"))
    monkeypatch.setattr(module.secrets, "token_hex", lambda _: next(digits))
    made = []
    for number in range(3):
        made.append(registry.save(trained(prior), config_text=CONFIG))
        registry.promote(made[-1], why=f"run {number}")
    monkeypatch.undo()
    return made


def told(registry: Registry) -> list[tuple[str, str, str | None]]:
    return [(each["event"], each["version"], each["previous"]) for each in registry.ledger()]


def test_the_ledger_says_what_was_in_use_when(registry: Registry, three: list[str]) -> None:
    first, second, third = three
    assert told(registry) == [
        ("promoted", first, None),
        ("promoted", second, first),
        ("promoted", third, second),
    ]
    assert [each["why"] for each in registry.ledger()] == ["run 0", "run 1", "run 2"]
    times = [datetime.fromisoformat(each["time"]) for each in registry.ledger()]
    assert times == sorted(times)
    assert registry.previous() == second


def test_a_rollback_is_a_line_like_any_other(registry: Registry, three: list[str]) -> None:
    first, second, third = three
    assert registry.roll_back() == second == registry.current()
    assert registry.roll_back(first, why="the second is bad too") == first == registry.current()
    assert told(registry)[3:] == [("rolled back", second, third), ("rolled back", first, second)]
    assert registry.ledger()[-1]["why"] == "the second is bad too"


def test_nothing_to_roll_back_to(registry: Registry, prior: Pipeline) -> None:
    version = registry.save(trained(prior), config_text=CONFIG)
    registry.promote(version)
    registry.promote(version)
    with pytest.raises(ArtifactError, match="was in use before the one in use"):
        registry.roll_back()


def test_a_rollback_to_what_is_damaged_is_refused(registry: Registry, three: list[str]) -> None:
    (registry.folder / three[0] / "model_pipeline.joblib").write_bytes(b"else")
    before = registry.ledger()
    with pytest.raises(ArtifactError, match="was changed after it was saved"):
        registry.roll_back(three[0])
    assert (registry.current(), registry.ledger()) == (three[2], before)


def test_a_rollback_to_what_other_libraries_made_is_refused(
    registry: Registry, three: list[str]
) -> None:
    place = registry.folder / three[0]
    libraries = json.loads((place / "card.json").read_text(encoding="utf-8"))["libraries"]
    reseal(place, libraries={**libraries, "numpy": "1.0.0"})
    with pytest.raises(ArtifactError, match="other major versions"):
        registry.roll_back(three[0])
    assert registry.current() == three[2]


@pytest.mark.parametrize("how", ["killed", "by hand", "an older program"])
def test_what_the_ledger_missed_is_added(registry: Registry, three: list[str], how: str) -> None:
    first, second, third = three
    if how == "killed":  # between the switch and the line
        registry._write_current(second)
    elif how == "by hand":
        (registry.folder / "current").write_text(second)
    else:
        (registry.folder / "current").write_text(second)
        (registry.folder / "ledger.jsonl").unlink()
    registry.promote(first)
    last = third if how != "an older program" else None
    assert told(registry)[-2:] == [("found", second, last), ("promoted", first, second)]
    assert registry.previous() == second


def test_half_a_line_is_cut_off(registry: Registry, three: list[str]) -> None:
    path = registry.folder / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(registry.ledger()) == 2
    registry.promote(three[0])
    assert told(registry)[-2:] == [("found", three[2], three[1]), ("promoted", three[0], three[2])]


def test_a_ledger_that_was_written_over_is_told(registry: Registry, three: list[str]) -> None:
    (registry.folder / "ledger.jsonl").write_text("no json\n")
    with pytest.raises(ArtifactError, match=r"ledger\.jsonl must hold .* line 1 is none"):
        registry.promote(three[0])
    assert registry.current() == three[2]


def test_what_a_killed_run_left_is_swept(registry: Registry, three: list[str]) -> None:
    (registry.folder / ".20261123T130501Z-1a2b.tmp").mkdir()
    (registry.folder / ".20261123T130501Z-1a2b.tmp" / "half.joblib").write_bytes(b"half")
    (registry.folder / ".current.1234abcd.tmp").write_text("half")
    registry.promote(three[0])
    assert not list(registry.folder.glob("*.tmp"))


PROMOTES = """
import sys
from pathlib import Path
from batch_nlp.artifact import Registry
registry = Registry(Path(sys.argv[1]), "sentiment")
versions = registry.versions()
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    registry.promote(versions[number % len(versions)], why=f"{sys.argv[2]}-{number}")
"""


def promoted_at_once(registry: Registry, *, processes: int, each: int) -> None:
    """Have several processes promote versions at the same time."""
    arguments = [sys.executable, "-c", PROMOTES, str(registry.folder.parent)]
    running = [
        subprocess.Popen(
            [*arguments, str(number), str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for child in running:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in running:
        child.communicate("go\n")
        assert child.returncode == 0
    lines = registry.ledger()[3:]
    assert sorted(line["why"] for line in lines) == sorted(
        f"{process}-{number}" for process in range(processes) for number in range(each)
    )
    assert {line["event"] for line in lines} == {"promoted"}
    # Each line takes over from the one before it, and the last one is in use.
    chain = [line["version"] for line in registry.ledger()]
    assert [line["previous"] for line in registry.ledger()] == [None, *chain[:-1]]
    assert registry.current() == chain[-1]


def test_promotions_at_once_lose_no_line(registry: Registry, three: list[str]) -> None:
    promoted_at_once(registry, processes=2, each=5)


@pytest.mark.faults
def test_eight_processes_promote_fifty_times_each(
    registry: Registry, three: list[str], tally: Counter[str]
) -> None:
    promoted_at_once(registry, processes=8, each=50)
    tally["promotions by eight processes"] += 400


# Pruning


def test_the_oldest_go_but_not_those_in_use(registry: Registry, three: list[str]) -> None:
    first, second, third = three
    registry.roll_back(first)  # in use: the first; before it: the third
    assert registry.prune(1, why="room") == [second]
    assert registry.versions() == [first, third]
    assert told(registry)[-1] == ("pruned", second, None)
    assert registry.ledger()[-1]["why"] == "room"
    assert registry.prune(1) == []
    assert registry.roll_back() == third
    with pytest.raises(InputError, match="At least the newest"):
        registry.prune(0)


@pytest.mark.parametrize("half", [False, True])
def test_a_removal_that_was_cut_off_is_ended(
    registry: Registry, three: list[str], monkeypatch: pytest.MonkeyPatch, *, half: bool
) -> None:
    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(*((module.shutil, "rmtree") if half else (Registry, "_sweep")), killed)
    if half:
        with pytest.raises(SystemExit):
            registry.prune(1)
    else:
        (registry.folder / three[0]).rename(registry.folder / f".{three[0]}.pruned")
    monkeypatch.undo()
    assert registry.versions() == three[1:]
    registry.promote(three[2])
    assert not list(registry.folder.glob(".*pruned"))
    assert [event for event, *_ in told(registry)].count("pruned") == 1


# What must not run


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("file", ["feature_pipeline.joblib", "model_pipeline.joblib"])
@pytest.mark.parametrize("how", ["planted", "swapped", "planted with its digest"])
def test_a_planted_pickle_is_not_run(
    registry: Registry, three: list[str], tmp_path: Path, file: str, how: str
) -> None:
    place, mark = registry.folder / three[2], tmp_path / "it ran"
    if how == "swapped":
        other = FILES[1] if file == FILES[0] else FILES[0]
        (place / file).write_bytes((place / other).read_bytes())
    else:
        joblib.dump(Malicious(mark), place / file)
    if how == "planted with its digest":
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        card["files"][file] = module._digest((place / file).read_bytes())
        (place / "card.json").write_text(json.dumps(card), encoding="utf-8")
    for use in (registry.load, lambda: registry.promote(three[2]), registry.roll_back):
        if use == registry.roll_back:
            (registry.folder / "current").write_text(three[1])
            use = lambda: registry.roll_back(three[2])  # noqa: E731, PLW2901
        with pytest.raises(ArtifactError, match="was changed after it was saved"):
            use()
    assert not mark.exists()
    joblib.load(place / file)  # what would have happened
    assert mark.exists() == (how != "swapped")


# Signing

KEY = "a key that nobody else has"


@pytest.fixture
def signed(registry: Registry, prior: Pipeline, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BATCH_NLP_SIGNING_KEY", KEY)
    version = registry.save(trained(prior), config_text=CONFIG)
    registry.promote(version)
    return version


def test_a_signed_model_is_read(registry: Registry, signed: str) -> None:
    assert registry.load().version == signed
    for path in registry.folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_a_signed_model_is_read_without_a_key_too(
    registry: Registry, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCH_NLP_SIGNING_KEY")
    assert registry.load().version == signed


@pytest.mark.parametrize("how", ["unsigned", "other key", "resealed", "other model's", "empty"])
def test_what_is_not_signed_with_the_key_is_refused(
    *,
    registry: Registry,
    prior: Pipeline,
    signed: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
) -> None:
    place, mark = registry.folder / signed, tmp_path / "it ran"
    if how == "unsigned":
        (place / "card.sig").unlink()
    elif how == "other key":
        monkeypatch.setenv("BATCH_NLP_SIGNING_KEY", "quite another key, and as long")
    elif how == "resealed":  # by who can write to the folder and knows this program
        joblib.dump(Malicious(mark), place / "model_pipeline.joblib")
        reseal(place)
    elif how == "other model's":
        other = registry.save(trained(prior, seed=1), config_text=CONFIG)
        (place / "card.sig").write_bytes((registry.folder / other / "card.sig").read_bytes())
    else:
        (place / "card.sig").write_bytes(b"")
    for use in (registry.load, lambda: registry.promote(signed)):
        with pytest.raises(ArtifactError, match=r"not signed|signed with another key") as caught:
            use()
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)
    assert not mark.exists()


def test_a_short_key_is_refused(
    registry: Registry, prior: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_NLP_SIGNING_KEY", "secret")
    with pytest.raises(InputError, match="at least 16 characters") as caught:
        registry.save(trained(prior), config_text=CONFIG)
    assert "secret" not in str(caught.value)
    assert registry.versions() == []


# Modes


def test_nobody_else_may_change_a_model_whatever_the_umask(
    registry: Registry, prior: Pipeline
) -> None:
    before = os.umask(0)
    try:
        registry.promote(registry.save(trained(prior), config_text=CONFIG))
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o022 for path in registry.folder.rglob("*")}
    assert len(found) == 8
    assert set(found.values()) == {0}
    assert not registry.folder.stat().st_mode & 0o022


def test_a_strict_umask_is_kept(registry: Registry, prior: Pipeline) -> None:
    before = os.umask(0o077)
    try:
        registry.promote(registry.save(trained(prior), config_text=CONFIG))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in registry.folder.rglob("*")} == {0}


def test_what_it_was_trained_on_comes_back(registry: Registry, prior: Pipeline) -> None:
    prints = np.array([1, 5, 2**64 - 1], dtype=np.uint64)
    artifact = dataclasses.replace(trained(prior), trained_on=prints)
    loaded = registry.load(registry.save(artifact, config_text=CONFIG))
    assert loaded.trained_on is not None
    assert np.array_equal(loaded.trained_on, prints)
