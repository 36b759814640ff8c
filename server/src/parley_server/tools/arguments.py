"""The arguments of a call as the model wrote them: text that should be a JSON object."""

import json
from dataclasses import dataclass
from typing import NoReturn

from parley_server.tools.json_value import NotJsonError, TooLargeError, clean_json, dump_json
from parley_server.tools.tool import JsonObject

MAX_ARGUMENTS_BYTES = 256 * 1024
MAX_ARGUMENTS_DEPTH = 32
_MAX_SIZE = 16 * MAX_ARGUMENTS_BYTES


@dataclass(frozen=True, slots=True)
class Arguments:
    """A call's arguments; `problem` says why they could not be read, and they are empty then.

    `text` is always an object in JSON: the model's own characters unless they had to be cleaned.
    """

    value: JsonObject
    text: str
    problem: str = ""


def parse_arguments(text: str) -> Arguments:
    """Read a call's arguments; never raises."""
    try:
        return _parse(text)
    except (NotJsonError, TooLargeError) as error:
        return Arguments({}, "{}", str(error))
    except (ValueError, RecursionError):
        return Arguments({}, "{}", "not valid JSON")


def _parse(text: str) -> Arguments:
    if len(text) > MAX_ARGUMENTS_BYTES:
        raise TooLargeError(f"longer than {MAX_ARGUMENTS_BYTES} bytes")
    parsed: object = json.loads(text, parse_constant=_refuse_constant)
    value = clean_json(parsed, max_depth=MAX_ARGUMENTS_DEPTH, max_size=_MAX_SIZE)
    if not isinstance(value, dict):
        raise NotJsonError("not a JSON object")
    told = text if value == parsed else dump_json(value)
    if len(told.encode()) > MAX_ARGUMENTS_BYTES:
        raise TooLargeError(f"longer than {MAX_ARGUMENTS_BYTES} bytes")
    return Arguments(value, told)


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")
