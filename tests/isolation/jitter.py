"""Holds up the tasks of a server at random: whatever may come between two awaits does, sooner or later."""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from random import Random
from typing import Any

import uvloop

# At so many of its awaits a task is held up, for so many rounds of the loop at most.
_CHANCE = 0.2
_MOST_ROUNDS = 6


class _HeldUp(Coroutine[Any, Any, Any]):
    """A coroutine that goes on a few rounds of the loop later than it could."""

    def __init__(self, inner: Coroutine[Any, Any, Any], random: Random) -> None:
        self._inner = inner
        self._random = random
        self._rounds = 0
        # Not before its first step: what is cancelled there has never begun, and gRPC's core complains of it.
        self._woken = False

    def send(self, value: object) -> object:
        """Go on, or let others go first: to yield nothing is to be asked again in the next round."""
        if self._woken and self._random.random() < _CHANCE:
            self._rounds = self._random.randint(1, _MOST_ROUNDS)
        self._woken = False
        if self._rounds:
            self._rounds -= 1
            return None
        self._woken = True
        return self._inner.send(value)

    def throw(self, *error: Any) -> object:  # noqa: ANN401  # as the protocol has it
        """Let an error in: a cancel comes at whichever await the task is held up."""
        self._rounds, self._woken = 0, True
        return self._inner.throw(*error)

    def close(self) -> None:
        """Close what is held up."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def hold_up_tasks(seed: int) -> None:
    """Have the loop of this process make such tasks; the same seed holds up in the same way."""
    random = Random(seed)
    make_loop = uvloop.new_event_loop

    def make_task(
        loop: asyncio.AbstractEventLoop, inner: Coroutine[Any, Any, Any], *, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_HeldUp(inner, random), loop=loop, context=context)

    def new_event_loop() -> uvloop.Loop:
        loop = make_loop()
        loop.set_task_factory(make_task)  # type: ignore[arg-type]  # the stub knows of generators alone
        return loop

    uvloop.new_event_loop = new_event_loop
