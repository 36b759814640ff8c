"""Turns the model that a tool returns into JSON values, unless that would have no end."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass

from pydantic import BaseModel

from parley_server.tools.errors import ResultTooLargeError
from parley_server.tools.json_value import NotJsonError
from parley_server.tools.results import MAX_RESULT_DEPTH, MAX_RESULT_SIZE

_VALUE_COST = 16
# Most of what there is, and nothing is inside.
_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})


def model_json(model: BaseModel) -> object:
    """Return what the model says.

    Writing it unfolds whatever it holds, so that is looked at before: values that come one by one, or that hold
    themselves, would take all the memory there is.

    Raises:
        NotJsonError: it holds an iterator, or is nested too deep or in a cycle.
        ResultTooLargeError: it is far too large.
        ValueError: it holds what is no JSON.
    """
    _Measure(MAX_RESULT_SIZE).add(model, 0)
    return model.model_dump(mode="json")


class _Measure:
    """How much of a value there may still be."""

    def __init__(self, max_size: int) -> None:
        self._left = max_size

    def add(self, value: object, depth: int) -> None:
        if depth > MAX_RESULT_DEPTH:
            raise NotJsonError(f"nested deeper than {MAX_RESULT_DEPTH}")
        for inner in _inside(value):
            self._left -= _VALUE_COST + (len(inner) if isinstance(inner, str | bytes) else 0)
            if self._left < 0:
                raise ResultTooLargeError
            if type(inner) not in _SCALARS:
                self.add(inner, depth + 1)


def _inside(value: object) -> Iterable[object]:
    """Return the values that a value is made of."""
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__
        return (*vars(value).values(), *extra.values()) if extra else vars(value).values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, Iterator):
        raise NotJsonError("an iterator is not JSON")
    return vars(value).values() if is_dataclass(value) and hasattr(value, "__dict__") else ()
