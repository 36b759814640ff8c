"""Servers that die and flood, calls that are given up at any moment: nothing of it stays behind."""

import asyncio
import random
from pathlib import Path

import pytest
from parley_server.tools.errors import ToolError
from unit.tools.mcp_servers.mcp_world import World, is_alive, open_world, raw_settings


async def trouble(world: World, dice: random.Random) -> list[object]:
    """Make calls for several users, and give up half of them; return what became of them."""
    names = ("echo", "hang", "die", "flood", "env")
    calls = [asyncio.create_task(world.call(dice.choice(names), user_id=f"user-{place % 4}")) for place in range(6)]
    await asyncio.sleep(dice.random() * 0.3)
    for call in calls:
        if dice.random() < 0.5 or not call.done():
            call.cancel()
    return [*await asyncio.gather(*calls, return_exceptions=True)]


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_no_program_and_no_task_is_left_behind(tmp_path: Path) -> None:
    dice = random.Random(7)
    settings = raw_settings(tmp_path, max_clients=3)
    for _ in range(100):
        async with open_world(tmp_path, settings) as world:
            outcomes = await trouble(world, dice)
        unexpected = [
            each
            for each in outcomes
            if isinstance(each, BaseException) and not isinstance(each, ToolError | asyncio.CancelledError)
        ]
        assert not unexpected
        started = [line.removeprefix("started ") for line in world.log if line.startswith("started ")]
        assert not [pid for pid in started if is_alive(pid)]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("mcp")]
