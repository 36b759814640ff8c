"""One event loop at a time has the clients of a process, and who comes with another is told."""

import asyncio
import subprocess
import sys
from collections.abc import Coroutine

import pytest
from parley_client import ParleyClient
from unit.client.event_log import RUN_ID, answered
from unit.client.scripted_server import ScriptedRun, serving


def on_another_loop(work: Coroutine[object, object, object]) -> object:
    """Run in a loop of a thread's own."""
    return asyncio.run(work)


async def open_and_close(target: str) -> None:
    async with ParleyClient(target, ""):
        pass


async def test_a_client_that_is_used_on_another_loop_says_so() -> None:
    async with serving(ScriptedRun(answered("a"))) as address, ParleyClient(address, "") as client:
        with pytest.raises(RuntimeError, match="opened on another event loop"):
            await asyncio.to_thread(on_another_loop, client.get_run(RUN_ID))
        with pytest.raises(RuntimeError, match="opened on another event loop"):
            await asyncio.to_thread(on_another_loop, client.watch(RUN_ID).wait())
        assert (await client.get_run(RUN_ID)).run_id == RUN_ID


async def test_a_client_is_not_opened_beside_those_of_another_loop() -> None:
    async with ParleyClient("127.0.0.1:1", ""), ParleyClient("127.0.0.1:1", ""):
        with pytest.raises(RuntimeError, match="open on another event loop"):
            await asyncio.to_thread(on_another_loop, open_and_close("127.0.0.1:1"))


def test_loops_may_take_turns_also_after_one_that_left_its_client_open() -> None:
    program = (
        "import asyncio\n"
        "from parley_client import ParleyClient\n"
        "client = ParleyClient('127.0.0.1:1', '')\n"
        "async def use():\n"
        "    async with ParleyClient('127.0.0.1:1', ''): pass\n"
        "async def leave_open():\n"
        "    await client.__aenter__()\n"
        "asyncio.run(use()); asyncio.run(leave_open()); asyncio.run(use())\n"
        "print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ok\n"
