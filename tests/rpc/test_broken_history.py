"""A conversation whose stored calls have lost their results goes on, and its user is told once."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from parley.v1 import run_pb2
from rpc.run_server import run_server, wish
from run_history import check_run


def lose_results(database: Path) -> int:
    """Do what no version of the server does: leave calls without what they came to."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(
            "UPDATE messages SET item_json = json_set(item_json, '$.result_json', '') "
            "WHERE json_extract(item_json, '$.call_id') IS NOT NULL"
        ).rowcount


async def test_a_broken_history_is_mended_for_the_model_and_told_once(tmp_path: Path) -> None:
    async with run_server(tmp_path, timedelta(seconds=1)) as server:
        limits = run_pb2.Limits(max_steps=2)
        looped = wish("loop")
        looped.limits.CopyFrom(limits)
        conversation_id = (await server.over((await server.start(looped)).run_id)).conversation_id
        assert lose_results(tmp_path / "parley.db") == 2
        again = wish("loop", conversation_id)
        again.limits.CopyFrom(limits)
        events = await server.watch((await server.start(again)).run_id)
        check_run(events)
        assert [event.warning.reason for event in events if event.HasField("warning")] == ["HISTORY_REPAIRED"]
        assert events[-1].run_finished.stop_reason == run_pb2.STOP_REASON_MAX_STEPS
