"""A tool call in one line: `calculator(expression="17 * 23")` and `391`."""

import json
from typing import Final

from parley.v1.run_event_pb2 import ToolCallFinished, ToolCallProgress
from parley.v1.tool_pb2 import TOOL_CALL_STATUS_OK, ToolCallStatus

from parley_console.enum_names import short_name_of
from parley_console.visible_text import shortened, visible

_MAX_NAME: Final = 64
_MAX_ARGUMENTS: Final = 100
_MAX_RESULT: Final = 120


def call_text(name: str, arguments_json: str) -> str:
    """Write a call as a programmer would, with nothing in it that a terminal would obey or hide."""
    name = shortened(visible(name), _MAX_NAME)
    arguments = _parsed(arguments_json)
    if not isinstance(arguments, dict):
        return f"{name}()"
    written = ", ".join(f"{key}={_compact(value)}" for key, value in arguments.items())
    return f"{name}({shortened(visible(written), _MAX_ARGUMENTS)})"


def progress_text(progress: ToolCallProgress) -> str:
    """Write how far a call is: `60% reading page 3 of 5`."""
    percent = f"{progress.fraction:.0%} " if progress.HasField("fraction") else ""
    return shortened(percent + " ".join(progress.message.split()), _MAX_RESULT).strip()


def result_text(finished: ToolCallFinished, arguments_json: str) -> str:
    """Write what a call came to; an empty result gives its status."""
    if finished.status != TOOL_CALL_STATUS_OK:
        return _failure(finished)
    result = _without_echo(_unwrapped(_parsed(finished.result_json)), _parsed(arguments_json))
    written = result if isinstance(result, str) else _compact(result)
    return shortened(" ".join(written.split()), _MAX_RESULT) or "OK"


def _failure(finished: ToolCallFinished) -> str:
    status = short_name_of(ToolCallStatus.DESCRIPTOR, finished.status)
    return shortened(f"{status}: {finished.error_message}" if finished.error_message else status, _MAX_RESULT)


def _unwrapped(result: object) -> object:
    """Take the result out of what the model is told."""
    return result["result"] if isinstance(result, dict) and result.keys() == {"ok", "result"} else result


def _without_echo(result: object, arguments: object) -> object:
    """Drop the fields that only repeat an argument; a single value left stands for itself."""
    if not isinstance(result, dict) or not isinstance(arguments, dict):
        return result
    news = {key: value for key, value in result.items() if key not in arguments or arguments[key] != value}
    return next(iter(news.values())) if len(news) == 1 else news or result


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # a result that was cut is no JSON any more


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
