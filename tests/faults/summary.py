"""Sum up what a `make test-faults` that passed has tried, as a table in Markdown."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main(folder: Path) -> None:
    """Print what the tests under `folder` counted."""
    counted: Counter[str] = Counter()
    for path in sorted(folder.glob("*.json")):
        counted.update(json.loads(path.read_text(encoding="utf-8")))
    lines = ["| tried | times |", "|---|---|"]
    lines += [f"| {what} | {times:,} |" for what, times in sorted(counted.items())]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
