"""A database with much in it: one real turn, cloned past the store, and what a turn costs on top of it."""

import asyncio
import hashlib
import random
import resource
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from durability.stores import accepted, context_of, opened
from parley_server.domain.message import AssistantItem
from parley_server.domain.run import RunEnd, RunState, StopReason
from parley_server.domain.run_event import MessageCompleted, RunStarted, TextDelta, UsageUpdated
from parley_server.domain.usage import Usage
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import RunFilter
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore

DELTAS = 50
USER_CONVERSATIONS = 100
EVENTS_OF_A_CLONE = 10
READS = 100

_QUESTION = "What did we agree on for the spring timetable, and who is still waiting for an answer? " * 2
_DELTA = "an answer's few words, "
_TABLES = ("conversations", "runs", "messages", "run_archive")
_VOCABULARY = [f"word{number}" for number in range(50_000)]
_NAME_LENGTH = 32

Row = tuple[object, ...]


@dataclass(frozen=True)
class Turn:
    """One turn: ms of a clock and of CPU for accepting, streaming and ending it; the median ms of each read."""

    turn_ms: float
    turn_cpu_ms: float
    get_ms: float
    runs_ms: float
    messages_ms: float


async def take_turn(store: SqlStore, user_id: str, deltas: int = DELTAS) -> tuple[str, str]:
    """Ask and be answered, every delta in a commit of its own; return the run's and the conversation's id."""
    run, pen = await accepted(store, context_of(user_id), _QUESTION)
    await pen.begin(RunStarted("fake"))
    for _ in range(deltas):
        await pen.append(TextDelta(_DELTA), "item_a")
        await pen.flush()
    text = _DELTA * deltas
    await pen.append(UsageUpdated(Usage(input_tokens=200, output_tokens=deltas)))
    await pen.append(MessageCompleted(text), "item_a")
    item = FinishedItem("item_" + run.run_id.removeprefix("run_"), AssistantItem(text))
    end = RunEnd(RunState.SUCCEEDED, StopReason.ANSWERED)
    await pen.finish(RunConclusion(end, Usage(), (item,), item.message_id, text))
    return run.run_id, run.conversation_id


async def measure(store: SqlStore, user_id: str) -> Turn:
    """Take a turn as a user with a history, and read it back."""
    began, began_cpu = time.perf_counter(), _cpu_s()
    run_id, conversation_id = await take_turn(store, user_id)
    turn_ms, turn_cpu_ms = (time.perf_counter() - began) * 1000, (_cpu_s() - began_cpu) * 1000
    mine = store.for_user(context_of(user_id))
    page = PageRequest(50)
    times: list[float] = []
    for read in (
        lambda: mine.runs.get(run_id),
        lambda: mine.runs.list(RunFilter(), page),
        lambda: mine.conversations.messages(conversation_id, page),
    ):
        waits: list[float] = []
        for _ in range(READS):
            began = time.perf_counter()
            await read()
            waits.append((time.perf_counter() - began) * 1000)
        # The first one after a write reads its pages again, and a busy machine holds up any: neither is what is asked.
        times.append(statistics.median(waits))
    return Turn(turn_ms, turn_cpu_ms, *times)


async def make(path: Path, conversations: int) -> None:
    """Make a database with so many conversations of one turn, each of EVENTS_OF_A_CLONE events."""
    async with opened(SqliteDatabase(path)) as store:
        # Accepted, started, usage, message and end are five.
        run_id, _ = await take_turn(store, user_of(0), EVENTS_OF_A_CLONE - 5)
        await asyncio.sleep(1.5)  # the journal is swept
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000", "foreign_keys = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    template = _Template(connection, run_id)
    connection.execute("BEGIN")
    for first in range(1, conversations, 10_000):
        template.clone(range(first, min(first + 10_000, conversations)))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


class _Template:
    """The rows of one turn. A clone has ids and words of its own, and is otherwise the same."""

    def __init__(self, connection: sqlite3.Connection, run_id: str) -> None:
        self._connection = connection
        self._rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in _TABLES}  # noqa: S608
        self._texts = connection.execute("SELECT is_title, words FROM search_texts").fetchall()
        ids = [str(row[0]) for table in ("conversations", "messages") for row in self._rows[table]]
        # All ids made by one turn, and each with a number of its own for every clone.
        self._ids = {run_id, *ids}
        self._random = random.Random(1)  # noqa: S311  # words, not secrets

    def clone(self, numbers: range) -> None:
        """Insert a clone for each number."""
        for table, rows in self._rows.items():
            places = ", ".join("?" * len(rows[0]))
            clones = (self._row(row, number) for number in numbers for row in rows)
            self._connection.executemany(f"INSERT INTO {table} VALUES ({places})", clones)  # noqa: S608
        insert = "INSERT INTO search_texts (user_id, conversation_id, is_title, words) VALUES (?, ?, ?, ?)"
        self._connection.executemany(insert, (row for number in numbers for row in self._search_rows(number)))

    def _row(self, row: Row, number: int) -> Row:
        return tuple(self._value(value, number) for value in row)

    def _value(self, value: object, number: int) -> object:
        if isinstance(value, bytes):
            for old in self._ids:
                value = value.replace(old.encode(), _id(old, number).encode())
        elif isinstance(value, str):
            for old in self._ids:
                value = value.replace(old, _id(old, number))
            value = value.replace(user_of(0), user_of(number))
        return value

    def _search_rows(self, number: int) -> Iterator[Row]:
        conversation_id = _id(next(each for each in self._ids if each.startswith("conv_")), number)
        for is_title, words in self._texts:
            text = self._random.choices(_VOCABULARY, k=len(words.split()) - 2)
            marked = " ".join([_mark(user_of(number)), _mark(conversation_id), *text])
            yield user_of(number), conversation_id, is_title, marked


def _id(old: str, number: int) -> str:
    """Return an id of the same length that sorts by the number, before the ids of this year."""
    kind, _, letters = old.partition("_")
    return f"{kind}_01A{number:09d}{letters[12:]}"


def user_of(number: int) -> str:
    """Return one of the users, each of whom has so many conversations; all names are of one length."""
    return f"user-{number // USER_CONVERSATIONS:0{_NAME_LENGTH - 5}d}"


def _mark(name: str) -> str:
    """Return the word that marks a text with its user or conversation; see `search.py`."""
    return "\N{CURRENCY SIGN}" + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
