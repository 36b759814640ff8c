"""A stop that hangs is ended, and the log says where."""

import subprocess
import sys

PROGRAM = """
import asyncio
from parley_server.logs import configure_logging, end_process
from parley_server.overdue import end_when_overdue
from parley_server.settings import LogSettings

configure_logging(LogSettings(format="json"))

async def stop():
    end_when_overdue({limit_s}, end_process)
    await asyncio.sleep({work_s})

asyncio.run(stop())
"""


def stopped(limit_s: float, work_s: float) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(limit_s=limit_s, work_s=work_s)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_a_stop_that_hangs_is_ended_and_says_where() -> None:
    ended = stopped(limit_s=0.2, work_s=3600)
    assert ended.returncode == 75
    assert "stop_overdue" in ended.stderr
    assert "<string>:11" in ended.stderr


def test_a_stop_in_time_is_left_alone() -> None:
    ended = stopped(limit_s=3600, work_s=0)
    assert ended.returncode == 0
    assert not ended.stderr
