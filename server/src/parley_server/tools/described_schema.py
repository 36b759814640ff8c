"""Schemas that come from elsewhere: a model's provider refuses a whole request, and so a run, for one that is wrong."""

import json
from collections.abc import Iterator

from pydantic import JsonValue

from parley_server.tools.json_value import clean_json, dump_json

MAX_SCHEMA_DEPTH = 64
_REFERENCES = frozenset({"$ref", "$dynamicRef"})


def read_schema(text: str, max_bytes: int, *, of_object: bool = True) -> str:
    """Return a JSON Schema, of an object unless that is not asked for, in the server's own compact writing.

    Raises:
        ValueError: it is too large, no JSON, no such schema, or it refers to something outside of itself. The sentence
            repeats nothing of it.
    """
    # Here, because it takes 90 ms that only those need whose tools come from elsewhere.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415

    schema = _parsed(text, max_bytes)
    if not isinstance(schema, dict) or (of_object and schema.get("type") != "object"):
        raise ValueError("its schema is not that of an object")
    if any(not reference.startswith("#") for reference in _references(schema)):
        raise ValueError("its schema refers to something outside of itself")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        raise ValueError("its schema is no JSON Schema of draft 2020-12") from None
    return dump_json(schema)


def _parsed(text: str, max_bytes: int) -> JsonValue:
    if len(text.encode()) > max_bytes:
        raise ValueError(f"its schema is over {max_bytes} bytes")
    try:
        parsed: object = json.loads(text)
        return clean_json(parsed, max_depth=MAX_SCHEMA_DEPTH, max_size=32 * max_bytes)
    except (ValueError, RecursionError):
        raise ValueError("its schema is not JSON, or nested too deep") from None


def _references(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key in _REFERENCES and isinstance(inner, str))
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
