"""The contest of this program and its rivals: ``make benchmark-quality``.

python -m benchmarks.quality --quick
python -m benchmarks.quality --only "TF-IDF + balanced LR" "ours: default" --seeds 3
python -m benchmarks.quality --data new.csv --text message --rating stars
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import ours, report
from benchmarks.quality.data import further_sets, shared_sets, splits_of, synthetic_set
from benchmarks.quality.measure import ROOT, Bench, FailedError, OutOfTimeError, schedule
from benchmarks.quality.rivals import BASELINE, RIVALS, Rival

MINUTES, QUICK_MINUTES = 38, 4
QUICK_ROWS, QUICK_FOLDS = 1200, 2
RESERVE = 20
"""Seconds kept for the report."""


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="light rivals, small sets, two folds")
    add("--only", nargs="+", metavar="NAME", help="rivals whose names contain one of these")
    add("--list", action="store_true", help="list the rivals")
    add("--every-split", action="store_true", help="heavy rivals too meet every split of a seed")
    add("--seeds", type=int, help="how many seeds the light rivals meet (2; quick: 1)")
    add("--minutes", type=float, help="for everything (38; quick: 4)")
    add("--search-seconds", type=float, default=60, help="of an automatic search (60)")
    add("--fresh", action="store_true", help="make results again that are there")
    add("--data", action="append", default=[], metavar="FILE", help="further CSV, never seen")
    add("--text", action="append", default=[], metavar="COLUMN", help="its texts (text)")
    add(
        "--rating",
        action="append",
        default=[],
        metavar="COLUMN",
        help="1 to 5, or classes (rating)",
    )
    add("--shared", type=Path, default=ROOT.parent / "shared" / "data", help="real data")
    add("--build", type=Path, default=ROOT / "build" / "benchmark", help="what need not be kept")
    add("--output", type=Path, help="of the report (benchmarks/quality/results; quick: the build)")
    return parser.parse_args(arguments)


def chosen(only: Sequence[str] | None) -> list[Rival]:
    """Give the rivals whose names contain one of some texts, and always the baseline."""
    every = [*RIVALS.values(), *ours.entries().values()]
    if not only:
        return every
    unknown = [
        part for part in only if not any(part.lower() in each.name.lower() for each in every)
    ]
    if unknown:
        message = f"--only must name rivals; none has {unknown} in its name. --list shows them."
        raise SystemExit(message)
    return [
        each
        for each in every
        if each.name == BASELINE or any(part.lower() in each.name.lower() for part in only)
    ]


def main(arguments: Sequence[str]) -> None:
    given = options(arguments)
    rivals = chosen(given.only)
    if given.list:
        print("\n".join(f"{each.weight:7} {each.takes:10} {each.name}" for each in rivals))
        return
    minutes = given.minutes or (QUICK_MINUTES if given.quick else MINUTES)
    seeds = given.seeds or (1 if given.quick else 2)
    if given.quick:
        rivals = [each for each in rivals if each.weight == "light"]
    sets = [
        *further_sets(given.data, given.text or ["text"], given.rating or ["rating"]),
        *shared_sets(given.shared),
        synthetic_set(given.build / "synthetic"),
    ]
    if given.quick:
        sets = [each.first(QUICK_ROWS) for each in sets]
    folds = {"n_folds": QUICK_FOLDS} if given.quick else {}
    splits = [split for seed in range(seeds) for split in splits_of(sets, seed, **folds)]
    # Ended from outside, it takes its worker along, as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bench = Bench(given.build, minutes * 60 - RESERVE, given.search_seconds, fresh=given.fresh)
    pairs = schedule(rivals, splits, every_split=given.every_split)
    results, missing = compete(bench, pairs)
    output = given.output or (
        given.build / "quick" if given.quick else ROOT / "benchmarks" / "quality" / "results"
    )
    if not results:
        sys.exit("Nothing could be measured.")
    settings = f"{'quick, ' if given.quick else ''}{seeds} seed{'s' if seeds > 1 else ''}"
    settings += f", automatic searches {given.search_seconds:.0f} s"
    print("\n" + report.write(results, missing, output, settings=settings))


def compete(
    bench: Bench, pairs: Sequence[tuple[Rival, Any]]
) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Run what there is time for; Ctrl-C ends it with what is done so far."""
    results: list[dict[str, Any]] = []
    missing: list[tuple[str, str, str]] = []
    for place, (rival, split) in enumerate(pairs, start=1):
        where = f"{place}/{len(pairs)} {rival.name} on {split.group}, split {split.number}"
        try:
            result = bench.run(rival, split)
        except (FailedError, OutOfTimeError) as error:
            missing.append((rival.name, split.group, str(error)))
            print(f"{where}: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            missing += [(one.name, each.group, "interrupted") for one, each in pairs[place - 1 :]]
            break
        else:
            results.append(result)
            print(
                f"{where}: F1 weighted {result['f1_weighted']:.3f}, "
                f"macro {result['f1_macro']:.3f}, fit {result['fit_seconds']:.1f} s",
                file=sys.stderr,
            )
    return results, missing


if __name__ == "__main__":
    main(sys.argv[1:])
