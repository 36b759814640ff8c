"""What a reader of streams is asked and what it tells: a program in a virtual environment of its own.

    python -m stream_readers.NAME BASE_URL        reads a case for every line it is given, and prints a line of JSON

This module needs the standard library alone.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

LIMIT_S = 60.0
# What the cases' models may call.
PARAMETERS: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = {"get_weather": "Tell the weather in a city.", "get_time": "Tell the time in a city."}


def said(value: object) -> str:
    """Return text as it is, nothing as no text, and whatever else the server sent in place of text as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Call:
    """A tool call as the user of a library is given it; `arguments` are JSON text."""

    id: str
    name: str
    arguments: str

    @classmethod
    def of(cls, call_id: object, name: object, arguments: object) -> "Call":
        """Take a call whose parts may be missing or, against their type, whatever JSON the server sent."""
        return cls(*(said(part) for part in (call_id, name, arguments)))


@dataclass(frozen=True)
class Told:
    """What the user of a library is given: a text and calls, or an exception by its module and name."""

    text: str = ""
    refusal: str = ""
    calls: tuple[Call, ...] = ()
    error: str = ""

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Told":
        """Read a line."""
        told = cls(**json.loads(line))
        return replace(told, calls=tuple(Call(**call) for call in json.loads(line)["calls"]))


# Reads one answer of a model of that name.
Read = Callable[[str], Awaitable[Told]]


async def tell(read: Read) -> None:
    """Read a case whenever told to, until the input ends."""
    answers = sys.stdout
    # What the libraries print is no answer, and a case that goes wrong is no news.
    with _nowhere() as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        while case := await asyncio.to_thread(sys.stdin.readline):
            print((await _read(read, case.strip())).to_json(), file=answers, flush=True)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


async def _read(read: Read, model: str) -> Told:
    limit = asyncio.timeout(LIMIT_S)
    try:
        async with limit:
            return await read(model)
    except Exception as error:  # noqa: BLE001 - which exception comes is what is measured
        if limit.expired():
            return Told(error="hangs")
        kind = type(error)
        return Told(error=f"{kind.__module__}.{kind.__qualname__}")
