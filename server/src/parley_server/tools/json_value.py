"""JSON values from outside: checked, bounded, and free of what no store takes."""

import json
import math
from collections.abc import Callable, Mapping

from pydantic import JsonValue
from pydantic_core import to_json

from parley_server.domain.content import storable_text

_VALUE_COST = 16


class NotJsonError(ValueError):
    """The value is not JSON: another type, NaN or infinity, a key that is no string, nested too deep or in a cycle."""


class TooLargeError(ValueError):
    """The value is JSON and larger than allowed."""


def clean_json(value: object, *, max_depth: int, max_size: int, edit: Callable[[str], str] = str) -> JsonValue:
    """Copy a JSON value, its texts as `edit` returns them, and storable.

    `max_size` is in characters of text plus 16 for every value, so a small object that unfolds without end is
    refused too. Raises NotJsonError, TooLargeError.
    """
    return _Cleaner(max_depth, max_size, edit).clean(value, 0)


def dump_json(value: JsonValue) -> str:
    """Write compact JSON. Raises ValueError for an integer beyond Python's limit of digits."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dump_lines(value: JsonValue) -> str:
    """Write JSON with every element on a line of its own."""
    return to_json(value, indent=0).decode()


class _Cleaner:
    """One copy under way, and how much of it is still allowed."""

    def __init__(self, max_depth: int, max_size: int, edit: Callable[[str], str]) -> None:
        self._edit = edit
        self._max_depth = max_depth
        self._left = max_size

    def clean(self, value: object, depth: int) -> JsonValue:
        self._spend(_VALUE_COST)
        if value is None or isinstance(value, bool | int):
            # More digits than one in three bits there are not.
            self._spend((value or 0).bit_length() // 3)
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, float):
            return _finite(value)
        return self._container(value, depth + 1)

    def _container(self, value: object, depth: int) -> JsonValue:
        if depth > self._max_depth:
            raise NotJsonError(f"nested deeper than {self._max_depth}")
        if isinstance(value, Mapping):
            return {self._key(key): self.clean(inner, depth) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(inner, depth) for inner in value]
        raise NotJsonError(f"a {type(value).__name__} is not JSON")

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise NotJsonError("a key is not a string")
        return self._text(key)

    def _text(self, text: str) -> str:
        self._spend(len(text))
        return storable_text(self._edit(text))

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLargeError("larger than allowed")


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise NotJsonError("NaN and infinity are not JSON")
    return number
