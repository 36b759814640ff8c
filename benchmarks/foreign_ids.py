"""How long a refusal takes: of somebody else's id, beside one that is nobody's. The times must not tell which it was.

    python benchmarks/foreign_ids.py [--pairs 10000] [--only WatchRun]         about eight minutes; two cores

Every rpc that takes the id of a stored thing is called by a user with ids of another user and with ids of nobody, in
pairs, each pair in an order of its own, so that whatever else the machine does meets both. Told are both medians; how
far the two are apart, which is the median of the pairs' differences as a part of the median; and for scale what chance
makes of one and the same call: the even pairs' foreign calls beside the odd pairs'. An rpc that is more than 5 % apart
is a finding, and the exit code is 1.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import sub
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the door, and what names an id

import grpc
from catalogue.door import METHODS, Door, issue, open_door
from catalogue.test_foreign_ids import PATHS, anns_approval, anns_objects, request_with
from rpc.chassis import Metadata, bearer

BOUND = 0.05
THINGS = 8
WARM_UP = 200
# Served to the server by others. Keys are an administrator's, who sees them all.
NOT_HERE = {"ToolHostService"}
Ask = Callable[[bytes], None]


@dataclass(frozen=True)
class Row:
    """An rpc and one of its ids: medians in us, how far apart the pairs are, and two halves of the foreign calls."""

    name: str
    foreign_us: float
    missing_us: float
    apart: float
    chance: float

    @property
    def is_within(self) -> bool:
        """Tell whether the two are as good as equal."""
        return abs(self.apart) <= BOUND

    def told(self) -> str:
        """Write it as a line."""
        mark = "" if self.is_within else "  OUTSIDE"
        return (
            f"{self.name:52} {self.foreign_us:8.0f} {self.missing_us:8.0f} {self.apart:+8.1%} {self.chance:+8.1%}{mark}"
        )


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--only", default="", help="rpcs whose names have this in them")
    options = parser.parse_args()
    rows = asyncio.run(_measure_all(options.pairs, options.only))
    within = sum(row.is_within for row in rows)
    print(f"{within} of {len(rows)} within {BOUND:.0%}, {options.pairs} pairs each")
    return 0 if within == len(rows) else 1


async def _measure_all(pairs: int, only: str) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_door(Path(folder)) as door:
            key = bearer(await issue(door.admin, "bob"))
            owned = await _anns_things(door)
            print(f"{'rpc and id':52} {'foreign':>8} {'missing':>8} {'apart':>8} {'chance':>8}", flush=True)
            for request_type, path in PATHS:
                kind = path.rpartition(".")[2].removesuffix("s")
                method = METHODS[request_type]
                if kind == "key_id" or method.containing_service.name in NOT_HERE or only not in method.name:
                    continue
                row = await asyncio.to_thread(_measure, door.address, key, request_type, path, owned[kind], pairs)
                print(row.told(), flush=True)
                rows.append(row)
    return rows


async def _anns_things(door: Door) -> dict[str, list[str]]:
    """Make a few of everything there is, for Ann; by kind."""
    owned: dict[str, list[str]] = {}
    for _ in range(THINGS):
        objects = {**await anns_objects(door), "approval_id": await anns_approval(door)}
        for kind, thing_id in objects.items():
            owned.setdefault(kind, []).append(thing_id)
    return owned


def _measure(address: str, key: Metadata, request_type: str, path: str, ids: Sequence[str], pairs: int) -> Row:
    """Call in pairs, one after the other; Bob's calls are not in the loop of the model behind the server."""
    foreign = [request_with(request_type, path, each).SerializeToString() for each in ids]
    missing = [request_with(request_type, path, f"{each[:-8]}{'0' * 8}").SerializeToString() for each in ids]
    order = random.Random(request_type)  # noqa: S311  # it decides who is first
    seen: tuple[list[float], list[float]] = [], []
    with grpc.insecure_channel(address) as channel:
        ask = _caller(channel, key, request_type)
        for number in range(-WARM_UP, pairs):
            which = [0, 1] if order.random() < 0.5 else [1, 0]
            for side in which:
                begun = time.perf_counter()
                ask((foreign, missing)[side][number % THINGS])
                took = time.perf_counter() - begun
                if number >= 0:
                    seen[side].append(took * 1e6)
    method = METHODS[request_type]
    return _row(f"{method.containing_service.name}.{method.name} {path}", *seen)


def _row(name: str, foreign: Sequence[float], missing: Sequence[float]) -> Row:
    middle = statistics.median(missing)
    return Row(
        name,
        statistics.median(foreign),
        middle,
        apart=statistics.median(map(sub, foreign, missing)) / middle,
        chance=statistics.median(map(sub, foreign[::2], foreign[1::2])) / middle,
    )


def _caller(channel: grpc.Channel, key: Metadata, request_type: str) -> Ask:
    """Return what makes one call, which must be refused."""
    method = METHODS[request_type]
    path = f"/{method.containing_service.full_name}/{method.name}"
    unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    streaming: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)

    def ask(raw: bytes) -> None:
        try:
            if method.server_streaming:
                next(streaming(raw, metadata=key))
            else:
                unary(raw, metadata=key)
        except grpc.RpcError as error:
            code = error.code()
        else:
            raise AssertionError(f"{path} was answered")
        assert code is grpc.StatusCode.NOT_FOUND, f"{path}: {code}"

    return ask


if __name__ == "__main__":
    sys.exit(main())
