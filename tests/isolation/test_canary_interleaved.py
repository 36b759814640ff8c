"""The machine's steps all at once, on a server whose tasks are held up at random; `make canary` does it at length."""

from pathlib import Path

import pytest
from isolation.interleaving import play_interleaved
from isolation.machine import raise_found
from isolation.stage import open_stage

STEPS = 300


@pytest.mark.parametrize("seed", [1])
async def test_whatever_comes_in_between_nobody_is_shown_what_is_not_his(seed: int, tmp_path: Path) -> None:
    async with open_stage(tmp_path, jitter=seed) as stage:
        await play_interleaved(stage, seed, steps=STEPS)
        raise_found(stage)
        assert stage.world.counts["OK"] > STEPS / 4, stage.world.counts
