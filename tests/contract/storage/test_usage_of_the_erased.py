"""What erased users have used, on every engine: it counts on where limits are for many, without names."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.accounts_of_runs import ANN, SetClock, begin, context_of, limit, used
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.full_user import erase
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.quota import Measure, Subject, SubjectKind
from parley_server.domain.quota_errors import QuotaExceededError
from parley_server.domain.run import RunState
from parley_server.domain.usage_report import UsageGrouping, UsageQuery
from parley_server.storage.page import PageRequest
from parley_server.storage.sql import erasures
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.usage_erasure import NOBODY

FOR_MANY = [Subject(SubjectKind.SERVICE, "bot"), Subject(SubjectKind.KEY, "key_1"), Subject(SubjectKind.EVERYONE)]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(open_same_store: OpenStore, clock: SetClock) -> AsyncIterator[SqlStore]:
    async with open_same_store(clock=clock) as opened:
        yield opened


def service_key(key_id: str) -> StoredKey:
    """Return a key of the service `bot`."""
    key = ApiKey(key_id, PrincipalKind.SERVICE, "bot", frozenset({"runs:write"}), ("*",), datetime.now(UTC))
    return StoredKey(key, bytes(32))


async def spend(store: SqlStore, user_id: str, cost_micros: int, *, is_told: bool = True) -> None:
    """Use something by the service's key, in one run; what is not told counts as it was held."""
    run = await begin(store, context_of(user_id, "bot", "key_1"))
    await run.appender.hold("m", used(cost_micros, cost_micros), [limit(Measure.COST_PER_DAY, 2**40)])
    if is_told:
        await run.use(used(cost_micros, cost_micros))
    await run.end(RunState.SUCCEEDED if is_told else RunState.CANCELLED)


@pytest.mark.parametrize("measure", [Measure.COST_PER_DAY, Measure.TOKENS_PER_MINUTE])
@pytest.mark.parametrize("is_told", [True, False])
async def test_who_is_erased_gives_back_nothing_of_what_counts_for_many(
    store: SqlStore, measure: Measure, *, is_told: bool
) -> None:
    await store.api_keys.create(service_key("key_1"))
    for name in ("ann", "cid", "ann"):
        await spend(store, name, 30, is_told=is_told)
        await erase(store, name)
    run = await begin(store, context_of("ann", "bot", "key_1"))
    for subject in FOR_MANY:
        with pytest.raises(QuotaExceededError):
            await run.appender.hold("m", used(11, 11), [limit(measure, 100, subject)])
        await run.appender.hold("m", used(10, 10), [limit(measure, 100, subject)])
        run.appender.release_hold()
    await run.appender.hold("m", used(100, 100), [limit(measure, 100, ANN)])


async def test_those_who_are_erased_are_told_together_and_by_no_name(
    store: SqlStore, engine: Engine, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "ROWS", 2)
    first_day = clock.now.date()
    for name in ("ann", "bob", "cid"):
        for cost_micros in (1, 10, 100):
            run = await begin(store, context_of(name, key_id=f"key_of_{name}"))
            await run.use(used(5, cost_micros), model=f"m{cost_micros}")
            await run.end()
    clock.now += timedelta(days=1)
    await erase(store, "ann")
    await erase(store, "bob")
    query = UsageQuery(first_day, clock.now.date(), group_by=frozenset({UsageGrouping.USER}))
    sums = (await store.usage.sums(query, PageRequest(10, ""))).items
    costs = {each.user_id: each.usage.cost_micros for each in sums if each.usage.currency_code}
    assert costs == {NOBODY: 222, "cid": 111}
    assert {each.user_id: each.runs for each in sums if each.runs} == {NOBODY: 6, "cid": 3}
    names = await engine.rows("SELECT DISTINCT user_id, principal, credential_id FROM usage_days ORDER BY 1")
    assert names == [(NOBODY, NOBODY, ""), ("cid", "user:cid", "key_of_cid")]


@pytest.mark.parametrize("credential_id", ["key_of_ann", "jwt:corp:ann"])
async def test_what_a_service_did_by_the_users_own_credential_is_not_told_by_that(
    store: SqlStore, engine: Engine, credential_id: str
) -> None:
    principal = Principal(
        kind=PrincipalKind.USER, subject="ann", method="test", credential_id=credential_id, actors=("service:bot",)
    )
    context = RequestContext(user_id="ann", principal=principal, request_id="req", timestamp=datetime.now(UTC))
    run = await begin(store, context)
    await run.appender.hold("m", used(5, 5), [limit(Measure.COST_PER_DAY, 100)])
    await run.use(used(5, 5), model="m")
    await run.end()
    await erase(store, "ann")
    for table in ("usage_days", "quota_holds"):
        names = await engine.rows(f"SELECT DISTINCT user_id, principal, credential_id FROM {table}")  # noqa: S608  # ours
        assert names == [(NOBODY, "service:bot", "")]
