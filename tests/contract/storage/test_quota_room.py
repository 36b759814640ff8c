"""Limits on runs, tokens and costs on every engine: exactly as much as they say, however many ask at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.accounts_of_runs import ANN, NOON, SetClock, UsingRun, begin, context_of, limit, used
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley_server.domain.context import RequestContext
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.quota import Limit, Measure, Subject, SubjectKind
from parley_server.domain.quota_errors import BudgetExceededError, QuotaExceededError
from parley_server.domain.run import ConcurrencyPolicy, RunState
from parley_server.domain.usage import Usage
from parley_server.storage.repositories import Acceptance
from parley_server.storage.sql.store import SqlStore

BOT = Subject(SubjectKind.SERVICE, "bot")
KEY = Subject(SubjectKind.KEY, "key_1")
EVERYONE = Subject(SubjectKind.EVERYONE)
TOKENS, RUNS = Measure.TOKENS_PER_MINUTE, Measure.CONCURRENT_RUNS
DAY, MONTH = Measure.COST_PER_DAY, Measure.COST_PER_MONTH
NEVER = None


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(open_same_store: OpenStore, clock: SetClock) -> AsyncIterator[SqlStore]:
    async with open_same_store(clock=clock) as opened:
        yield opened


async def refusals(asked: Sequence[Awaitable[object]]) -> list[QuotaExceededError]:
    """Ask all at once; return the refusals."""
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, QuotaExceededError)]
    assert not [each for each in outcomes if isinstance(each, BaseException) and each not in refused]
    return refused


async def wait_s(asked: Awaitable[object]) -> float | None:
    with pytest.raises(QuotaExceededError) as refused:
        await asked
    return refused.value.retry_after_s


async def hold(run: UsingRun, usage: Usage, *limits: Limit, model: str = "m") -> None:
    await run.appender.hold(model, usage, limits)


# All of them at a user's limit; the others are counted likewise, and fewer will do to show by what.
MANY = [(ANN, 100), (BOT, 20), (KEY, 20), (EVERYONE, 20)]


@pytest.mark.parametrize(("subject", "asking"), MANY)
async def test_of_a_hundred_runs_at_once_exactly_ten_are_accepted(
    store: SqlStore, subject: Subject, asking: int
) -> None:
    ann, ten = context_of("ann", "bot", "key_1"), limit(RUNS, 10, subject)
    accept = store.for_user(ann).runs.accept
    refused = await refusals([accept(spec(str(n)), None, [ten]) for n in range(asking)])
    assert len(refused) == asking - 10
    assert refused[0].metadata == {"limit": "concurrent_runs", "amount": "10", "subject": subject.kind}
    # One that is somebody else's counts where all callers do, and nowhere else.
    eve = limit(RUNS, 1, subject if subject is EVERYONE else Subject(subject.kind, "eve"))
    is_refused = bool(await refusals([store.for_user(context_of("eve")).runs.accept(spec(), None, [eve])]))
    assert is_refused == (subject is EVERYONE)


async def test_a_run_that_ends_makes_room_for_one_however_many_are_cancelled_meanwhile(store: SqlStore) -> None:
    """Cancels race with new runs, and never are there more than three."""
    ann, three = context_of("ann"), limit(RUNS, 3)
    runs = [await begin(store, ann, [three]) for _ in range(3)]
    accept = store.for_user(ann).runs.accept
    for _ in range(5):
        asked = [run.end(RunState.CANCELLED) for run in runs[:2]]
        outcomes = await asyncio.gather(
            *asked, *(accept(spec(), None, [three]) for _ in range(20)), return_exceptions=True
        )
        accepted = [each for each in outcomes[2:] if isinstance(each, Acceptance)]
        assert len(accepted) <= 2
        missing = 2 - len(accepted)
        runs = [runs[2], *(UsingRun(store.worker.appender(each.run.run_id)) for each in accepted)]
        runs += [await begin(store, ann, [three]) for _ in range(missing)]
        assert await wait_s(accept(spec(), None, [three])) == 1.0


async def test_a_request_that_was_accepted_before_needs_no_room(store: SqlStore) -> None:
    accept, one = store.for_user(context_of("ann")).runs.accept, limit(RUNS, 1)
    idempotency = Idempotency("id", "run", b"same")
    first = await accept(spec(), idempotency, [one])
    again = await asyncio.gather(*(accept(spec(), idempotency, [one]) for _ in range(5)))
    assert {each.run.run_id for each in again} == {first.run.run_id}
    assert await refusals([accept(spec(), Idempotency("other", "run", b"same"), [one])])
    # What was refused is not remembered: the same request is accepted once there is room.
    await UsingRun(store.worker.appender(first.run.run_id)).end()
    assert (await accept(spec(), Idempotency("other", "run", b"same"), [one])).created


async def test_a_run_takes_the_place_of_the_one_it_interrupts(store: SqlStore) -> None:
    ann, one = context_of("ann"), limit(RUNS, 1)
    accept = store.for_user(ann).runs.accept
    first = await accept(spec(), None, [one])
    queued = spec(conversation_id=first.run.conversation_id)
    assert await refusals([accept(queued, None, [one])])
    interrupting = spec(conversation_id=first.run.conversation_id, concurrency_policy=ConcurrencyPolicy.INTERRUPT)
    assert (await accept(interrupting, None, [one])).interrupted_run_id == first.run.run_id
    assert (await store.for_user(ann).runs.get(first.run.run_id)).state is RunState.CANCELLING
    assert await refusals([accept(spec(), None, [one])])


async def test_a_refused_run_leaves_nothing_behind(store: SqlStore) -> None:
    ann = context_of("ann")
    first = await store.for_user(ann).runs.accept(spec(), None)
    interrupting = spec(conversation_id=first.run.conversation_id, concurrency_policy=ConcurrencyPolicy.INTERRUPT)
    for asked in (spec(), interrupting):
        assert await wait_s(store.for_user(ann).runs.accept(asked, None, [limit(RUNS, 0)])) is NEVER
    assert (await store.for_user(ann).runs.get(first.run.run_id)).state is RunState.QUEUED


@pytest.mark.parametrize(
    ("measure", "subject", "asking"),
    [(TOKENS, ANN, 100), (TOKENS, KEY, 20), (TOKENS, EVERYONE, 20), (DAY, BOT, 20), (DAY, ANN, 100), (MONTH, ANN, 20)],
)
async def test_of_a_hundred_calls_at_once_exactly_ten_are_made(
    store: SqlStore, measure: Measure, subject: Subject, asking: int
) -> None:
    ann = context_of("ann", "bot", "key_1")
    runs = await asyncio.gather(*(begin(store, ann) for _ in range(asking)))
    ten = limit(measure, 1000, subject)
    refused = await refusals([hold(run, used(100, cost_micros=100), ten) for run in runs])
    assert len(refused) == asking - 10
    expected = QuotaExceededError if measure is TOKENS else BudgetExceededError
    assert {type(each) for each in refused} == {expected}


@pytest.mark.parametrize("measure", [TOKENS, DAY, MONTH])
async def test_what_is_held_is_settled_by_what_was_used(store: SqlStore, clock: SetClock, measure: Measure) -> None:
    """Also while others ask: what a call holds becomes what it used, and is at no moment neither or both."""
    run, other = [await begin(store, context_of("ann")) for _ in range(2)]
    thousand = limit(measure, 1000)
    await hold(run, used(900, cost_micros=900), thousand)
    assert await refusals([hold(other, used(101, cost_micros=101), thousand)])
    clock.now += timedelta(seconds=30)
    await run.use(used(200, cost_micros=200))
    assert await refusals([hold(other, used(801, cost_micros=801), thousand)])
    await hold(other, used(800, cost_micros=800), thousand)
    assert len(await refusals([hold(run, used(1, cost_micros=1), thousand) for _ in range(5)])) == 5


async def test_tokens_count_for_a_minute_and_the_wait_is_exact(store: SqlStore, clock: SetClock) -> None:
    ann, run = context_of("ann"), await begin(store, context_of("ann"))
    thousand = limit(TOKENS, 1000)
    for tokens in (400, 500):
        await hold(run, used(tokens), thousand)
        await run.use(used(tokens))
        clock.now += timedelta(seconds=20)
    assert await wait_s(hold(run, used(101), thousand)) == 20
    assert await wait_s(hold(run, used(501), thousand)) == 40
    assert await wait_s(hold(run, used(5000), thousand)) == 40
    await hold(run, used(100), thousand)
    assert await wait_s(store.for_user(ann).runs.accept(spec(), None, [thousand])) == 20
    clock.now += timedelta(seconds=19, microseconds=999_999)
    assert await refusals([store.for_user(ann).runs.accept(spec(), None, [thousand])])
    clock.now += timedelta(microseconds=1)
    await store.for_user(ann).runs.accept(spec(), None, [thousand])


async def test_a_call_larger_than_the_limit_has_an_empty_minute_to_itself(store: SqlStore, clock: SetClock) -> None:
    runs = [await begin(store, context_of("ann")) for _ in range(10)]
    thousand = limit(TOKENS, 1000)
    refused = await refusals([hold(run, used(50_000), thousand) for run in runs])
    assert len(refused) == 9
    assert await wait_s(hold(runs[-1], used(50_000), limit(TOKENS, 0))) is NEVER
    clock.now += timedelta(hours=1)
    assert await refusals([hold(runs[-1], used(1), thousand)])


@pytest.mark.parametrize(
    ("measure", "begins_anew"),
    [(DAY, datetime(2026, 3, 11, tzinfo=UTC)), (MONTH, datetime(2026, 4, 1, tzinfo=UTC))],
)
async def test_costs_begin_anew_with_the_day_and_the_month(
    store: SqlStore, clock: SetClock, measure: Measure, begins_anew: datetime
) -> None:
    run, thousand = await begin(store, context_of("ann")), limit(measure, 1000)
    await hold(run, used(1, cost_micros=1000), thousand)
    assert await wait_s(hold(run, used(1, cost_micros=1), thousand)) == 1.0  # It may come to less.
    await run.use(used(1, cost_micros=1000))
    waits = [
        await wait_s(hold(run, used(1, cost_micros=1), thousand)),
        await wait_s(store.for_user(context_of("ann")).runs.accept(spec(), None, [thousand])),
    ]
    assert waits == [(begins_anew - NOON).total_seconds()] * 2
    assert await wait_s(hold(run, used(1, cost_micros=1001), thousand)) is NEVER
    clock.now = begins_anew - timedelta(microseconds=1)
    assert await refusals([hold(run, used(1, cost_micros=1), thousand)])
    clock.now = begins_anew
    await hold(run, used(1, cost_micros=1000), thousand)


async def test_a_limit_that_shrinks_under_way_counts_what_was_used_before(store: SqlStore) -> None:
    run = await begin(store, context_of("ann"))
    await hold(run, used(500, cost_micros=500), limit(TOKENS, 1000), limit(DAY, 1000))
    await run.use(used(500, cost_micros=500))
    for measure in (TOKENS, DAY, MONTH):
        assert await refusals([hold(run, used(1, cost_micros=1), limit(measure, 500))])
        await hold(run, used(1, cost_micros=1), limit(measure, 501))
        run.appender.release_hold()
    assert await refusals([store.for_user(context_of("ann")).runs.accept(spec(), None, [limit(RUNS, 1)])])


async def test_what_a_cancelled_call_held_counts_as_spent(store: SqlStore, clock: SetClock) -> None:
    """Else whoever cancels every answer just before its end would never have used anything."""
    thousand = limit(TOKENS, 1000), limit(DAY, 1000)
    run = await begin(store, context_of("ann"))
    await hold(run, used(1000, cost_micros=1000), *thousand)
    await run.end(RunState.CANCELLED)
    other = await begin(store, context_of("ann"))
    assert await wait_s(hold(other, used(1), thousand[0])) == 60
    clock.now += timedelta(minutes=1)
    await hold(other, used(1), thousand[0])
    assert await refusals([hold(other, used(1, cost_micros=1), thousand[1])])


async def test_what_the_model_did_not_answer_is_given_back(store: SqlStore) -> None:
    run, other = [await begin(store, context_of("ann")) for _ in range(2)]
    thousand = limit(TOKENS, 1000)
    await hold(run, used(1000), thousand)
    run.appender.release_hold()
    await hold(run, used(1000), thousand)
    run.appender.release_hold()
    await run.end()
    await hold(other, used(1000), thousand)


async def test_a_call_whose_use_nobody_tells_counts_as_what_was_held(store: SqlStore) -> None:
    run = await begin(store, context_of("ann"))
    thousand = limit(TOKENS, 1000), limit(DAY, 1000)
    await hold(run, used(600, cost_micros=600), *thousand)
    await run.use(Usage(model_calls=1))
    for each in thousand:
        assert await refusals([hold(run, used(401, cost_micros=401), each)])


async def test_what_a_dead_process_held_is_given_back(open_same_store: OpenStore, clock: SetClock) -> None:
    thousand = limit(TOKENS, 1000), limit(DAY, 1000)
    async with open_same_store(clock=clock) as store:
        run = await begin(store, context_of("ann"))
        await hold(run, used(1000, cost_micros=1000), *thousand)
        await run.appender.flush()
    async with open_same_store(clock=clock) as store:
        ((left,), _) = await store.worker.take_over()
        again = UsingRun(store.worker.appender(left.stored.run.run_id))
        await hold(again, used(1000, cost_micros=1000), *thousand)
        await again.use(used(10, cost_micros=10))
        await again.end()
        await store.for_user(context_of("ann")).runs.accept(spec(), None, thousand)


@pytest.mark.parametrize(("model", "counts"), [("mini", False), ("opus-5", True), ("large", True), ("larger", False)])
async def test_only_models_that_are_meant_count(store: SqlStore, model: str, *, counts: bool) -> None:
    run, asking = [await begin(store, context_of("ann")) for _ in range(2)]
    await hold(run, used(10, cost_micros=10), model=model)
    for settles in (False, True):
        for measure in (TOKENS, DAY):
            costly = limit(measure, 100, models=("opus*", "large"))
            asked = hold(asking, used(100, cost_micros=100), costly, model="opus")
            assert bool(await refusals([asked])) == counts
            asking.appender.release_hold()
        if not settles:
            await run.use(used(10, cost_micros=10), model=model)


async def test_many_limits_are_told_by_the_one_that_leaves_room_last(store: SqlStore) -> None:
    ann: RequestContext = context_of("ann")
    run = await begin(store, ann)
    await hold(run, used(100, cost_micros=100))
    await run.use(used(100, cost_micros=100))
    full = limit(TOKENS, 100), limit(MONTH, 100), limit(DAY, 100)
    with pytest.raises(BudgetExceededError) as refused:
        await store.for_user(ann).runs.accept(spec(), None, full)
    assert refused.value.metadata["limit"] == "cost_per_month"
