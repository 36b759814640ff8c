"""A stop that does not come to its end is ended: what was acknowledged is durable, and the next start goes on."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

# Beyond the time that calls and runs are given.
MARGIN_S = 40.0
EXIT_CODE = 75
_MAX_TASKS = 20

_log = structlog.get_logger(__name__)


def end_when_overdue(limit_s: float, end: Callable[[int], NoReturn]) -> None:
    """Have the process ended with EXIT_CODE unless it has ended by itself within `limit_s`; from its event loop.

    The log tells what was still waited for: places in the code alone.
    """
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        tasks = sorted(_place_of(task) for task in asyncio.all_tasks(loop))
        _log.error("stop_overdue", limit_s=limit_s, tasks=tasks[:_MAX_TASKS])
        end(EXIT_CODE)

    loop.call_later(limit_s, give_up)


def _place_of(task: "asyncio.Task[object]") -> str:
    places = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack(limit=1)]
    return f"{task.get_name()} {''.join(places)}".strip()
