"""Full text over titles, messages and notes: the same words, and so the same hits, on every engine.

Words are found here, not by the engines, whose ideas of a word differ; the engine's own index (SQLite's FTS5,
PostgreSQL's GIN) takes them as they are. Every text has its user and its conversation marked by two more words, so
that a search goes through the user's own texts alone.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from sqlalchemy import Boolean, ColumnElement, Connection, String, delete, insert, literal, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.operators import OperatorType

from parley_server.domain.content import text_of
from parley_server.domain.message import AssistantItem, Item, UserItem
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import conversations, search_texts

# PostgreSQL's function of the user's own texts that have some words.
OWN_TEXTS = "own_texts_with"

_INSERT = insert(search_texts)

# What is searched of a text, and what is kept of a word: an index entry has its limits on PostgreSQL.
MAX_TEXT_CHARS = 65_536
MAX_WORD_CHARS = 64

_WORD = re.compile(r"[^\W_]+")
# No letter or digit, so no word of anybody's.
_MARK = "\N{CURRENCY SIGN}"


def words_of(text: str) -> list[str]:
    """Return a text's words, each once, without case and accents: runs of letters and digits."""
    text = text[:MAX_TEXT_CHARS]
    plain = text.lower() if text.isascii() else _without_accents(text)
    return list(dict.fromkeys(word[:MAX_WORD_CHARS] for word in _WORD.findall(plain)))


def searchable(item: Item) -> str:
    """Return what can be found of a message: what the user and the agent said."""
    match item:
        case UserItem():
            return text_of(item.parts)
        case AssistantItem():
            return item.text
        case _:
            return ""


def add_messages(connection: Connection, user_id: str, conversation_id: str, items: Iterable[Item]) -> None:
    """Make messages findable."""
    _add(connection, user_id, conversation_id, map(searchable, items), is_title=False)


def add_title(connection: Connection, user_id: str, conversation_id: str, title: str) -> None:
    """Make a new conversation findable by its title."""
    _add(connection, user_id, conversation_id, [title], is_title=True)


def set_title(connection: Connection, user_id: str, conversation_id: str, title: str) -> None:
    """Make a conversation findable by its title, and by no former one."""
    connection.execute(delete(search_texts).where(*_of(conversation_id), search_texts.c.is_title))
    add_title(connection, user_id, conversation_id, title)


def add_note(connection: Connection, user_id: str, note_id: str, text: str) -> None:
    """Make a note findable; its id stands where a conversation's would."""
    _add(connection, user_id, note_id, [text], is_title=False)


def remove(connection: Connection, conversation_id: str) -> None:
    """Let a conversation, or a note, be found no more."""
    connection.execute(delete(search_texts).where(*_of(conversation_id)))


def remove_some(connection: Connection, conversation_id: str, limit: int) -> int:
    """Remove up to `limit` texts of a conversation that nobody finds any more; return how many."""
    row: ColumnElement[object] = literal_column("ctid" if connection.dialect.name == "postgresql" else "rowid")
    some = select(row).select_from(search_texts).where(*_of(conversation_id)).limit(limit)
    return connection.execute(delete(search_texts).where(row.in_(some))).rowcount


def remove_some_of_user(connection: Connection, user_id: str, limit: int) -> int:
    """Remove up to `limit` texts of a user, whatever they are of; return how many."""
    row: ColumnElement[object] = literal_column("ctid" if connection.dialect.name == "postgresql" else "rowid")
    # Two users may share a mark.
    of_user = (search_texts.c.user_id == user_id, _HasWords([_mark(user_id)]))
    some = select(row).select_from(search_texts).where(*of_user).limit(limit)
    return connection.execute(delete(search_texts).where(row.in_(some))).rowcount


def matching(
    user_id: str, query: str, found_id: ColumnElement[str] = conversations.c.conversation_id
) -> list[ColumnElement[bool]]:
    """Return the conditions on the user's conversations: one for each word, the last one as a word's beginning.

    With another `found_id` they are on what has that column: `notes.note_id`.
    """
    words = words_of(query)
    return [
        _IsFound(found_id, user_id, _HasWords([_mark(user_id), word], is_prefix=place == len(words)))
        for place, word in enumerate(words, 1)
    ]


def _add(connection: Connection, user_id: str, conversation_id: str, texts: Iterable[str], *, is_title: bool) -> None:
    rows = [
        {
            "user_id": user_id,
            "conversation_id": conversation_id,
            "is_title": is_title,
            "words": " ".join([_mark(user_id), _mark(conversation_id), *words]),
        }
        for text in texts
        if (words := words_of(text))
    ]
    if rows:
        write(connection, _INSERT, *rows)


def _of(conversation_id: str) -> tuple[ColumnElement[bool], ...]:
    return search_texts.c.conversation_id == conversation_id, _HasWords([_mark(conversation_id)])


class _HasWords(ColumnElement[bool]):
    """A row of `search_texts` has all these words, the last one perhaps as a beginning only.

    Words of texts and marks hold nothing that either engine's query language would have to be told of.
    """

    inherit_cache = False
    type = Boolean()

    def __init__(self, words: Sequence[str], *, is_prefix: bool = False) -> None:
        self.fts5 = literal(" AND ".join(f'"{word}"' for word in words) + ("*" if is_prefix else ""))
        self.tsquery = literal(" & ".join(f"'{word}'" for word in words) + (":*" if is_prefix else ""))

    def self_group(self, against: OperatorType | None = None) -> "_HasWords":  # noqa: ARG002  # SQLAlchemy's own name
        """Stay as it is: compared with 1, as SQLite's other booleans are, FTS5 would not be asked."""
        return self


class _IsFound(ColumnElement[bool]):
    """A column is the id of one of the user's texts that have all these words.

    PostgreSQL has a function for that: see `row_security`.
    """

    inherit_cache = False
    type = Boolean()

    def __init__(self, found_id: ColumnElement[str], user_id: str, has_words: _HasWords) -> None:
        own_texts = select(search_texts.c.conversation_id).where(search_texts.c.user_id == user_id, has_words)
        self.by_texts = found_id.in_(own_texts)
        self.by_function = found_id.in_(select(_TheirIds(has_words.tsquery)))


class _TheirIds(ColumnElement[str]):
    inherit_cache = False
    type = String()

    def __init__(self, tsquery: ColumnElement[str]) -> None:
        self.tsquery = tsquery


@compiles(_IsFound, "sqlite")
def _found_on_sqlite(element: _IsFound, compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(element.by_texts, **options)


@compiles(_IsFound, "postgresql")
def _found_on_postgresql(element: _IsFound, compiler: SQLCompiler, **options: object) -> str:
    return compiler.process(element.by_function, **options)


@compiles(_TheirIds, "postgresql")
def _ids_on_postgresql(element: _TheirIds, compiler: SQLCompiler, **options: object) -> str:
    return f"{OWN_TEXTS}(CAST({compiler.process(element.tsquery, **options)} AS tsquery))"


@compiles(_HasWords, "sqlite")
def _on_sqlite(element: _HasWords, compiler: SQLCompiler, **options: object) -> str:
    return f"search_texts MATCH {compiler.process(element.fts5, **options)}"


@compiles(_HasWords, "postgresql")
def _on_postgresql(element: _HasWords, compiler: SQLCompiler, **options: object) -> str:
    matched = compiler.process(element.tsquery, **options)
    return f"array_to_tsvector(string_to_array(search_texts.words, ' ')) @@ CAST({matched} AS tsquery)"


def _mark(name: str) -> str:
    return _MARK + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))
