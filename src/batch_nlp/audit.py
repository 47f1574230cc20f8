"""A finished run held against the files that it left behind, and against nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from loguru import logger

from batch_nlp.artifact import CARD_FILE, CURRENT_FILE, Registry
from batch_nlp.errors import ArtifactError, BatchNlpError, InputError
from batch_nlp.kernel import fields_from_json
from batch_nlp.records import RECORD_FILE, RunRecord, record_digest
from batch_nlp.rows.counts import Counts, totals
from batch_nlp.rows.extract import Engine
from batch_nlp.schemas import (
    EXPLANATIONS,
    IMPORTANCES,
    LABELS,
    PREDICTIONS,
    REJECTED,
    text_schema,
    typed_schema,
)
from batch_nlp.settings import Paths
from batch_nlp.store import SNAPSHOT
from batch_nlp.tables import file_digest, read_csv, write_json

REPORT_FILE = "audit.json"

_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
_PROBABILITIES = tuple(f"proba_{label}" for label in LABELS)

_INTERMEDIATE = "data/02_intermediate"
# A folder named like source=a is no column.
_FROM_FILE = "read_parquet(${}, hive_partitioning = false)"
_SNAPSHOTS = "data/04_feature/snapshots/"
_MANIFEST = "data/04_feature/manifest.json"
_MODEL_INPUT = "data/05_model_input"
_INFERENCE = "data/09_inference"


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes
    ----------
    check : str
        What was looked at, such as ``output`` or ``counts``.
    what : str
        The file, the stage, or the files compared.
    verdict : {"holds", "wrong", "note"}
        A note is worth knowing and no damage, such as a file that a later run has replaced.
    detail : str
        What is wrong or worth knowing.
    """

    check: str
    what: str
    verdict: Literal["holds", "wrong", "note"]
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """Which run is looked into.

    Parameters
    ----------
    run_id : str, optional
        The run; None takes the last that was finished and left something behind. An audit is
        never taken.
    """

    run_id: str | None = None

    def __post_init__(self) -> None:
        if self.run_id is not None and not _RUN_ID.fullmatch(self.run_id):
            message = (
                f"audit.run_id must look like 20261124T130501Z-1a2b or be null, got "
                f"{self.run_id!r}."
            )
            raise InputError(message)

    def run(self, *, paths: Paths, engine: Engine, record: RunRecord) -> list[Finding]:
        """Check all that the files of a run can tell.

        Parameters
        ----------
        paths, engine : Paths, Engine
            Where, and within which limits tables are read.
        record : RunRecord
            Of the audit itself; takes which run was audited and what came out.

        Returns
        -------
        list of Finding

        Raises
        ------
        InputError
            If there is no such run, or it was not finished.
        BatchNlpError
            If anything is wrong; the report is written all the same.
        """
        records = _read_records(record.folder, without=record.run_id)
        audited = self._chosen(records, record.folder)
        audit = _Audit(
            audited,
            [each for each in records if _order(each) > _order(audited)],
            root=record.root,
            registry=_registry(paths.models, record.folder / audited["run_id"]),
        )
        with (
            TemporaryDirectory(dir=record.path, prefix=".") as spill,
            engine.connect(spill=Path(spill)) as db,
        ):
            found = list(audit.findings(db))
        counted = Counter(each.verdict for each in found)
        summary = {name: counted[name] for name in ("holds", "wrong", "note")}
        report = paths.layer("08_reporting") / REPORT_FILE
        about = {"run_id": audited["run_id"], "pipeline": audited["pipeline"], **summary}
        write_json(report, {**about, "findings": [asdict(each) for each in found]})
        record.produced(report)
        record.facts["audit"] = about
        logger.info("Audit of run {}:\n{}", audited["run_id"], table(found))
        wrong = [each for each in found if each.verdict == "wrong"]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            message = (
                f"Run {audited['run_id']} is not as it was left: {wrong[0].what}: "
                f"{wrong[0].detail}{more}. See {report}."
            )
            raise BatchNlpError(message)
        logger.info("All holds: {}", report)
        return found

    def _chosen(self, records: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
        if self.run_id is None:
            left = [each for each in records if _delivered(each)]
            if not left:
                message = f"There is no finished run to audit in {folder}."
                raise InputError(message)
            return left[-1]
        for each in records:
            if each["run_id"] == self.run_id:
                if each["exit_status"] is None:
                    message = f"audit.run_id: run {self.run_id} was not finished."
                    raise InputError(message)
                return each
        if (folder / self.run_id).is_dir():
            message = f"{folder / self.run_id / RECORD_FILE} cannot be read as a run record."
            raise BatchNlpError(message)
        message = f"audit.run_id: there is no run {self.run_id} in {folder}."
        raise InputError(message)


def table(findings: Sequence[Finding]) -> str:
    """Lay out how many findings each check has, and each that does not simply hold.

    Examples
    --------
    >>> print(table([Finding("output", "a.csv", "holds"), Finding("output", "b", "wrong", "gone")]))
    check         holds  wrong  notes
    output            1      1      0
    WRONG  b: gone
    """
    lines = [f"{'check':<12} {'holds':>6} {'wrong':>6} {'notes':>6}"]
    for check in dict.fromkeys(each.check for each in findings):
        counted = Counter(each.verdict for each in findings if each.check == check)
        numbers = " ".join(f"{counted[name]:>6}" for name in ("holds", "wrong", "note"))
        lines.append(f"{check:<12} {numbers}")
    lines += [
        f"{each.verdict.upper():<6} {each.what}: {each.detail}"
        for each in findings
        if each.verdict != "holds"
    ]
    return "\n".join(lines)


def _read_records(folder: Path, *, without: str) -> list[dict[str, Any]]:
    """Read the records of the runs, oldest first; what is no record is left out."""
    found = []
    for path in folder.glob(f"*/{RECORD_FILE}"):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, OSError):
            continue
        if (
            isinstance(content, dict)
            and content.get("run_id") == path.parent.name != without
            and content.get("pipeline") != "audit"
            and "outputs" in content
        ):
            found.append({**content, "_written": path.stat().st_mtime_ns})
    return sorted(found, key=_order)


def _order(record: Mapping[str, Any]) -> tuple[str, int]:
    """Sort runs by the second in which they began, and within it by when they ended."""
    return record["run_id"].partition("-")[0], record["_written"]


def _delivered(record: Mapping[str, Any]) -> bool:
    own = f"data/08_reporting/runs/{record['run_id']}/"
    left = [
        name
        for name in record["outputs"]
        if not name.startswith(own) and not name.endswith("rejected.parquet")
    ]
    return record["exit_status"] is not None and bool(left)


def _registry(models: Path, folder: Path) -> Registry:
    """Read from a run's configuration which model it was about."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_bytes())
        return Registry(models, str(config["model"]["name"]))
    except (OSError, yaml.YAMLError, TypeError, ValueError, KeyError, InputError):
        return Registry(models, "sentiment")  # the damage is found with the other outputs


@dataclass
class _Audit:
    """The checks of one run."""

    record: dict[str, Any]
    later: Sequence[dict[str, Any]]
    root: Path
    registry: Registry
    intact: set[str] = field(default_factory=set)

    def findings(self, db: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
        yield self._record()
        for name, told in self.record["outputs"].items():
            yield self._output(name, told)
        yield from self._conservation()
        for name in self._tables():
            yield from self._table(name, db)
        yield from self._model()
        yield from self._inputs()

    def _record(self) -> Finding:
        what = f"data/08_reporting/runs/{self.record['run_id']}/{RECORD_FILE}"
        content = {key: value for key, value in self.record.items() if key != "_written"}
        if content.get("sha256") != record_digest(content):
            return Finding("record", what, "wrong", "changed since it was written")
        return Finding("record", what, "holds")

    def _output(self, name: str, told: Mapping[str, Any]) -> Finding:
        """Hold a file against the digest of the last run that wrote it."""
        path, since = self.root / name, ""
        if name in self.record.get("removed", ()):
            told, since = {}, "removed by the run itself"
        for run in self.later:
            if name in run.get("removed", ()):
                told, since = {}, f"removed by run {run['run_id']}"
            elif name in run["outputs"]:
                told, since = run["outputs"][name], f"replaced by run {run['run_id']}"
        if not path.is_file():
            if not told:
                return Finding("output", name, "note", since)
            return Finding("output", name, "wrong", "gone")
        if path.name == CURRENT_FILE and path.parent == self.registry.folder:
            return self._in_use(name, path, told)
        size = path.stat().st_size
        if size != told.get("bytes"):
            detail = f"{told.get('bytes', 0):,} bytes were written, it has {size:,}"
        elif file_digest(path) != told["sha256"]:
            detail = "its bytes have changed"
        elif since:
            return Finding("output", name, "note", since)
        else:
            self.intact.add(name)
            return Finding("output", name, "holds")
        return Finding("output", name, "wrong", "; ".join([*filter(None, [since]), detail]))

    def _in_use(self, name: str, path: Path, told: Mapping[str, Any]) -> Finding:
        """Another version may have been put in use since; anything else is damage."""
        if file_digest(path) == told["sha256"]:
            return Finding("output", name, "holds")
        content = path.read_bytes()
        for version in self.registry.versions():
            if content == f"{version}\n".encode():
                return Finding("output", name, "note", f"version {version} is in use by now")
        return Finding("output", name, "wrong", "it names no version that is there")

    def _conservation(self) -> Iterator[Finding]:
        stages = self.record["stages"]
        for name, stage in stages.items():
            counts = Counts(**{key: stage[key] for key in Counts().to_dict()})
            yield self._adds_up(name, counts)
        for package, whole in totals(stages).items():
            yield self._adds_up(f"{package}, first stage to last", whole)

    @staticmethod
    def _adds_up(what: str, counts: Counts) -> Finding:
        try:
            counts.check(what)
        except RuntimeError as error:
            return Finding("stages", what, "wrong", str(error).removesuffix("."))
        return Finding("stages", what, "holds")

    def _tables(self) -> list[str]:
        """Give the tables that are this run's own and whose bytes are the ones it wrote."""
        return [name for name in self.record["outputs"] if name in self.intact and _rows_in(name)]

    def _table(self, name: str, db: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
        try:
            yield from self._schema(name)
            yield from self._counts(name, db)
            if name == f"{_INFERENCE}/predictions.parquet":
                yield from self._predictions(name, db)
        except (duckdb.Error, pa.ArrowException, OSError, InputError) as error:
            reason = str(error).split("\n", maxsplit=1)[0].removesuffix(".")
            yield Finding("table", name, "wrong", f"cannot be read: {reason}")

    def _schema(self, name: str) -> Iterator[Finding]:
        if not name.endswith(".parquet"):
            return
        declared = self._declared(name)
        if declared is None:
            return
        found = pq.read_schema(self.root / name)
        if found.equals(declared):
            yield Finding("schema", name, "holds")
        else:
            detail = f"its columns are {_shown(found)} and must be {_shown(declared)}"
            yield Finding("schema", name, "wrong", detail)

    def _declared(self, name: str) -> pa.Schema | None:
        # What a run that did not train leaves behind needs none of these.
        from batch_nlp.training.evaluate import METRICS  # noqa: PLC0415
        from batch_nlp.training.job import SPLIT, TEST_PREDICTIONS  # noqa: PLC0415
        from batch_nlp.training.selection import LEADERBOARD  # noqa: PLC0415

        fixed = {
            "predictions": PREDICTIONS,
            "rejected": REJECTED,
            "explanations_rejected": REJECTED,
            "explanations": EXPLANATIONS,
            "split": SPLIT,
            "test_predictions": TEST_PREDICTIONS,
            "importance": IMPORTANCES,
            "metrics": METRICS,
            "selection_leaderboard": LEADERBOARD,
        }
        if name.startswith(_SNAPSHOTS):
            return SNAPSHOT
        if name.startswith(f"{_INTERMEDIATE}/") and _MANIFEST in self.intact:
            fields = fields_from_json(self._json(_MANIFEST)["fields"])
            where = [REJECTED.field("source"), REJECTED.field("row")]
            fixed["validated"] = typed_schema(fields)
            fixed["extracted"] = pa.schema([*where, *text_schema(list(fields))])
        return fixed.get(Path(name).stem)

    def _json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / name).read_bytes())
        return content

    def _stage(self, name: str, nth: int | None = None) -> dict[str, Any] | None:
        """Give the last pass of a stage, or the one of a number from 0."""
        passes: list[dict[str, Any]] = [
            stage for each, stage in self.record["stages"].items() if each.split("#")[0] == name
        ]
        if nth is not None:
            return passes[nth] if nth < len(passes) else None
        return passes[-1] if passes else None

    def _counts(self, name: str, db: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
        rows = self._n_rows(name)
        told = self.record["outputs"][name].get("rows")
        if told is not None:
            yield _equal("rows", name, rows, told, "the run record")
        for what, found, expected, whose in self._expected(name, rows, db):
            yield _equal("counts", f"{name}{what}", found, expected, whose)

    def _n_rows(self, name: str) -> int:
        if name.endswith(".csv"):
            return sum(batch.num_rows for batch in read_csv(self.root / name))
        return int(pq.read_metadata(self.root / name).num_rows)

    def _expected(
        self, name: str, rows: int, db: duckdb.DuckDBPyConnection
    ) -> Iterator[tuple[str, int, int, str]]:
        """Say what the stages count of a table."""
        stage: dict[str, Any] | None
        delivered_by = {
            f"{_INTERMEDIATE}/extracted.parquet": "feature/deduplicate",
            f"{_INTERMEDIATE}/validated.parquet": "feature/validate",
            "data/03_primary/features.parquet": "feature/store",
            f"{_MODEL_INPUT}/split.parquet": "training/split",
            "data/07_model_output/test_predictions.parquet": "training/evaluate",
            f"{_INFERENCE}/new/held_out.parquet": "training/evaluate",
            f"{_INFERENCE}/predictions.parquet": "inference/predict",
            f"{_INFERENCE}/predictions.csv": "inference/predict",
        }
        if name in delivered_by and (stage := self._stage(delivered_by[name])):
            yield "", rows, stage["delivered"], delivered_by[name]
        if name.startswith(_SNAPSHOTS):
            snapshots = [each for each in self.record["outputs"] if each.startswith(_SNAPSHOTS)]
            if stage := self._stage("feature/store", snapshots.index(name)):
                yield "", rows, stage["delivered"], "feature/store"
        if name == f"{_MODEL_INPUT}/split.parquet" and (stage := self._stage("training/split")):
            tested = self._one(db, name, "count(*) FILTER (split = 'test')")
            yield ", rows of the test", tested, stage["test"], "training/split"
        if name == f"{_INFERENCE}/explanations.parquet" and (
            stage := self._stage("explain/explain")
        ):
            messages = self._one(db, name, "count(DISTINCT id)")
            yield ", messages", messages, stage["delivered"], "explain/explain"
        if steps := _rejecting(name):
            stages = [found for step in steps if (found := self._stage(step))]
            lost = sum(each["rejected"] + each["duplicates"] for each in stages)
            places = self._one(db, name, 'count(DISTINCT (source, "row"))')
            yield ", rows", places, lost, " and ".join(steps[-2:])

    def _one(self, db: duckdb.DuckDBPyConnection, name: str, what: str) -> int:
        found = db.execute(f"SELECT {what} FROM {_FROM_FILE.format(1)}", [str(self.root / name)])
        return int((found.fetchone() or (0,))[0])

    def _predictions(self, name: str, db: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
        label = " ".join(f"WHEN {i} THEN '{each}'" for i, each in enumerate(LABELS))
        total = " + ".join(_PROBABILITIES)
        inside = " AND ".join(f"{each} BETWEEN 0 AND 1" for each in _PROBABILITIES)
        # Predictions that were there already are those of the run that made them.
        made_by = self.record.get("taken_over", {}).get("inference", self.record["run_id"])
        rules = {
            "id is missing": "id IS NULL",
            "label is not that of the prediction": (
                f"label IS DISTINCT FROM CASE prediction {label} END"
            ),
            "probabilities are not from 0 to 1 with a sum of 1": (
                f"NOT coalesce({inside} AND abs({total} - 1) < 1e-6, false)"
            ),
            "run_id is of another run": f"run_id IS DISTINCT FROM '{made_by}'",
            "model_version is of another model": (
                f"model_version IS DISTINCT FROM '{self.record.get('model_version')}'"
            ),
        }
        for what, rule in rules.items():
            n = self._one(db, name, f"count(*) FILTER ({rule})")
            yield _none(name, n, what)
        repeated = self._one(db, name, "count(id) - count(DISTINCT id)")
        yield _none(name, repeated, "id is that of another row")
        rejected = f"{_INFERENCE}/rejected.parquet"
        if rejected in self.intact:
            # A duplicate has its id from the row that was delivered; a user is no message.
            both = db.execute(
                f"""
                SELECT count(DISTINCT id) FROM {_FROM_FILE.format(1)}
                WHERE "check" <> 'not a duplicate' AND NOT list_contains($3, source)
                AND id IN (SELECT id FROM {_FROM_FILE.format(2)})
                """,
                [
                    str(self.root / rejected),
                    str(self.root / name),
                    list(self.record.get("references", [])),
                ],
            ).fetchone()
            yield _none(f"{name} and {rejected}", int((both or (0,))[0]), "id is in both")

    def _model(self) -> Iterator[Finding]:
        version = self.record.get("model_version")
        if version is None:
            return
        place = f"models/{self.registry.name}/{version}"
        removed = {name for run in self.later for name in run.get("removed", ())}
        if f"{place}/{CARD_FILE}" in removed:
            yield Finding("model", place, "note", "removed by a later run")
            return
        try:
            self.registry.verify(version)
        except ArtifactError as error:
            yield Finding("model", place, "wrong", str(error).removesuffix("."))
        else:
            yield Finding("model", place, "holds")

    def _inputs(self) -> Iterator[Finding]:
        for fact in ("sources", "inference_sources"):
            for file, sha256 in self.record.get(fact, {}).items():
                if not Path(file).is_file():
                    yield Finding("input", file, "note", "gone since")
                elif file_digest(file) != sha256:
                    yield Finding("input", file, "note", "changed since")
                else:
                    yield Finding("input", file, "holds")


def _rows_in(name: str) -> bool:
    return name.endswith(".parquet") or name == f"{_INFERENCE}/predictions.csv"


def _rejecting(name: str) -> list[str]:
    """Name the stages whose rejected rows a file holds."""
    if name == f"{_MODEL_INPUT}/rejected.parquet":
        return ["training/label"]
    package = {
        f"{_INTERMEDIATE}/rejected.parquet": "feature",
        f"{_INFERENCE}/rejected.parquet": "inference",
        f"{_INFERENCE}/explanations_rejected.parquet": "explain",
    }.get(name)
    if package is None:
        return []
    steps = ("user", "business", "extract", "deduplicate", "validate")
    return [f"{package}/{step}" for step in steps]


def _equal(check: str, what: str, found: int, expected: int, whose: str) -> Finding:
    if found == expected:
        return Finding(check, what, "holds")
    return Finding(check, what, "wrong", f"{found:,} found, {expected:,} according to {whose}")


def _none(what: str, n: int, rule: str) -> Finding:
    if not n:
        return Finding("values", f"{what} ({rule})", "holds")
    return Finding("values", what, "wrong", f"{rule} in {n:,} rows")


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{each.name} {each.type}" for each in schema)
