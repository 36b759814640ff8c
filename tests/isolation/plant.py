"""What a plant is, and the tools to make one: the smallest change that takes one wall away."""

# ruff: noqa: ANN401  # plants take the place of functions of any kind

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from parley_server.domain.context import RequestContext
from parley_server.storage.page import Page
from parley_server.storage.sql.acting import ADMINISTRATION
from parley_server.storage.sql.database import Reader
from sqlalchemy import ClauseElement, Column, Table, select

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plant:
    """A leak by its name: the sentence that tells it, and what puts it into a server that has not begun."""

    name: str
    what: str
    sow: Callable[[], None]


def in_the_owners_name(owner: type[Any], method: str, column: Column[str], argument: int = 0) -> Callable[[], None]:
    """Take the check of the owner out of a repository's method: it works for whose the named thing is."""

    def sow() -> None:
        original = getattr(owner, method)

        @wraps(original)
        async def leaky(self: Any, *arguments: Any, **named: Any) -> Any:
            return await original(await _as_owner(self, column, arguments[argument]), *arguments, **named)

        setattr(owner, method, leaky)

    return sow


def stream_in_the_owners_name(owner: type[Any], method: str, column: Column[str]) -> Callable[[], None]:
    """Do as `in_the_owners_name` does to a method that yields."""

    def sow() -> None:
        original = getattr(owner, method)

        async def leaky(self: Any, named_id: str, *arguments: Any) -> AsyncGenerator[Any]:
            async for each in original(await _as_owner(self, column, named_id), named_id, *arguments):
                yield each

        setattr(owner, method, leaky)

    return sow


def call_in_the_owners_name(owner: type[Any], method: str, column: Column[str]) -> Callable[[], None]:
    """Do as `in_the_owners_name` does to a method that is handed its context and then an id."""

    def sow() -> None:
        original = getattr(owner, method)

        async def leaky(self: Any, context: RequestContext, named_id: str, *arguments: Any) -> Any:
            found = await owner_of(Reader(self._store._database, ADMINISTRATION), column, named_id)
            return await original(self, of_user(context, found or context.user_id), named_id, *arguments)

        setattr(owner, method, leaky)

    return sow


def list_of_everybody(owner: type[Any], table: Table) -> Callable[[], None]:
    """Leave the user out of a list: everybody's come behind his own."""

    def sow() -> None:
        original = owner.list

        async def leaky(self: Any, *arguments: Any, **named: Any) -> Any:
            page = await original(self, *arguments, **named)
            rows = await self._reader.fetch(select(table.c.user_id).distinct())
            others = [str(row["user_id"]) for row in rows if row["user_id"] != self._context.user_id]
            filters = [each for each in (*arguments, *named.values()) if not hasattr(each, "token")]
            if any(getattr(each, name, "") for each in filters for name in ("conversation_id", "run_id")):
                return page
            more = [await original(_for(self, user_id), *_first(arguments), **named) for user_id in others]
            return Page((*page.items, *(item for each in more for item in each.items)), page.next_token)

        owner.list = leaky

    return sow


def replaced(owner: object, name: str, make: Callable[[Any], object]) -> Callable[[], None]:
    """Put something in the place of an attribute, made of what was there."""

    def sow() -> None:
        setattr(owner, name, make(getattr(owner, name)))

    return sow


def of_user(context: RequestContext, user_id: str) -> RequestContext:
    """Return a context that is another user's."""
    return context.model_copy(update={"user_id": user_id})


async def owner_of(database: Any, column: Column[str], value: str) -> str:
    """Return whose a row is; empty where there is none."""
    rows = await database.fetch(select(column.table.c.user_id).where(column == value))
    return str(rows[0]["user_id"]) if rows else ""


def remembering(
    function: Callable[..., Awaitable[T]], key: Callable[..., object]
) -> Callable[..., Coroutine[Any, Any, T]]:
    """Return a function that answers what it has answered under the same key, whoever asks."""
    answers: dict[object, T] = {}

    @wraps(function)
    async def cached(*arguments: Any, **named: Any) -> T:
        place = key(*arguments, **named)
        if place not in answers:
            answers[place] = await function(*arguments, **named)
        return answers[place]

    return cached


async def _as_owner(repository: Any, column: Column[str], value: str) -> Any:
    found = await owner_of(repository._reader, column, value)
    return _for(repository, found) if found else repository


def _for(repository: Any, user_id: str) -> Any:
    twin = copy.copy(repository)
    twin._context = of_user(repository._context, user_id)
    return twin


def _first(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Ask for the first page: a token is bound to its user."""
    return tuple(type(each)(each.size, "") if hasattr(each, "token") else each for each in arguments)


def open_the_second_wall() -> None:
    """Let every read see everything: a plant is to be found by the suite, not stopped by the database."""

    async def fetch(self: Reader, statement: ClauseElement, parameters: Mapping[str, object] | None = None) -> Any:
        return await self._database.fetch(statement, parameters, ADMINISTRATION)

    Reader.fetch = fetch  # type: ignore[method-assign]  # breaking it is the point
