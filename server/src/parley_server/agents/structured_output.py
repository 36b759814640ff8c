"""An answer that has to fit a schema: reading the JSON in it, and saying what does not fit."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, Self

from pydantic import JsonValue, ValidationError

from parley_server.agents.model_step import MAX_ITEM_BYTES
from parley_server.agents.output_schema import KEYWORDS, read_output_schema
from parley_server.agents.pattern import text_with
from parley_server.domain.content import storable_text
from parley_server.domain.run_event import OUTPUT_INVALID, ItemEvent, MessageCompleted, Warned
from parley_server.llm.model_service import OutputSchema
from parley_server.tools.json_value import NotJsonError, TooLargeError, clean_json, dump_json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as Misfit
    from jsonschema.protocols import Validator

MAX_OUTPUT_DEPTH = 32
# What a check may cost, where a keyword costs at least _KEYWORD_COST: about a second of one thread at the worst.
MAX_EFFORT = 1_000_000
_KEYWORD_COST = 5
# Keywords that look at values down to their leaves; the others leave what is inside to other keywords.
_LOOKS_INSIDE = frozenset({"const", "dependentRequired", "enum", "uniqueItems"})

_MAX_SIZE = 32 * MAX_ITEM_BYTES
_MAX_MISFITS = 5
_MAX_PROBLEM_CHARS = 900
_MAX_MISFIT_CHARS = 160
_FENCE = "```"

_INSTRUCTION = """

A program reads your answer. Use tools as you need them; then answer with JSON that fits this JSON Schema, and nothing \
else: no words before or after it, no code fence.

{schema}"""

_Keyword = Callable[["Validator", JsonValue, JsonValue, JsonValue], "Iterator[Misfit] | None"]


@dataclass(frozen=True, slots=True)
class Output:
    """What an answer came to: `json` when it fits, else `problem` says what does not; one of them is empty.

    `json` is canonical: without blanks, in UTF-8, members in the answer's order, of equal names the last.
    """

    json: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DemandedOutput:
    """What the answer of a run has to fit; `schema` is for the model."""

    schema: OutputSchema
    _value: JsonValue

    @classmethod
    async def read(cls, schema_json: str) -> Self | None:
        """Read a run's schema; None for an empty one. Raises InvalidRequestError as `read_output_schema` does."""
        return cls(*await asyncio.to_thread(read_output_schema, schema_json)) if schema_json else None

    @property
    def instruction(self) -> str:
        """What the model is told, whatever its server makes of a schema."""
        return _INSTRUCTION.format(schema=self.schema.json)

    async def of(self, text: str) -> Output:
        """Read an answer: JSON, alone or in a fenced block. The work is bounded and is done beside the event loop."""
        return await asyncio.to_thread(_read, self._value, text)


def with_output(events: Sequence[ItemEvent], output_json: str) -> tuple[ItemEvent, ...]:
    """Return the events that complete an answer with what it came to."""
    return tuple(
        (replace(body, output_json=output_json) if isinstance(body, MessageCompleted) else body, item_id)
        for body, item_id in events
    )


def objection(events: Sequence[ItemEvent], problem: str) -> ItemEvent:
    """Return the warning that the answer which these events complete does not fit, and that another is asked for."""
    item_id = next(item_id for body, item_id in events if isinstance(body, MessageCompleted))
    return Warned(OUTPUT_INVALID, f"it does not fit the schema: {problem}"), item_id


def _read(schema: JsonValue, text: str) -> Output:
    try:
        value = _parse(text)
        misfits = _misfits(schema, value)
    except (NotJsonError, TooLargeError) as error:
        return Output(problem=f"it cannot be read: {error}")
    except (RecursionError, OverflowError, _TooMuchEffortError):
        return Output(problem="it is too much to be checked against the schema")
    if misfits:
        return Output(problem="; ".join(misfits)[:_MAX_PROBLEM_CHARS])
    canonical = dump_json(value)
    return Output(canonical) if len(canonical.encode()) <= MAX_ITEM_BYTES else Output(problem="it is too long")


def _parse(text: str) -> JsonValue:
    try:
        parsed: object = json.loads(_without_fence(text), parse_constant=_refuse_constant)
    except ValueError as error:
        raise NotJsonError("it is not JSON") from error
    return clean_json(parsed, max_depth=MAX_OUTPUT_DEPTH, max_size=_MAX_SIZE)


def _without_fence(text: str) -> str:
    """Return what is inside of a fenced block, where there is one and the answer does not begin as JSON does."""
    start = text.find(_FENCE)
    if start < 0 or text.lstrip()[:1] in {"{", "[", '"'}:
        return text
    _, _, inside = text[start:].partition("\n")
    return inside.rpartition(_FENCE)[0] or inside


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


def _misfits(schema: JsonValue, value: JsonValue) -> list[str]:
    from jsonschema import Draft202012Validator, exceptions, validators  # noqa: PLC0415  # 90 ms, for who needs it

    effort = _Effort()
    keywords: dict[str, _Keyword] = {
        name: check for name, check in Draft202012Validator.VALIDATORS.items() if name in KEYWORDS
    } | {"pattern": _pattern, "uniqueItems": _unique_items}
    counted = {name: effort.counted(check, _size_of(name)) for name, check in keywords.items()}
    validator_type = validators.extend(Draft202012Validator, counted)  # type: ignore[no-untyped-call]  # in its stubs
    found = islice(validator_type(schema).iter_errors(value), _MAX_MISFITS)
    return [_told(exceptions.best_match([misfit]) or misfit) for misfit in found]


def _told(misfit: "Misfit") -> str:
    place = "".join(f"/{token}" for token in misfit.absolute_path)
    message = storable_text(misfit.message)
    if len(message) > _MAX_MISFIT_CHARS:
        message = f"{message[: _MAX_MISFIT_CHARS // 2]} … {message[-_MAX_MISFIT_CHARS // 2 :]}"
    return f"{place[:_MAX_MISFIT_CHARS] or 'the whole'}: {message}"


class _TooMuchEffortError(Exception):
    """The schema and the answer multiply to more than may be looked at."""


class _Effort:
    """What one check may still cost: a schema of a few lines can ask for more than any time suffices for."""

    def __init__(self) -> None:
        self._left = MAX_EFFORT

    def counted(self, check: _Keyword, size: Callable[[JsonValue], int]) -> _Keyword:
        """Return a keyword's check that is paid for by what it looks at, and so is what it has to say."""

        def paid(
            validator: "Validator", value: JsonValue, instance: JsonValue, schema: JsonValue
        ) -> "Iterator[Misfit]":
            self._spend(_KEYWORD_COST + size(value) + size(instance))
            for misfit in check(validator, value, instance, schema) or ():
                self._spend(len(misfit.message))
                yield misfit

        return paid

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise _TooMuchEffortError


def _size_of(keyword: str) -> Callable[[JsonValue], int]:
    return _whole_size if keyword in _LOOKS_INSIDE else _size


def _size(value: JsonValue) -> int:
    if isinstance(value, str):
        return len(value) // 256
    return len(value) if isinstance(value, list | dict) else 0


def _whole_size(value: JsonValue) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return _size(value) + sum(map(_whole_size, inside))


def _pattern(
    _validator: "Validator", pattern: JsonValue, instance: JsonValue, _schema: JsonValue
) -> "Iterator[Misfit]":
    from jsonschema.exceptions import ValidationError as Misfit  # noqa: PLC0415

    if isinstance(instance, str) and isinstance(pattern, str):
        try:
            text_with(pattern).validate_python(instance)
        except ValidationError:
            yield Misfit(f"{instance[:_MAX_MISFIT_CHARS]!r} does not match {pattern!r}")


def _unique_items(
    _validator: "Validator", is_asked: JsonValue, instance: JsonValue, _schema: JsonValue
) -> "Iterator[Misfit]":
    from jsonschema.exceptions import ValidationError as Misfit  # noqa: PLC0415

    if is_asked and isinstance(instance, list) and len({_identity(each) for each in instance}) < len(instance):
        yield Misfit("has items that are not unique")


def _identity(value: JsonValue) -> object:
    """Return what two values have in common when JSON Schema takes them for equal: 1 and 1.0, not 1 and true."""
    if isinstance(value, dict):
        return frozenset((name, _identity(each)) for name, each in value.items())
    if isinstance(value, list):
        return tuple(_identity(each) for each in value)
    return (value, isinstance(value, bool))
