"""The dependency audit: a finding fails, a database out of reach does not."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"
FINE = {"name": "numpy", "version": "2.2", "vulns": []}
BAD = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "own", "skip_reason": "not on the index"}

Audit = Callable[..., int]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Run the audit with a pip-audit that reports this, or fails with that."""

    def run(report: list[Any] | None = None, *, error: str = "", status: int = 0) -> int:
        content = None if report is None else json.dumps({"dependencies": report})
        fake = tmp_path / "pip-audit"
        fake.write_text(
            f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n"
            f"content, error = {content!r}, {error!r}\n"
            "if content: Path(sys.argv[sys.argv.index('--output') + 1]).write_text(content)\n"
            f"sys.stderr.write(error)\nsys.exit({status})\n"
        )
        fake.chmod(0o755)
        status_given: int = runpy.run_path(str(SCRIPT))["main"](str(fake))
        return status_given

    return run


def test_nothing_found(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit([FINE, SKIPPED]) == 0
    assert capsys.readouterr().out == (
        "Dependency audit: 0 known vulnerabilities in 1 packages; not looked at: own.\n"
    )


def test_a_finding_fails(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit([FINE, BAD], status=1) == 1
    assert "old 1.0: PYSEC-1, mended in 1.1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ConnectionError", "ReadTimeout"])
def test_no_network_is_said_and_does_not_fail(
    audit: Audit, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert audit(error=f"Traceback\nrequests.exceptions.{name}: api.osv.dev", status=1) == 0
    assert "Dependency audit: NOT DONE" in capsys.readouterr().out


@pytest.mark.parametrize("error", ["", "Traceback\nKeyError: 'vulns'"])
def test_an_audit_that_breaks_fails(audit: Audit, error: str) -> None:
    assert audit(error=error, status=1) == 1
