"""The corpus of streams: what model servers really send, and what should come of it.

    for case in cases():
        serve(case.response, case.body)
        assert not differences(case.expected, outcome)      # streams.verdict

The format is described in README.md beside this file; other projects are welcome to read the JSON themselves.
"""

import base64
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

CASES = Path(__file__).parent / "cases"

ErrorKind = Literal[
    "incomplete",
    "reported",
    "malformed",
    "too_large",
    "authentication",
    "rate_limited",
    "rejected",
    "context_too_long",
    "unavailable",
]
Finish = Literal["stop", "tool_calls", "length", "content_filter", "refusal"]


class Response(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP side of an answer; `end` says whether the connection is closed in order or reset."""

    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = {}
    end: Literal["close", "reset"] = "close"


class ExpectedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call. `id` is None where the client makes one; `arguments` are JSON text, compared by their value."""

    id: str | None
    name: str
    arguments: str


class ExpectedUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What should come of a case: a complete answer with its `finish`, or an `error` of a kind after what was said."""

    outcome: Literal["complete", "error"]
    error: ErrorKind | None = None
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ExpectedCall, ...] = ()
    finish: Finish | None = None
    usage: ExpectedUsage | None = None


class Repeated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a body that is one text many times over."""

    repeat: str
    times: int


class Encoded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a body that is no UTF-8."""

    base64: str


class Case(msgspec.Struct, frozen=True):
    """One answer of a model server."""

    family: str
    name: str
    title: str
    sources: tuple[str, ...]
    response: Response
    body: bytes
    expected: Expected


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    title: str
    sources: tuple[str, ...]
    body: tuple[object, ...]
    expected: Expected
    response: Response = Response()


class _Family(msgspec.Struct, forbid_unknown_fields=True):
    family: str
    cases: tuple[_Written, ...]


@cache
def cases() -> tuple[Case, ...]:
    """Every case, by family and in the order it was written. Raises msgspec.ValidationError for a bad file."""
    return tuple(case for path in sorted(CASES.glob("*.json")) for case in _read(path))


def case_named(name: str) -> Case:
    """The case of that name. Raises KeyError."""
    return {case.name: case for case in cases()}[name]


def _read(path: Path) -> list[Case]:
    family = msgspec.convert(json.loads(path.read_text(encoding="utf-8")), _Family)
    return [
        Case(
            family.family,
            written.name,
            written.title,
            written.sources,
            written.response,
            b"".join(_bytes(part) for part in written.body),
            written.expected,
        )
        for written in family.cases
    ]


def _bytes(part: object) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, Mapping) and "base64" in part:
        return base64.b64decode(msgspec.convert(part, Encoded).base64, validate=True)
    repeated = msgspec.convert(part, Repeated)
    return repeated.repeat.encode() * repeated.times
