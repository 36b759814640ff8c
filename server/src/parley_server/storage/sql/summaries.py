"""Where a run's history begins: with what the newest summary stands for, all before it is of no use to its model."""

from sqlalchemy import ColumnElement, ScalarSelect, Text, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from parley_server.storage.sql.tables import messages

# What the JSON of a summary begins with, and of nothing else.
_SUMMARY = '{"first_message_id"'


class _LastMessageId(ColumnElement[str]):
    """The id of the last message that a summary stands for."""

    inherit_cache = True
    type = Text()

    def __init__(self, item_json: ColumnElement[str]) -> None:
        self.item_json = item_json


@compiles(_LastMessageId, "sqlite")
def _on_sqlite(element: _LastMessageId, compiler: SQLCompiler, **options: object) -> str:
    return f"json_extract({compiler.process(element.item_json, **options)}, '$.last_message_id')"


@compiles(_LastMessageId, "postgresql")
def _on_postgresql(element: _LastMessageId, compiler: SQLCompiler, **options: object) -> str:
    return f"(CAST({compiler.process(element.item_json, **options)} AS json) ->> 'last_message_id')"


def first_position(last_position: ScalarSelect[int]) -> ColumnElement[int]:
    """Return the place of the first run to read, for `:user_id` and `:conversation_id` up to the run at that place.

    It is the run that the newest summary's last message is of, not the message: whoever reads leaves out the rest.
    """
    summary, covered = messages.alias("summary"), messages.alias("covered")
    newest = (
        select(_LastMessageId(summary.c.item_json))
        .where(
            summary.c.user_id == bindparam("user_id"),
            summary.c.conversation_id == bindparam("conversation_id"),
            summary.c.run_position <= last_position,
            func.substr(summary.c.item_json, 1, len(_SUMMARY)) == _SUMMARY,
        )
        .order_by(summary.c.run_position.desc(), summary.c.ordinal.desc())
        .limit(1)
    )
    place = select(covered.c.run_position).where(covered.c.message_id == newest.scalar_subquery())
    return func.coalesce(place.scalar_subquery(), 0)
