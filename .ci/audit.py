"""Hold the installed packages against the OSV database of known vulnerabilities.

Ends with 1 where a vulnerability is found or the audit itself breaks. Where the database cannot
be reached, as without a network, it says so and ends with 0: nothing is known then.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 120
UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError", "ProxyError")


def main(program: str) -> int:
    """Run pip-audit (`program`), say what came of it, and give the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "audit.json"
        command = [program, "--local", "--skip-editable", "--progress-spinner", "off"]
        command += ["--vulnerability-service", "osv", "--timeout", "10"]
        command += ["--format", "json", "--output", str(report)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return not_reached(f"no answer within {SECONDS} seconds")
        if report.is_file():
            return judge(json.loads(report.read_text(encoding="utf-8"))["dependencies"])
    lines = ended.stderr.strip().splitlines() or ["no output"]
    if any(name in lines[-1] for name in UNREACHABLE):
        return not_reached(lines[-1])
    sys.stderr.write(f"{ended.stderr}\nDependency audit: pip-audit broke: {lines[-1]}\n")
    return 1


def judge(dependencies: list[dict[str, object]]) -> int:
    """List what was found among the packages."""
    found = 0
    for package in dependencies:
        vulnerabilities = package.get("vulns") or []
        assert isinstance(vulnerabilities, list)
        for each in vulnerabilities:
            found += 1
            fixed = ", ".join(each.get("fix_versions") or []) or "no version yet"
            print(f"{package['name']} {package['version']}: {each['id']}, mended in {fixed}")
    skipped = [str(package["name"]) for package in dependencies if "skip_reason" in package]
    print(
        f"Dependency audit: {found} known vulnerabilities in {len(dependencies) - len(skipped)} "
        f"packages; not looked at: {', '.join(skipped) or 'none'}."
    )
    return int(found > 0)


def not_reached(why: str) -> int:
    """Say that nothing is known."""
    print(f"Dependency audit: NOT DONE, the OSV database cannot be reached ({why}).")
    return 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.executable).with_name("pip-audit"))))
