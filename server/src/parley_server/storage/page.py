"""Pages of lists, as every repository gives them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, newest first unless the method says otherwise; `next_token` is empty at the end."""

    items: tuple[T, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: at most `size` items after the place `token` names (empty: the first page)."""

    size: int
    token: str = ""
