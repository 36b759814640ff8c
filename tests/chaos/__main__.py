"""`make chaos`: a server is killed more than a thousand times; every promise about its runs is then held against it."""

import argparse
import asyncio
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# gRPC's core reads it when it is imported, and would tell of every connection that a kill has cut.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from chaos.campaign import Plan, Round, play
from chaos.report import Figures, table, write_into
from postgres_server import PostgresServer, running_postgres
from shim import why_not

ROUND_KILLS = 50
SHOWN = 20


@dataclass(frozen=True)
class Part:
    """So many kills of one kind, in rounds on fresh data."""

    name: str
    kills: int
    postgres: PostgresServer | None = None
    power_cuts: bool = False

    def plans(self, seed: str, users: int) -> Iterator[Plan]:
        """Yield the rounds."""
        for start in range(0, self.kills, ROUND_KILLS):
            kills = min(ROUND_KILLS, self.kills - start)
            yield Plan(kills, f"{seed} {self.name} {start}", users, self.postgres, self.power_cuts)


def main() -> int:
    """Run the campaign; return the exit code."""
    options = _options()
    # And so would the model's server.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    print(f"seed {options.seed}", flush=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres()) if options.postgres_kills else None
        parts = [
            Part("SQLite", options.sqlite_kills),
            Part("SQLite, power cuts", options.power_cuts, power_cuts=True),
            Part("PostgreSQL", options.postgres_kills, postgres),
        ]
        if options.power_cuts and (reason := why_not()):
            print(f"no power cuts: {reason}")
            parts.pop(1)
        return asyncio.run(_run([part for part in parts if part.kills], options))


async def _run(parts: Sequence[Part], options: argparse.Namespace) -> int:
    begun = time.monotonic()
    found = [Figures(part.name) for part in parts]
    for part, figures in zip(parts, found, strict=True):
        for plan in part.plans(options.seed, options.users):
            if time.monotonic() > begun + options.seconds:
                print(f"{part.name}: out of time after {figures.kills.total()} of {part.kills} kills")
                break
            figures.add(await _play(plan))
            print(", ".join(figures.row()), flush=True)
    text = table(found, options.seed, (time.monotonic() - begun) / 60)
    print(text)
    if options.table:
        write_into(options.table, text)
    return 1 if any(figures.violations for figures in found) else 0


async def _play(plan: Plan) -> Round:
    """Play a round; what went wrong stays on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="parley-chaos-"))
    played = await play(plan, folder)
    if not played.violations:
        await asyncio.to_thread(shutil.rmtree, folder)
        return played
    print(f"{len(played.violations)} violations with seed {plan.seed!r}; all of it is in {folder}")
    print("\n".join(played.violations[:SHOWN]), flush=True)
    played.history.write(folder / "history.jsonl")
    return played


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="make chaos")
    number = int(os.environ.get("PARLEY_CHAOS_KILLS", "1000"))
    parser.add_argument("--sqlite-kills", type=int, default=number)
    parser.add_argument("--postgres-kills", type=int, default=number * 3 // 10)
    parser.add_argument("--power-cuts", type=int, default=number * 3 // 10)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("PARLEY_CHAOS_SECONDS", "3600")))
    parser.add_argument("--seed", default=os.environ.get("PARLEY_CHAOS_SEED") or secrets.token_hex(4))
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--table", type=Path, help="a document to write the figures into")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
