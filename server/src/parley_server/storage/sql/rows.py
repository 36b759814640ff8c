"""Between rows and domain values: the only place that knows how a value is written in a column."""

from datetime import datetime
from functools import lru_cache
from typing import TypeVar, cast

from pydantic import TypeAdapter

from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import Conversation
from parley_server.domain.message import AssistantItem, Item, Message, SummaryItem, ToolCallItem, UserItem
from parley_server.domain.principal import PrincipalKind
from parley_server.domain.run import Run, RunEnd, RunSpec, RunState, StopReason
from parley_server.domain.usage import Usage
from parley_server.storage.sql.database import Row, from_micros, to_micros
from parley_server.storage.sql.expiry import etag_of
from parley_server.storage.worker_store import StoredRun

T = TypeVar("T")

ITEM: TypeAdapter[Item] = TypeAdapter(Item)
SPEC: TypeAdapter[RunSpec] = TypeAdapter(RunSpec)
USAGE: TypeAdapter[Usage] = TypeAdapter(Usage)
END: TypeAdapter[RunEnd] = TypeAdapter(RunEnd)
PAIRS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
WORDS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
# By the first key that ITEM writes: to try all of them for every row costs more than to read the row.
_ITEMS: dict[str, TypeAdapter[Item]] = {
    "text": TypeAdapter(AssistantItem),
    "parts": TypeAdapter(UserItem),
    "call_id": TypeAdapter(ToolCallItem),
    "first_message_id": TypeAdapter(SummaryItem),
}

_NO_LABELS = "{}"


def dump(adapter: TypeAdapter[T], value: T) -> str:
    """Write a value as the JSON text of a column."""
    return adapter.dump_json(value).decode()


def string(row: Row, name: str) -> str:
    """Read a text column, empty for NULL."""
    return cast("str | None", row[name]) or ""


def blob(row: Row, name: str) -> bytes:
    """Read a binary column."""
    return cast("bytes", row[name])


def number(row: Row, name: str) -> int:
    """Read an integer column."""
    return cast("int", row[name])


def moment(row: Row, name: str) -> datetime | None:
    """Read a time column."""
    micros = cast("int | None", row[name])
    return None if micros is None else from_micros(micros)


def conversation_of(row: Row) -> Conversation:
    """Read a row of `conversations`."""
    return Conversation(
        conversation_id=string(row, "conversation_id"),
        title=string(row, "title"),
        create_time=from_micros(number(row, "create_time")),
        update_time=from_micros(number(row, "update_time")),
        etag=etag_of(number(row, "revision"), cast("int | None", row["expire_time"])),
        metadata=PAIRS.validate_json(string(row, "metadata_json")),
        active_run_id=string(row, "active_run_id"),
        expire_time=moment(row, "expire_time"),
    )


def message_of(row: Row) -> Message:
    """Read a row of `messages`."""
    return Message(
        message_id=string(row, "message_id"),
        conversation_id=string(row, "conversation_id"),
        run_id=string(row, "run_id"),
        create_time=from_micros(number(row, "create_time")),
        item=item_of(row),
        incomplete=bool(row["incomplete"]),
    )


def item_of(row: Row) -> Item:
    """Read what a row of `messages` holds."""
    written = string(row, "item_json")
    return _ITEMS.get(written[2 : written.find('"', 2)], ITEM).validate_json(written)


def run_of(row: Row) -> Run:
    """Read a row of `runs`; without the output where it is not selected. Of one under way its log knows more."""
    end = string(row, "end_json")
    return Run(
        run_id=string(row, "run_id"),
        conversation_id=string(row, "conversation_id"),
        agent_id=string(row, "agent_id"),
        state=RunState(string(row, "state")),
        attempt=number(row, "attempt"),
        create_time=from_micros(number(row, "create_time")),
        deadline_time=from_micros(number(row, "deadline_time")),
        last_seq=number(row, "last_seq"),
        labels=_labels_of(string(row, "labels_json")),
        usage=USAGE.validate_json(string(row, "usage_json")),
        start_time=moment(row, "start_time"),
        finish_time=moment(row, "finish_time"),
        end=_end_of(end) if end else None,
        output_text=_selected(row, "output_text"),
        output_json=_selected(row, "output_json"),
    )


def _selected(row: Row, name: str) -> str:
    return string(row, name) if name in row.keys() else ""  # noqa: SIM118  # sqlite3.Row


def _labels_of(text: str) -> dict[str, str]:
    return {} if text == _NO_LABELS else PAIRS.validate_json(text)


@lru_cache(maxsize=256)
def _end_of(text: str) -> RunEnd:
    """Read how a run ended. Most ended alike."""
    return END.validate_json(text)


def stored_run_of(row: Row) -> StoredRun:
    """Read a row of `runs`, joined with `is_active`, with what its execution needs."""
    return StoredRun(
        run=run_of(row),
        context=RequestContext.from_json(string(row, "context_json")),
        spec=SPEC.validate_json(string(row, "spec_json")),
        is_active=bool(row["is_active"]),
        cancel_reason=StopReason(string(row, "cancel_reason")) if row["cancel_reason"] else None,
        grace_end_time=moment(row, "grace_end_time"),
    )


def api_key_of(row: Row) -> ApiKey:
    """Read a row of `api_keys`, without its hashes."""
    return ApiKey(
        key_id=string(row, "key_id"),
        kind=PrincipalKind(string(row, "kind")),
        subject=string(row, "subject"),
        scopes=frozenset(WORDS.validate_json(string(row, "scopes_json"))),
        act_as=WORDS.validate_json(string(row, "act_as_json")),
        create_time=from_micros(number(row, "create_time")),
        expire_time=moment(row, "expire_time"),
        revoke_time=moment(row, "revoke_time"),
        last_use_time=moment(row, "last_use_time"),
        previous_secret_expire_time=moment(row, "previous_secret_expire_time"),
    )


def stored_key_of(row: Row) -> StoredKey:
    """Read a row of `api_keys` with its hashes."""
    previous = cast("bytes | None", row["previous_secret_hash"])
    return StoredKey(api_key_of(row), blob(row, "secret_hash"), previous)


def row_of_key(stored: StoredKey) -> dict[str, object]:
    """Write a key as a row of `api_keys`."""
    key = stored.key
    return {
        "key_id": key.key_id,
        "kind": key.kind,
        "subject": key.subject,
        "scopes_json": dump(WORDS, tuple(sorted(key.scopes))),
        "act_as_json": dump(WORDS, key.act_as),
        "secret_hash": stored.secret_hash,
        "previous_secret_hash": stored.previous_secret_hash,
        "create_time": to_micros(key.create_time),
        "expire_time": _micros(key.expire_time),
        "revoke_time": _micros(key.revoke_time),
        "last_use_time": _micros(key.last_use_time),
        "previous_secret_expire_time": _micros(key.previous_secret_expire_time),
    }


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)
