"""The doors to accounts: a user's own, and what every call of his begins with."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from parley_server.domain.account import Account, AccountChanges, AccountDefaults

# What a column of an exported row may hold, in JSON.
JsonValue = str | int | float | bool | dict[str, "JsonValue"] | list["JsonValue"] | None


@dataclass(frozen=True, slots=True)
class ExportedRow:
    """A row as its user may have it: `kind` says of what, in lower camel case as the names of its columns."""

    kind: str
    columns: dict[str, JsonValue]


class AccountRepository(Protocol):
    """The user's account, and what is stored of him that no other repository lists."""

    async def get(self) -> Account:
        """Return it; an empty one where nothing was ever set."""
        ...

    async def update(self, changes: AccountChanges, etag: str = "") -> Account:
        """Change it; an empty `etag` is not compared. Raises EtagMismatchError."""
        ...

    def conversation_ids(self) -> AsyncGenerator[str]:
        """Yield the ids of all the user's conversations, the oldest first, a page at a time."""
        ...

    def rows(self) -> AsyncGenerator[ExportedRow]:
        """Yield what an export tells as rows, table by table, a page at a time; secrets are left out."""
        ...


class AccountDirectory(Protocol):
    """Looks accounts up before there is a context to open the store for."""

    async def defaults_of(self, user_id: str) -> AccountDefaults:
        """Return what the user's calls get that say nothing else. Raises StorageUnavailableError."""
        ...
