"""One execution of a tool, whatever it does: it answers, refuses, breaks or hangs."""

import asyncio

import structlog

from parley_server.domain.identifiers import new_id
from parley_server.tools.errors import ToolError, ToolFailedError, ToolTimedOutError
from parley_server.tools.results import Answer, answer_aside
from parley_server.tools.retries import delay_s
from parley_server.tools.tool import JsonObject, Tool, ToolContext

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def invoke(tool: Tool, context: ToolContext, arguments: JsonObject, retries: int = 0) -> Answer | ToolError:
    """Run a tool until `context.deadline` at most and return what the model is to be told.

    What fails and may be tried again is, so often, in the same time and with the same context. Cancelling this call
    cancels the tool at once.
    """
    time_s = context.deadline - asyncio.get_running_loop().time()
    done = 0
    while True:
        told = await _try(tool, context, arguments) or ToolTimedOutError(time_s, tool.spec.effect)
        delay = delay_s(told, done) if isinstance(told, ToolError) and done < retries else None
        if delay is None or asyncio.get_running_loop().time() + delay >= context.deadline:
            return told
        done += 1
        context.log.info("tool_retried", tries=done)
        await asyncio.sleep(delay)


async def _try(tool: Tool, context: ToolContext, arguments: JsonObject) -> Answer | ToolError | None:
    """Run a tool in a task of its own, so that one that ignores its cancellation holds up nobody; None: too late."""
    task = asyncio.create_task(_outcome(tool, context, arguments), name=f"tool {tool.spec.name}")
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        await asyncio.wait({task}, timeout=max(context.deadline - asyncio.get_running_loop().time(), 0))
        if not task.done():
            return None
        if task.cancelled():
            return _failed(tool, context, asyncio.CancelledError("the tool cancelled itself"))
        return task.result()
    finally:
        task.cancel()


# The loop itself keeps only weak references to its tasks.
_running: set[asyncio.Task[Answer | ToolError]] = set()


async def _outcome(tool: Tool, context: ToolContext, arguments: JsonObject) -> Answer | ToolError:
    """Run a tool and turn anything it raises into an answer, a SystemExit or a KeyboardInterrupt of its own too."""
    try:
        return await answer_aside(await tool.call(context, arguments), context.without_secrets)
    except ToolError as error:
        return error.edited(context.without_secrets)
    except asyncio.CancelledError:
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
