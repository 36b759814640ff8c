"""No sequence of bytes raises anything but a ModelError, depends on its cut, or takes more than linear work.

An ordinary run plays ROUNDS mutants of the corpus; with PARLEY_FUZZ_SECONDS a tenth of that time (PARLEY_FUZZ_SEED).
"""

import os
import time
from collections.abc import Iterator
from itertools import count
from random import Random

import pytest
from model_server import delta_frame, finish_frame
from streams.corpus import cases
from streams.mutation import MAX_BYTES, mutated
from streams.outcomes import read
from streams.verdict import differences

ROUNDS = 600
SECONDS = float(os.environ.get("PARLEY_FUZZ_SECONDS", "0")) / 10
SEED = os.environ.get("PARLEY_FUZZ_SEED", "1")
MIB = 1024 * 1024
SEEDS = [case.body for case in cases() if len(case.body) <= MAX_BYTES]


def rounds() -> Iterator[int]:
    end = time.monotonic() + SECONDS
    for number in count():
        if number >= ROUNDS and time.monotonic() >= end:
            return
        yield number


def in_random_pieces(random: Random, stream: bytes) -> Iterator[bytes]:
    longest = random.choice((2, 30, 3000))
    start = 0
    while start < len(stream):
        end = start + random.randint(1, longest)
        yield stream[start:end]
        start = end


@pytest.mark.fuzz
@pytest.mark.timeout(SECONDS + 120)
def test_mutants_of_the_corpus() -> None:
    played = 0
    for played in rounds():
        random = Random(f"{SEED} {played}")
        stream = mutated(random, SEEDS)
        whole = read([stream])
        assert not differences(whole, read(in_random_pieces(random, stream))), (SEED, played, stream)
    print(f"PARLEY_FUZZ_SEED={SEED}: {played + 1:,} mutants")  # noqa: T201  # the figure is what one runs it for


def of_deltas(*deltas: dict[str, object]) -> bytes:
    """As many chunks with these deltas as make a mebibyte, and a finish."""
    frames = b"".join(delta_frame(tool_calls=[delta]) for delta in deltas)
    return frames * (MIB // len(frames)) + finish_frame()


def delta(name: str, arguments: str, call_id: str = "a") -> dict[str, object]:
    return {"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(of_deltas(delta("f", "{"), delta("f", "}")), id="braces under one name"),
        pytest.param(of_deltas(delta("f", '{"a":"'), delta("f", '"}')), id="objects under one name"),
        pytest.param(of_deltas(delta("f", "\\"), delta("f", '"')), id="backslashes and quotes"),
        pytest.param(of_deltas(delta("f", "{}"), delta("f", " ")), id="an object and blanks"),
        pytest.param(of_deltas(delta("f", ""), delta("g", "")), id="names in turn"),
        pytest.param(of_deltas(delta("f", "x"), delta("f", "x", "b")), id="ids in turn"),
        pytest.param(delta_frame(tool_calls=[delta("f", "{" * (MIB // 2))] * 2), id="open braces"),
        pytest.param(b"data: x\n" * (MIB // 4) + b"\n", id="one event of many lines"),
        pytest.param(b'data: {"a":1}\n' * (MIB // 8) + b"\n", id="many events without blank lines"),
        pytest.param(b"\n" * 4 * MIB, id="blank lines"),
        pytest.param(b":\n\n" * (MIB // 4), id="comments"),
        pytest.param(b'data: {"x":' + b"[" * 4 * MIB + b"\n\n", id="open brackets"),
        pytest.param(b'data: {"x":"' + b"\xff" * 4 * MIB + b'"}\n\n', id="no UTF-8"),
        pytest.param(b'data: {"x":' + b"9" * 4 * MIB + b"}\n\n", id="one number"),
    ],
)
def test_work_is_linear(stream: bytes) -> None:
    """Mebibytes of what would be slow if work grew with the square: the time limit of a test would be passed."""
    read(stream[start : start + 4096] for start in range(0, len(stream), 4096))
