"""Something that a thread opens before it is needed, and again when that has failed."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from parley_server.llm.model_errors import unavailable
from parley_server.llm.model_service import ModelError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Opening(Generic[T]):
    """Opens by `opener`, on a thread, from now on. Construct it inside a running event loop.

    What fails for want of file descriptors or threads may succeed a moment later, so whoever asks next tries again.
    """

    def __init__(self, opener: Callable[[], T]) -> None:
        self._opener = opener
        self._task = self._begin()

    async def result(self) -> T:
        """Wait for what is opened. Raises ModelError: MODEL_UNAVAILABLE, or what the opening itself raises of it."""
        if self._task.done() and self._task.exception() is not None:
            self._task = self._begin()
        try:
            return await asyncio.shield(self._task)
        except ModelError:
            raise
        except Exception as error:
            raise unavailable() from error

    async def settled(self) -> T | None:
        """Wait until nothing is being opened; return what is open."""
        await asyncio.wait([self._task])
        return None if self._task.exception() is not None else self._task.result()

    def _begin(self) -> "asyncio.Task[T]":
        task = asyncio.create_task(asyncio.to_thread(self._opener), context=contextvars.Context())
        task.add_done_callback(_tell)
        return task


def _tell(task: "asyncio.Task[T]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ModelError):
        _log.error("model_client_failed", error=type(error).__name__, hint="the next call tries again")
