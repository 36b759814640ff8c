"""Reading on in a result that was too large to be told whole: a piece, some lines, or the places of a word."""

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.errors import NotFoundError, StorageUnavailableError
from parley_server.domain.tool import ToolEffect
from parley_server.domain.whole_result import MAX_WHOLE_BYTES
from parley_server.storage.repositories import Store
from parley_server.tools.errors import ToolError
from parley_server.tools.tool import FunctionTool, ToolContext, tool

MAX_LENGTH = 16_000
MAX_LINES = 1000
MAX_MATCHES = 20
CONTEXT_CHARS = 100
# With what goes around it, an answer stays below what is told whole, however its characters are escaped.
MAX_TEXT_BYTES = 28 * 1024
# A search stops so often to let others have the interpreter: one that nearly matches everywhere takes seconds.
SEARCHED_AT_ONCE = 64 * 1024

# A line ends at a line feed, and where a text inside the JSON has one.
_LINE_END = re.compile(r"\n|\\\\|\\n")


class Request(BaseModel):
    """What to read."""

    model_config = ConfigDict(extra="forbid")

    result_id: Annotated[str, Field(max_length=64, description="The result_id of a truncated result.")]
    offset: Annotated[int, Field(ge=0, le=MAX_WHOLE_BYTES, description="Where to begin, in characters.")] = 0
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="How many characters.")] = 8000
    first_line: Annotated[
        int | None, Field(ge=1, le=MAX_WHOLE_BYTES, description="Read lines from here on, in place of offset.")
    ] = None
    lines: Annotated[int, Field(ge=1, le=MAX_LINES, description="How many lines.")] = 200
    search: Annotated[str, Field(max_length=100, description="Find this text from offset on, in any case.")] = ""


class Match(BaseModel):
    """A place where the text stands, with what is around it."""

    offset: int
    line: int
    text: str


class Reading(BaseModel):
    """A piece, or the places found. `next_offset` is where to go on; null at the end."""

    total_chars: int
    next_offset: int | None
    text: str | None = None
    matches: list[Match] | None = None


def read_result_tool(store: Store) -> FunctionTool[Request]:
    """Make the tool over the user's store."""

    @tool(effect=ToolEffect.READ, repeatable=True)
    async def read_result(context: ToolContext, arguments: Request) -> Reading:
        """Read on in a truncated tool result of this conversation, named by its result_id.

        Give offset and length, or first_line and lines, or search for a text.
        """
        results = store.for_user(context.request).tool_calls
        try:
            whole = await results.result_for_run(arguments.result_id, context.run_id)
        except NotFoundError as error:
            hint = "Use the result_id of a truncated result of this conversation."
            raise ToolError("unknown_result", "There is no such result.", hint=hint) from error
        except StorageUnavailableError as error:
            raise ToolError("unavailable", "The result cannot be read now.", retryable=True) from error
        # To look through megabytes takes a while.
        return await asyncio.to_thread(read, whole, arguments)

    return read_result


def read(whole: str, request: Request) -> Reading:
    """Read what is asked for of a whole result. Raises ToolError when it begins beyond the end."""
    if request.search:
        return _search(whole, request.search, request.offset)
    start, end = request.offset, request.offset + request.length
    if request.first_line is not None:
        start, end = _span(whole, request.first_line, request.lines)
    if start > len(whole):
        raise ToolError("beyond_the_end", f"The result has {len(whole)} characters and no more.")
    text = _fitting(whole[start : min(end, start + MAX_TEXT_BYTES)])
    return _reading(whole, start + len(text), text=text)


def _reading(whole: str, end: int, *, text: str | None = None, matches: list[Match] | None = None) -> Reading:
    next_offset = end if end < len(whole) else None
    return Reading(total_chars=len(whole), next_offset=next_offset, text=text, matches=matches)


def _line_ends(whole: str) -> Iterator[int]:
    """Yield where each line after the first begins."""
    return (match.end() for match in _LINE_END.finditer(whole) if match[0] != r"\\")


def _span(whole: str, first_line: int, lines: int) -> tuple[int, int]:
    starts = _line_ends(whole)
    start = 0 if first_line == 1 else next(islice(starts, first_line - 2, None), len(whole) + 1)
    return start, next(islice(starts, lines - 1, None), len(whole))


def _fitting(text: str) -> str:
    """Return as much of the beginning as can be told."""
    while len(json.dumps(text, ensure_ascii=False).encode()) > MAX_TEXT_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


def _search(whole: str, wanted: str, offset: int) -> Reading:
    # As it is written inside the JSON.
    written = json.dumps(wanted, ensure_ascii=False)[1:-1]
    found = _places(re.compile(re.escape(written), re.IGNORECASE), whole, offset, len(written))
    matches: list[Match] = []
    ends = _line_ends(whole)
    line, next_line = 1, next(ends, None)
    for match in islice(found, MAX_MATCHES):
        while next_line is not None and next_line <= match.start():
            line, next_line = line + 1, next(ends, None)
        around = whole[max(0, match.start() - CONTEXT_CHARS) : match.end() + CONTEXT_CHARS]
        matches.append(Match(offset=match.start(), line=line, text=around))
    end = matches[-1].offset + 1 if len(matches) == MAX_MATCHES else len(whole)
    return _reading(whole, end, matches=matches)


def _places(wanted: re.Pattern[str], whole: str, start: int, chars: int) -> Iterator[re.Match[str]]:
    """Find a text of so many characters, as `finditer` does."""
    while start < len(whole):
        # So that what begins here ends here.
        end = start + SEARCHED_AT_ONCE + chars - 1
        if (match := wanted.search(whole, start, end)) is not None:
            yield match
            start = match.end()
        else:
            start += SEARCHED_AT_ONCE
