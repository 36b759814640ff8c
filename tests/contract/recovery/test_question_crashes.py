"""A crash after any commit of a run whose tools ask: no question leaves a doubt, what was confirmed happens once."""

import sqlite3
from contextlib import closing
from pathlib import Path

from contract.recovery.asking import resolutions_of
from contract.recovery.marking_tools import check_effects
from contract.recovery.questioning import QuestioningWorld
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.recovery.test_approval_crashes import approving
from contract.recovery.test_every_commit import SnapshottingDatabase, durable_events
from contract.storage.test_repositories import spec
from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from unit.agents.scripted_model import say

STEPS = [calls(("book", 2), ("put", 1), ("read", 1)), say("All done.")]


async def test_after_a_crash_at_any_commit_it_goes_on_and_nothing_happens_twice(
    tmp_path: Path, ann: RequestContext
) -> None:
    world = QuestioningWorld()
    database = SnapshottingDatabase(tmp_path / "whole.db", world)
    async with (
        database.opened() as store,
        an_engine(store, RememberingModel(STEPS), world.tools()) as engine,
        approving(engine, store, ann),
    ):
        run = await engine.start(ann, spec(), None)
        whole = await history_of(store, ann, run.run_id)
    assert resolutions_of(whole) == ["APPROVED"] * 4
    for crash in database.crashes():
        after, seen = QuestioningWorld(), durable_events(crash.path, run.run_id)
        may_have_happened = is_there(crash.path, "tool_calls WHERE name = 'book' AND state = 'dispatched'")
        assert not (
            may_have_happened and is_there(crash.path, "approvals WHERE tool_name = 'book' AND state = 'pending'")
        )
        async with (
            SqliteDatabase(crash.path) as left,
            open_store(left, ProtoEventCodec(), b"key") as store,
            an_engine(store, RememberingModel(STEPS), after.tools()) as engine,
        ):
            await engine.recover()
            async with approving(engine, store, ann):
                events = await history_of(store, ann, run.run_id)
        assert events[: len(seen)] == seen
        # Only between a dispatch and what the tool says to it nobody can know.
        assert (statuses_of(events)["book", 2] == "UNKNOWN_OUTCOME") == may_have_happened
        for marks in (crash.before, crash.after):
            check_effects([*marks, *after.marks], statuses_of(events))


def is_there(database: Path, which: str) -> bool:
    """Tell whether a table has such a row."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"SELECT 1 FROM {which}").fetchone() is not None  # noqa: S608  # words of this test
