"""A crash after any commit of a run that asks its user: what he approved happens once, or is of unknown outcome."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contract.recovery.asking import WRITES, YES, resolutions_of
from contract.recovery.marking_tools import World, check_effects
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.recovery.test_every_commit import SnapshottingDatabase, durable_events, outcome
from contract.storage.test_repositories import spec
from parley_server.domain.approval import ApprovalState
from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from unit.agents.scripted_model import say

STEPS = [calls(("read", 1), ("book", 2), ("book", 3)), say("All done.")]


@asynccontextmanager
async def approving(engine: RunEngine, store: SqlStore, ann: RequestContext) -> AsyncIterator[None]:
    """Say yes to whatever is asked, for a block."""

    async def approve() -> None:
        wanted = ApprovalFilter(states=(ApprovalState.PENDING,))
        while True:
            for approval in (await store.for_user(ann).approvals.list(wanted, PageRequest(9))).items:
                await engine.decide(ann, approval.approval_id, YES)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(approve())
    try:
        yield
    finally:
        task.cancel()


async def test_after_a_crash_at_any_commit_it_goes_on_and_nothing_happens_twice(
    tmp_path: Path, ann: RequestContext
) -> None:
    world = World()
    database = SnapshottingDatabase(tmp_path / "whole.db", world)
    async with (
        database.opened() as store,
        an_engine(store, RememberingModel(STEPS), world.tools(), policy=WRITES) as engine,
        approving(engine, store, ann),
    ):
        run = await engine.start(ann, spec(), None)
        whole = await history_of(store, ann, run.run_id)
    assert resolutions_of(whole) == ["APPROVED"] * 2
    for crash in database.crashes():
        after, seen = World(), durable_events(crash.path, run.run_id)
        async with (
            SqliteDatabase(crash.path) as left,
            open_store(left, ProtoEventCodec(), b"key") as store,
            an_engine(store, RememberingModel(STEPS), after.tools(), policy=WRITES) as engine,
        ):
            await engine.recover()
            async with approving(engine, store, ann):
                events = await history_of(store, ann, run.run_id)
        assert events[: len(seen)] == seen
        assert outcome(events) == outcome(whole)
        assert resolutions_of(events) == ["APPROVED"] * 2
        for marks in (crash.before, crash.after):
            check_effects([*marks, *after.marks], statuses_of(events))
