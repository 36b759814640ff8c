"""The JSON Schema that a caller asks an answer to fit: what of it there is here, and whether it is sound.

Keywords of JSON Schema 2020-12 that say something about a value and can be checked in bounded time; one that is not
among them is refused, because an answer would seem to be checked for it. `format` is told to the model alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NoReturn

from pydantic import JsonValue

from parley_server.agents.pattern import MAX_PATTERN_SIZE, is_pattern, pattern_size
from parley_server.domain.errors import InvalidRequestError, Violation
from parley_server.llm.model_service import OutputSchema
from parley_server.tools.json_value import NotJsonError, TooLargeError, clean_json

FIELD = "run.output_schema_json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 64

_MAX_SIZE = 32 * MAX_SCHEMA_BYTES
_MAX_FAULTS = 8
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
# What OpenAI's strict mode takes, beside what it demands of objects.
_STRICT_KEYWORDS = frozenset(
    {"$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "description", "enum", "exclusiveMaximum"}
    | {"exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern"}
    | {"properties", "required", "title", "type"}
)
_STRICT_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"},
)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: JsonValue) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_type(value: JsonValue) -> bool:
    named = value if isinstance(value, list) else [value]
    return bool(named) and all(isinstance(each, str) and each in _TYPES for each in named)


_Check = tuple[Callable[[JsonValue], bool], str]
_ANY: _Check = (lambda _: True, "")
_TEXT: _Check = (lambda value: isinstance(value, str), "must be a text")
_COUNT: _Check = (_is_count, "must be a whole number from 0")
_NUMBER: _Check = (_is_number, "must be a number")
_TEXTS: _Check = (_is_texts, "must be a list of texts")

_PLAIN: Mapping[str, _Check] = MappingProxyType(
    {
        **dict.fromkeys(("$comment", "description", "title", "format", "contentEncoding", "contentMediaType"), _TEXT),
        **dict.fromkeys(("default", "examples", "deprecated", "readOnly", "writeOnly", "const"), _ANY),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
        **dict.fromkeys(("minContains", "maxContains"), _COUNT),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
        "$schema": (lambda value: value in (DIALECT, DIALECT + "#"), f"must be {DIALECT}"),
        "type": (_is_type, f"must be of {', '.join(sorted(_TYPES))}"),
        "enum": (lambda value: isinstance(value, list) and bool(value), "must be a list that is not empty"),
        "required": _TEXTS,
        "dependentRequired": (
            lambda value: isinstance(value, dict) and all(_is_texts(each) for each in value.values()),
            "must be lists of texts by name",
        ),
        "multipleOf": (lambda value: _is_number(value) and float(str(value)) > 0, "must be a number above 0"),
        "uniqueItems": (lambda value: isinstance(value, bool), "must be true or false"),
        "pattern": (
            lambda value: isinstance(value, str) and is_pattern(value),
            "must be a regular expression, without backreferences and lookaround",
        ),
    }
)
_ONE_SCHEMA = frozenset({"items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"})
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMA_MAPS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
KEYWORDS = frozenset({"$ref", *_PLAIN, *_ONE_SCHEMA, *_SCHEMA_LISTS, *_SCHEMA_MAPS})


def read_output_schema(text: str) -> tuple[OutputSchema, JsonValue]:
    """Read a schema, for the model and as a value.

    Raises:
        InvalidRequestError: it is no JSON object, too large or too deep, or no schema of the keywords that there are.
    """
    schema = _parse(text)
    reading = _Reading(schema)
    faults = [Violation(FIELD, fault) for _, fault in zip(range(_MAX_FAULTS), reading.faults(), strict=False)]
    if faults:
        raise InvalidRequestError.of_all(faults)
    is_object = schema.get("type") == "object"
    return OutputSchema(text, is_object, is_strict=is_object and reading.is_strict), schema


def _parse(text: str) -> dict[str, JsonValue]:
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise InvalidRequestError.of(FIELD, f"is over {MAX_SCHEMA_BYTES} bytes")
    try:
        parsed: object = json.loads(text, parse_constant=_refuse_constant)
        value = clean_json(parsed, max_depth=MAX_SCHEMA_DEPTH, max_size=_MAX_SIZE)
    except (NotJsonError, TooLargeError) as error:
        raise InvalidRequestError.of(FIELD, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError.of(FIELD, "is not valid JSON") from error
    if not isinstance(value, dict):
        raise InvalidRequestError.of(FIELD, "must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON")


class _Reading:
    """One pass over a schema; `is_strict` is settled by it."""

    def __init__(self, root: dict[str, JsonValue]) -> None:
        self._root = root
        self.is_strict = True
        # What a reference may name, by its address.
        self._schemas: set[int] = set()
        self._references: list[tuple[str, str]] = []
        self._pattern_size = 0

    def faults(self) -> Iterator[str]:
        """Yield what is wrong, by the places in the schema."""
        yield from self._schema(self._root, "#")
        for path, reference in self._references:
            if id(_target(self._root, reference)) not in self._schemas:
                yield f"{path}/$ref: must name a schema inside of this one, as in #/$defs/NAME"

    def _schema(self, schema: JsonValue, path: str) -> Iterator[str]:
        if isinstance(schema, bool):
            self.is_strict &= path.endswith("/additionalProperties")
            return
        if not isinstance(schema, dict):
            yield f"{path}: must be a schema, which is an object, true or false"
            return
        self._schemas.add(id(schema))
        pattern = schema.get("pattern")
        self._pattern_size += pattern_size(pattern) if isinstance(pattern, str) else 0
        if self._pattern_size > MAX_PATTERN_SIZE:
            yield f"{path}/pattern: too large when counted repetitions are written out, by itself or with the others"
            return
        self.is_strict &= _is_strict(schema)
        for keyword, value in schema.items():
            yield from self._keyword(keyword, value, f"{path}/{_pointer_token(keyword)}")

    def _keyword(self, keyword: str, value: JsonValue, path: str) -> Iterator[str]:
        if keyword == "$ref" and isinstance(value, str):
            self._references.append((path.removesuffix("/$ref"), value))
        elif keyword in _PLAIN:
            is_right, demand = _PLAIN[keyword]
            if not is_right(value):
                yield f"{path}: {demand}"
        elif keyword in _ONE_SCHEMA:
            yield from self._schema(value, path)
        elif keyword in _SCHEMA_LISTS and isinstance(value, list) and value:
            for place, each in enumerate(value):
                yield from self._schema(each, f"{path}/{place}")
        elif keyword in _SCHEMA_MAPS and isinstance(value, dict):
            for name, each in value.items():
                yield from self._schema(each, f"{path}/{_pointer_token(name)}")
        elif not keyword.startswith("x-"):
            yield f"{path}: has the wrong form" if keyword in KEYWORDS else f"{path}: this keyword is not supported"


def _is_strict(schema: dict[str, JsonValue]) -> bool:
    """Tell whether a server of OpenAI's takes this level of a schema in its strict mode."""
    if not schema.keys() <= _STRICT_KEYWORDS or not schema.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        return False
    if schema.get("format", "date") not in _STRICT_FORMATS:
        return False
    if schema.get("type") != "object" and "properties" not in schema:
        return True
    properties, required = schema.get("properties", {}), schema.get("required", [])
    is_whole = (
        isinstance(properties, dict) and isinstance(required, list) and set(properties) == set(map(str, required))
    )
    return is_whole and schema.get("additionalProperties") is False


def _target(root: JsonValue, reference: str) -> JsonValue:
    """Follow a reference of the form `#/$defs/NAME`; None where it leads nowhere."""
    if reference == "#":
        return root
    found: JsonValue = root if reference.startswith("#/") and "%" not in reference else None
    for token in reference.removeprefix("#/").split("/"):
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found


def _pointer_token(name: str) -> str:
    return name[:64].replace("~", "~0").replace("/", "~1")
