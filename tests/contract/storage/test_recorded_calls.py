"""The calls of a user's runs on every engine: listed in order, settled once, and what a later run's model is shown."""

import pytest
from contract.storage.conftest import context_for
from contract.storage.test_repositories import ANSWERED, spec
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, PageTokenInvalidError
from parley_server.domain.message import ToolCallItem
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.recorded_call import RecordedCall, ToolCallNotInDoubtError, ToolCallResolvedError
from parley_server.domain.resolution import CallOutcome
from parley_server.domain.run import Run
from parley_server.domain.run_event import ItemEvent, RunStarted, ToolCallFinished, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ToolCallFilter, ToolCallRepository
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.storage.sql.store import SqlStore

OK, UNKNOWN = ToolCallStatus.OK, ToolCallStatus.UNKNOWN_OUTCOME
ALL = ToolCallFilter()
IN_DOUBT = ToolCallFilter(unresolved=True)


async def played(
    store: SqlStore, context: RequestContext, *statuses: ToolCallStatus, conversation_id: str = "", ends: bool = True
) -> Run:
    """Play a run whose calls end so; their ids are `c0`, `c1` and so on."""
    run = (await store.for_user(context).runs.accept(spec("book", conversation_id), None)).run
    pen = store.worker.appender(run.run_id)
    await pen.begin(RunStarted("m"))
    items = []
    for number, status in enumerate(statuses):
        call_id, item_id = f"c{number}", f"item_{run.run_id}_{number}"
        record = CallRecord(call_id, item_id, "book", ToolEffect.WRITE, CallState.DISPATCHED, "print", "key")
        told: list[ItemEvent] = [
            (ToolCallStarted(call_id, "book", '{"n":1}', ToolEffect.WRITE), item_id),
            (ToolCallFinished(call_id, "book", status, "{}", error_code=status.value), item_id),
        ]
        await pen.append_all(told, [record])
        items.append(FinishedItem(item_id, ToolCallItem(call_id, "book", '{"n":1}', ToolEffect.WRITE, status, "{}")))
    await pen.flush()
    if ends:
        await pen.finish(RunConclusion(ANSWERED, Usage(), tuple(items)))
    return run


async def listed(calls: ToolCallRepository, call_filter: ToolCallFilter = ALL, size: int = 3) -> list[RecordedCall]:
    """Read all pages."""
    found: list[RecordedCall] = []
    token = ""
    while True:
        page = await calls.list(call_filter, PageRequest(size, token))
        assert len(page.items) <= size
        found += page.items
        token = page.next_token
        if not token:
            return found


def ids(calls: list[RecordedCall]) -> list[tuple[str, str]]:
    return [(call.run_id, call.record.call_id) for call in calls]


async def test_calls_are_listed_the_newest_first_by_every_filter(store: SqlStore, ann: RequestContext) -> None:
    calls = store.for_user(ann).tool_calls
    first = await played(store, ann, OK, UNKNOWN, OK, UNKNOWN)
    second = await played(store, ann, UNKNOWN, OK, conversation_id=first.conversation_id)
    third = await played(store, ann, OK, UNKNOWN, ends=False)
    await played(store, context_for("bob"), UNKNOWN)
    everything = [
        (run.run_id, f"c{n}") for run, count in ((third, 2), (second, 2), (first, 4)) for n in range(count)[::-1]
    ]
    doubts = [(third.run_id, "c1"), (second.run_id, "c0"), (first.run_id, "c3"), (first.run_id, "c1")]
    for size in (1, 2, 100):
        assert ids(await listed(calls, size=size)) == everything
        assert ids(await listed(calls, IN_DOUBT, size)) == doubts
        assert ids(await listed(calls, ToolCallFilter(statuses=(UNKNOWN,)), size)) == doubts
        assert ids(await listed(calls, ToolCallFilter(statuses=(UNKNOWN, OK)), size)) == everything
        assert ids(await listed(calls, ToolCallFilter(run_id=second.run_id), size)) == everything[2:4]
        in_conversation = ToolCallFilter(first.conversation_id, statuses=(OK,))
        assert ids(await listed(calls, in_conversation, size)) == [everything[2], everything[5], everything[7]]
    newest, oldest = (await listed(calls))[0], (await listed(calls))[-1]
    assert (newest.item, newest.status) == (None, UNKNOWN)
    assert oldest.item is not None
    assert (oldest.item.arguments_json, oldest.record.idempotency_key, oldest.conversation_id) == (
        '{"n":1}',
        "key",
        first.conversation_id,
    )
    assert oldest.create_time <= (oldest.finish_time or oldest.create_time)


async def test_a_filter_names_what_is_the_users_own_and_a_token_is_of_its_list(
    store: SqlStore, ann: RequestContext
) -> None:
    run = await played(store, ann, OK, OK)
    bobs = store.for_user(context_for("bob")).tool_calls
    for call_filter in (ToolCallFilter(conversation_id=run.conversation_id), ToolCallFilter(run_id=run.run_id)):
        with pytest.raises(NotFoundError):
            await bobs.list(call_filter, PageRequest(10))
    calls = store.for_user(ann).tool_calls
    token = (await calls.list(ToolCallFilter(), PageRequest(1))).next_token
    for other in (bobs.list(ToolCallFilter(), PageRequest(1, token)), calls.list(IN_DOUBT, PageRequest(1, token))):
        with pytest.raises(PageTokenInvalidError):
            await other


async def test_a_call_in_doubt_is_settled_once(store: SqlStore, ann: RequestContext) -> None:
    run = await played(store, ann, UNKNOWN, OK, UNKNOWN)
    calls = store.for_user(ann).tool_calls
    settled = await calls.resolve(run.run_id, "c0", CallOutcome.HAPPENED, "I saw it")
    assert settled.resolution is not None
    assert (settled.resolution.outcome, settled.resolution.note) == (CallOutcome.HAPPENED, "I saw it")
    assert (settled.resolution.actor_kind, settled.resolution.actor) == (PrincipalKind.USER, "ann")
    assert settled.status is UNKNOWN
    assert await calls.resolve(run.run_id, "c0", CallOutcome.HAPPENED, "I saw it") == settled
    for outcome, note in ((CallOutcome.DID_NOT_HAPPEN, "I saw it"), (CallOutcome.HAPPENED, "")):
        with pytest.raises(ToolCallResolvedError) as resolved:
            await calls.resolve(run.run_id, "c0", outcome, note)
        assert resolved.value.metadata == {"outcome": "HAPPENED"}
    with pytest.raises(ToolCallNotInDoubtError) as known:
        await calls.resolve(run.run_id, "c1", CallOutcome.HAPPENED, "")
    assert known.value.metadata == {"status": "OK"}
    assert ids(await listed(calls, IN_DOUBT)) == [(run.run_id, "c2")]


async def test_nobody_settles_anothers_call_and_a_service_says_who_it_is(store: SqlStore, ann: RequestContext) -> None:
    run = await played(store, ann, UNKNOWN)
    for calls, key in (
        (store.for_user(context_for("bob")).tool_calls, (run.run_id, "c0")),
        (store.for_user(ann).tool_calls, (run.run_id, "c9")),
        (store.for_user(ann).tool_calls, ("run_0", "c0")),
    ):
        with pytest.raises(NotFoundError, match="tool_call not found"):
            await calls.resolve(*key, CallOutcome.HAPPENED, "")
    bot = Principal(kind=PrincipalKind.SERVICE, subject="bot", act_as=("ann",), method="test")
    relayed = store.for_user(ann.model_copy(update={"principal": bot})).tool_calls
    resolution = (await relayed.resolve(run.run_id, "c0", CallOutcome.DID_NOT_HAPPEN, "")).resolution
    assert resolution is not None
    assert (resolution.actor_kind, resolution.actor) == (PrincipalKind.SERVICE, "bot")


async def test_what_was_said_of_a_call_is_in_the_history_of_later_runs_and_of_forks(
    store: SqlStore, ann: RequestContext
) -> None:
    user = store.for_user(ann)
    run = await played(store, ann, UNKNOWN, OK, UNKNOWN)
    await user.tool_calls.resolve(run.run_id, "c0", CallOutcome.HAPPENED, "twice even")
    fork = await user.conversations.fork(run.conversation_id)
    await user.tool_calls.resolve(run.run_id, "c2", CallOutcome.DID_NOT_HAPPEN, "")
    for conversation_id, expected in (
        (run.conversation_id, [None, CallOutcome.HAPPENED, None, CallOutcome.DID_NOT_HAPPEN, None]),
        (fork.conversation_id, [None, CallOutcome.HAPPENED, None, None, None]),
    ):
        later = (await user.runs.accept(spec("and now?", conversation_id), None)).run
        history = await user.conversations.history(conversation_id, later.run_id)
        assert [message.resolution and message.resolution.outcome for message in history] == expected
        await store.worker.appender(later.run_id).finish(RunConclusion(ANSWERED, Usage(), ()))
    messages = (await user.conversations.messages(run.conversation_id, PageRequest(10))).items
    assert {message.resolution for message in messages} == {None}
    for conversation_id in (run.conversation_id, fork.conversation_id):
        await user.conversations.delete(conversation_id)
    assert await listed(user.tool_calls) == []
