"""Parley beside other ways to stream a model's answer to users, all behind the same upstream, in one run.

    python benchmarks/peers.py            Linux, two cores, 4 GiB; about 25 minutes, three with --quick
    python benchmarks/peers.py --quick --only parley,fastapi --rounds 1

Each system is a process of its own from a virtual environment of its own, made under .venv-bench when it is missing.
The upstream and the clients share one core, the server under test has the other; the systems take turns under each
load, and the figures are medians over the rounds. Compare within one run only.
"""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from documents import write_between
from streaming.comparison import compare, loads
from streaming.comparison_tables import text
from streaming.peers import CANDIDATES


def main() -> None:
    """Measure and print."""
    options = _options()
    chosen = loads(quick=options.quick)
    busy = os.getloadavg()[0]
    found = compare(options.only, chosen, options.rounds)
    packages = ("grpcio", "protobuf", "uvloop", "parley-server")
    found.versions["parley"] = {name: version(name) for name in packages}
    size = "quick and too short to judge by, " if options.quick else ""
    run = f"{size}rounds: {options.rounds}; Python {platform.python_version()}"
    head = f"{datetime.now(UTC):%Y-%m-%d}, {run}; the machine's load before it: {busy:.1f}."
    table = f"{head}\n\n{text(found, chosen, options.only)}"
    print(table)
    if options.json:
        options.json.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
    if options.table:
        write_between(options.table, "bench-peers", table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short loads: to see that all works, not for figures")
    parser.add_argument("--only", type=_names, default=list(CANDIDATES), help=f"some of {','.join(CANDIDATES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the tables there, between the markers")
    return parser.parse_args()


def _names(words: str) -> list[str]:
    names = words.split(",")
    if unknown := set(names) - CANDIDATES.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    main()
