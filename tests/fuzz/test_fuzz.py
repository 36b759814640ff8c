"""Nothing that comes over the wire brings the server out of step: PARLEY_FUZZ_SECONDS of it from PARLEY_FUZZ_SEED."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from fuzz.conftest import Fuzzed
from fuzz.fuzzing import fuzz
from fuzz.layer import HANG_S
from fuzz.oracle import Verdicts
from siege.connection import FrameConnection
from siege.vitals import Vitals, back_to

SECONDS = float(os.environ.get("PARLEY_FUZZ_SECONDS", "20"))
SEED = os.environ.get("PARLEY_FUZZ_SEED", "1")
MAX_GROWTH_MIB = 400
SPARE = 8
CORPUS = Path(__file__).parent / "corpus" / "cases.jsonl"
# What the log must not hold after whatever input.
TROUBLE = ("internal_error", "Traceback", '"level": "error"', "authentication_undecided", "parley_secret")


@dataclass(frozen=True)
class Case:
    """What once went wrong: the frames that did it, and the status that their first stream gets."""

    what: str
    frames: bytes
    status: int


def cases() -> list[Case]:
    lines = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    return [Case(each["what"], bytes.fromhex(each["frames"]), each["status"]) for each in lines]


def assert_is_well(fuzzed: Fuzzed) -> None:
    log = fuzzed.server.log.splitlines()
    assert not [line for line in log if any(word in line for word in TROUBLE)][:20]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.what)
async def test_what_once_went_wrong_does_not_again(case: Case, fuzzed: Fuzzed) -> None:
    verdicts = Verdicts()
    async with FrameConnection(fuzzed.ground.address) as connection:
        await connection.send(case.frames)
        assert await connection.answered(1, HANG_S)
        verdicts.judge("corpus", connection.answers[1], case.what, is_broken=True)
        assert (connection.answers[1].status, verdicts.bugs) == (case.status, [])
    assert_is_well(fuzzed)


@pytest.mark.fuzz
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads vital signs from Linux's /proc")
async def test_whatever_comes_is_answered_by_the_contract(fuzzed: Fuzzed) -> None:
    before = Vitals.of(fuzzed.server.pid)
    verdicts, served = await fuzz(fuzzed.ground, SEED, SECONDS)
    after = await back_to(fuzzed.server.pid, before, spare=SPARE, timeout_s=60)
    told = [f"PARLEY_FUZZ_SEED={SEED} for {SECONDS:g} s", *(f"{w}: {n:,}" for w, n in sorted(verdicts.counts.items()))]
    told += [f"neighbour: {served} ms", f"before {before}", f"after  {after}"]
    print("\n  ".join(told))  # noqa: T201  # the figures are what one runs it for
    assert not verdicts.bugs, "\n".join(verdicts.bugs)
    assert not served.failures
    assert_is_well(fuzzed)
    assert (after.rss_kib - before.rss_kib) >> 10 <= MAX_GROWTH_MIB
