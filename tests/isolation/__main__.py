"""`make canary`: the machine at full size on both engines, all planted leaks, and hundreds of users at once."""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

# gRPC's core reads it when it is imported, and would tell of every connection that a kill has cut.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from isolation.calibration import Caught, find_out
from isolation.crowd import Crowd, play_crowd
from isolation.interleaving import play_interleaved
from isolation.machine import run_machine
from isolation.plants import PLANTS
from isolation.report import write_plants
from isolation.stage import Stage, open_stage
from postgres_server import running_postgres

STEPS = 100


def main() -> int:
    """Run what is asked for; return the exit code."""
    options = _options()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    parts = {"plants": _plants, "machine": _machine, "interleaved": _interleaved, "crowd": _crowd}
    failed = [name for name in options.parts or parts if not asyncio.run(parts[name](options))]
    print("failed: " + ", ".join(failed) if failed else "nothing crossed")
    return 1 if failed else 0


async def _plants(options: argparse.Namespace) -> bool:
    found: list[Caught] = []
    for plant in [PLANTS[name] for name in options.plant or PLANTS]:
        with tempfile.TemporaryDirectory() as folder:
            found.append(await find_out(plant, Path(folder)))
        print(found[-1].row(), flush=True)
    if options.table:
        write_plants(options.table, found)
    return all(each.leak and not each.leak.startswith("fault") for each in found)


async def _machine(options: argparse.Namespace) -> bool:
    with running_postgres(syncs=False) as postgres:
        async with postgres.database() as url:
            places = {"SQLite": {}, "PostgreSQL": {"PARLEY_STORAGE__URL": url}}
            return all([await _play_large(name, place, options.examples) for name, place in places.items()])


async def _play_large(engine: str, environment: dict[str, str], examples: int) -> bool:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with open_stage(Path(folder), environment) as stage:
            loop = asyncio.get_running_loop()
            try:
                await asyncio.to_thread(run_machine, stage, loop, examples=examples, steps=STEPS, is_sample=False)
            except AssertionError as error:
                print(f"{engine}: {error}")
                return False
            _tell(engine, stage, time.monotonic() - begun)
    return True


async def _interleaved(options: argparse.Namespace) -> bool:
    for seed in range(1, options.examples // 10 + 2):
        with tempfile.TemporaryDirectory() as folder:
            async with open_stage(Path(folder), jitter=seed) as stage:
                begun = time.monotonic()
                await play_interleaved(stage, seed, steps=20 * STEPS)
                _tell(f"interleaved, seed {seed}", stage, time.monotonic() - begun)
                if stage.world.leaks or stage.world.faults:
                    print("\n".join([*map(str, stage.world.leaks[:5]), *stage.world.faults[:5]]))
                    return False
    return True


async def _crowd(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        async with open_stage(Path(folder)) as stage:
            crowd = await play_crowd(stage, Crowd(options.users, options.streams))
            print(crowd.told())
            if stage.world.leaks or stage.world.faults:
                print("\n".join([*map(str, stage.world.leaks[:5]), *stage.world.faults[:5]]))
            return not stage.world.leaks and not stage.world.faults and not crowd.lost


def _tell(name: str, stage: Stage, seconds: float) -> None:
    world = stage.world
    scanned = ", ".join(f"{where} {size // 1024} KiB" for where, size in world.scanned_bytes.most_common(6))
    print(f"{name}: {world.counts.total()} calls in {stage.casts} examples, {seconds:.0f} s; {scanned}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="canary", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="{plants,machine,interleaved,crowd}")
    parser.add_argument("--examples", type=int, default=500, help="of the machine, on each engine")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--streams", type=int, default=20, help="of each user at once")
    parser.add_argument("--plant", action="append", choices=PLANTS, help="look for this one alone; may be repeated")
    parser.add_argument("--table", type=Path, help="where to write what caught the planted leaks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
