"""One execution of a tool, whatever it does: it answers, refuses, breaks or hangs."""

import asyncio

import structlog

from parley_server.domain.identifiers import new_id
from parley_server.tools.errors import ToolError, ToolFailedError, ToolTimedOutError
from parley_server.tools.results import Answer, answer
from parley_server.tools.tool import JsonObject, Tool, ToolContext

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def invoke(tool: Tool, context: ToolContext, arguments: JsonObject) -> Answer | ToolError:
    """Run a tool for at most its time-out and return what the model is to be told.

    The tool has a task of its own, so one that ignores its cancellation holds up nobody. Cancelling this call
    cancels the tool at once.
    """
    task = asyncio.create_task(_outcome(tool, context, arguments), name=f"tool {tool.spec.name}")
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        await asyncio.wait({task}, timeout=tool.spec.timeout_s)
        if not task.done():
            return ToolTimedOutError(tool.spec.timeout_s, tool.spec.effect)
        if task.cancelled():
            return _failed(tool, context, asyncio.CancelledError("the tool cancelled itself"))
        return task.result()
    finally:
        task.cancel()


# The loop itself keeps only weak references to its tasks.
_running: set[asyncio.Task[Answer | ToolError]] = set()


async def _outcome(tool: Tool, context: ToolContext, arguments: JsonObject) -> Answer | ToolError:
    """Run a tool and turn anything it raises into an answer, a SystemExit of its own too."""
    try:
        return answer(await tool.call(context, arguments))
    except ToolError as error:
        return error
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a tool raises ends its call, not the server
        return _failed(tool, context, error)


def _failed(tool: Tool, context: ToolContext, error: BaseException) -> ToolFailedError:
    error_id = new_id("err")
    _log.error(
        "tool_failed",
        tool=tool.spec.name,
        run_id=context.run_id,
        call_id=context.call_id,
        error_id=error_id,
        exc_info=error,
    )
    return ToolFailedError(error_id)
