"""What runs use is in their users' days on every engine: all of it, once, whatever happens to the process."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta

import pytest
from contract.storage.accounts_of_runs import NOON, SetClock, UsingRun, begin, context_of, used
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parley_server.domain.errors import PageTokenInvalidError
from parley_server.domain.run import RunState
from parley_server.domain.run_event import UsageUpdated
from parley_server.domain.usage import Usage
from parley_server.domain.usage_report import UsageGrouping, UsageQuery, UsageSum
from parley_server.storage.page import PageRequest
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.sql import journal, usage_writes
from parley_server.storage.sql.acting import RUN_LOG
from parley_server.storage.sql.run_log import _RunUnit
from parley_server.storage.sql.store import SqlStore

YEAR = UsageQuery(date(2026, 1, 1), date(2026, 12, 31))
DAY, MODEL, USER = UsageGrouping.DAY, UsageGrouping.MODEL, UsageGrouping.USER


async def sums(store: SqlStore, *group_by: UsageGrouping, user_id: str = "") -> tuple[UsageSum, ...]:
    query = replace(YEAR, user_id=user_id, group_by=frozenset(group_by))
    return (await store.usage.sums(query, PageRequest(100))).items


async def test_steps_are_counted_when_they_are_durable_and_runs_when_they_end(
    open_same_store: OpenStore,
) -> None:
    async with open_same_store(clock=SetClock()) as store:
        run = await begin(store, context_of("ann", key_id="key_1"))
        await run.use(used(10))
        (row,) = await sums(store, *UsageGrouping)
        assert (row.day, row.model, row.user_id) == (NOON.date(), "m", "ann")
        assert (row.principal, row.credential_id) == ("user:ann", "key_1")
        assert (row.usage, row.unpriced_calls, row.runs) == (used(10), 1, 0)
        await run.use(used(5))
        await run.end()
        (row,) = await sums(store)
        assert (row.usage.input_tokens, row.usage.model_calls, row.runs) == (15, 2, 1)


async def test_what_another_model_answered_is_on_that_models_account(open_same_store: OpenStore) -> None:
    async with open_same_store(clock=SetClock()) as store:
        run = await begin(store, context_of("ann"))
        await run.use(used(10))
        await run.use(used(3), model="fallback")
        await run.end()
        rows = {row.model: row for row in await sums(store, MODEL)}
        assert {name: row.usage.input_tokens for name, row in rows.items()} == {"m": 10, "fallback": 3}


async def test_a_step_counts_on_the_day_it_was_made(open_same_store: OpenStore) -> None:
    clock = SetClock()
    async with open_same_store(clock=clock) as store:
        run = await begin(store, context_of("ann"))
        for _ in range(3):
            await run.use(used(1))
            clock.now += timedelta(hours=11)
        days = [(row.day, row.usage.input_tokens) for row in await sums(store, DAY)]
        assert days == [(date(2026, 3, 10), 2), (date(2026, 3, 11), 1)]
        assert (await store.usage.sums(replace(YEAR, first_day=date(2026, 3, 11)), PageRequest(9))).items[
            0
        ].usage.input_tokens == 1


async def test_costs_are_summed_by_currency_and_what_is_not_known_is_told(open_same_store: OpenStore) -> None:
    async with open_same_store(clock=SetClock()) as store:
        run = await begin(store, context_of("ann"))
        await run.use(used(1, cost_micros=7))
        await run.use(used(1, cost_micros=5), model="m")
        await run.use(used(1), model="unpriced")
        unknown, known = await sums(store)
        assert (known.usage.cost_micros, known.usage.currency_code, known.unpriced_calls) == (12, "EUR", 0)
        assert (unknown.usage.cost_micros, unknown.usage.currency_code, unknown.unpriced_calls) == (None, "", 1)


async def test_a_users_store_tells_of_him_alone(open_same_store: OpenStore) -> None:
    async with open_same_store(clock=SetClock()) as store:
        for user_id in ("ann", "bob"):
            await (await begin(store, context_of(user_id, service="bot"))).use(used(len(user_id)))
        own = store.for_user(context_of("ann")).usage
        for user_id in ("", "ann", "bob"):
            query = replace(YEAR, user_id=user_id, group_by=frozenset([USER]))
            assert [row.user_id for row in (await own.sums(query, PageRequest(9))).items] == ["ann"]
        assert [row.user_id for row in await sums(store, USER)] == ["ann", "bob"]
        assert [row.user_id for row in await sums(store, USER, user_id="bob")] == ["bob"]
        assert [row.usage.input_tokens for row in await sums(store, UsageGrouping.PRINCIPAL)] == [6]


async def test_pages_of_usage_fit_together_and_their_tokens_are_their_own(open_same_store: OpenStore) -> None:
    clock = SetClock()
    async with open_same_store(clock=clock) as store:
        for user_id in ("ann", "bob", "eve"):
            run = await begin(store, context_of(user_id))
            for _ in range(2):
                await run.use(used(1))
                clock.now += timedelta(days=1)
        query = replace(YEAR, group_by=frozenset([DAY, USER, MODEL]))
        whole = await sums(store, DAY, USER, MODEL)
        paged, token = list[UsageSum](), ""
        while True:
            page = await store.usage.sums(query, PageRequest(2, token))
            paged += page.items
            if not (token := page.next_token):
                break
            with pytest.raises(PageTokenInvalidError):
                await store.for_user(context_of("ann")).usage.sums(query, PageRequest(2, token))
        assert len(whole) == 6
        assert tuple(paged) == whole


async def test_a_commit_whose_outcome_nobody_heard_counts_once(
    engine: Engine, open_same_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is stored, its outcome is lost, and it is stored again: what a lost connection at the commit does."""
    async with open_same_store(clock=SetClock()) as store:
        run = await begin(store, context_of("ann"))
        await run.appender.flush()
        live = store._run_log.find(run.appender.run_id)  # nothing public loses an outcome
        assert live is not None
        run.total += used(10)
        live.append(UsageUpdated(run.total), "")
        batch = live.seal(store._run_log.codec, NOON)
        assert batch is not None
        for _ in range(2):
            await store._writer.run(_RunUnit(store._run_log, batch).apply, acting=RUN_LOG)
            batch.is_retry = True
        live.settle()
        await run.end()
        (row,) = await sums(store)
        assert (row.usage.input_tokens, row.runs) == (10, 1)
        monkeypatch.setattr(journal, "is_there_twice", lambda *_: False)
        await store._writer.run(lambda connection: usage_writes.record(connection, [batch]), acting=RUN_LOG)
        (row,) = await sums(store)
        assert row.usage.input_tokens == 20  # So that this test can fail.
    assert await engine.rows("SELECT count(*) FROM usage_days") == [(1,)]


STEPS = st.lists(
    st.one_of(
        st.builds(lambda tokens: ("use", tokens), st.integers(0, 2**40)),
        st.sampled_from([("lose", 0), ("crash", 0), ("day", 0)]),
    ),
    max_size=6,
)


@pytest.fixture
async def dated_store(open_same_store: OpenStore) -> AsyncIterator[tuple[SqlStore, SetClock]]:
    clock = SetClock()
    async with open_same_store(clock=clock) as store:
        yield store, clock


@given(st.lists(STEPS, min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_days_are_the_sum_of_the_runs(
    dated_store: tuple[SqlStore, SetClock], runs_steps: list[list[tuple[str, int]]]
) -> None:
    """Over crashes, in which a step that was not durable is lost to both."""
    store, clock = dated_store
    clock.now = NOON
    before = sum((row.usage for row in await sums(store)), Usage())
    expected = sum([await play(store, clock, steps) for steps in runs_steps], Usage())
    after = sum((row.usage for row in await sums(store)), Usage()).since(before)
    assert (after.input_tokens, after.model_calls) == (expected.input_tokens, expected.model_calls)


async def play(store: SqlStore, clock: SetClock, steps: list[tuple[str, int]]) -> Usage:
    """Have a run do these steps; return what it says at last that it used."""
    ann = context_of("ann")
    run = await begin(store, ann)
    await run.appender.flush()
    for step, tokens in steps:
        match step:
            case "use":
                await run.use(used(tokens))
            case "day":
                clock.now += timedelta(hours=13)
            case "lose":
                # What is appended and not committed when the process dies.
                await run.appender.append(UsageUpdated(run.total + used(999)))
                run = await taken_over(store, run)
            case _:
                run = await taken_over(store, run)
    await run.end(RunState.CANCELLED)
    return (await store.for_user(ann).runs.get(run.appender.run_id)).usage


async def taken_over(store: SqlStore, run: UsingRun) -> UsingRun:
    """Have the run's owner die, and another take over what is stored of it."""
    live = store._run_log.find(run.appender.run_id)  # dying is no part of the interface
    assert live is not None
    live.fail(OwnershipLostError(live.run_id))
    ((left,), _) = await store.worker.take_over()
    usages = [event.body.usage for event in left.events if isinstance(event.body, UsageUpdated)]
    return UsingRun(store.worker.appender(live.run_id), usages[-1] if usages else Usage())
