"""Approvals in the store, on every engine: whose they are, how they are listed, and how they end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import answer, spec
from parley_server.domain.approval import Approval, ApprovalAnswer, ApprovalState, Remember
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, PageTokenInvalidError
from parley_server.domain.identifiers import new_id
from parley_server.domain.run import Run, RunState
from parley_server.domain.run_event import ApprovalResolved, RunStarted, RunWaiting
from parley_server.domain.tool import ToolEffect
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter
from parley_server.storage.sql.store import SqlStore

YES, NO = ApprovalAnswer(is_approved=True), ApprovalAnswer(is_approved=False, reason="no")
NOW = datetime.now(UTC).replace(microsecond=1)
ALL = PageRequest(50)
ANY = ApprovalFilter()


async def suspended(
    store: SqlStore, context: RequestContext, number: int = 1, conversation_id: str = "", **changes: object
) -> tuple[Run, list[Approval]]:
    """Have a run wait for so many approvals."""
    run = (await store.for_user(context).runs.accept(spec(conversation_id=conversation_id), None)).run
    approvals = [replace(_approval(run, context), **changes) for _ in range(number)]  # type: ignore[arg-type]  # by name
    appender = store.worker.appender(run.run_id)
    await appender.begin(RunStarted("m"))
    await appender.suspend(approvals, [(RunWaiting(tuple(each.approval_id for each in approvals)), "")])
    return run, approvals


def _approval(run: Run, context: RequestContext) -> Approval:
    return Approval(
        approval_id=new_id("apr"),
        user_id=context.user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        call_id=new_id("call"),
        tool_name="book",
        tool_description="Books.",
        effect=ToolEffect.WRITE,
        arguments_json='{"n":1}',
        fingerprint="f" * 64,
        spec_hash="s" * 64,
        create_time=NOW,
        expire_time=NOW + timedelta(hours=1),
    )


async def listed(store: SqlStore, context: RequestContext, wanted: ApprovalFilter = ANY) -> Sequence[Approval]:
    return (await store.for_user(context).approvals.list(wanted, ALL)).items


async def test_what_is_asked_is_read_again_and_the_run_waits(store: SqlStore, ann: RequestContext) -> None:
    run, [first, second] = await suspended(store, ann, 2)
    assert await store.for_user(ann).approvals.get(first.approval_id) == first
    assert list(await listed(store, ann)) == [second, first]
    assert (await store.for_user(ann).runs.get(run.run_id)).state is RunState.WAITING_APPROVAL
    await store.worker.appender(run.run_id).resume()
    await store.worker.appender(run.run_id).flush()
    assert (await store.for_user(ann).runs.get(run.run_id)).state is RunState.RUNNING


async def test_they_are_listed_by_state_run_and_conversation_in_pages(store: SqlStore, ann: RequestContext) -> None:
    approvals = store.for_user(ann).approvals
    run, [first, second, third] = await suspended(store, ann, 3)
    other, [fourth] = await suspended(store, ann)
    denied = await approvals.decide(second.approval_id, NO)
    assert list(await listed(store, ann, ApprovalFilter(run_id=run.run_id))) == [third, denied, first]
    assert list(await listed(store, ann, ApprovalFilter(conversation_id=other.conversation_id))) == [fourth]
    assert list(await listed(store, ann, ApprovalFilter((ApprovalState.DENIED,)))) == [denied]
    assert len(await listed(store, ann, ApprovalFilter((ApprovalState.DENIED, ApprovalState.PENDING)))) == 4
    page = await approvals.list(ApprovalFilter(), PageRequest(3))
    assert list(page.items) == [fourth, third, denied]
    rest = await approvals.list(ApprovalFilter(), PageRequest(3, page.next_token))
    assert (list(rest.items), rest.next_token) == ([first], "")
    with pytest.raises(PageTokenInvalidError):
        await approvals.list(ApprovalFilter(run_id=run.run_id), PageRequest(3, page.next_token))


async def test_a_page_ends_early_where_arguments_are_large(store: SqlStore, ann: RequestContext) -> None:
    await suspended(store, ann, 12, arguments_json='{"x":"' + "a" * 250_000 + '"}')
    approvals = store.for_user(ann).approvals
    page = await approvals.list(ApprovalFilter(), ALL)
    rest = await approvals.list(ApprovalFilter(), PageRequest(50, page.next_token))
    assert (len(page.items), len(rest.items)) == (8, 4)


async def test_nobody_else_finds_one(store: SqlStore, ann: RequestContext, bob: RequestContext) -> None:
    run, [approval] = await suspended(store, ann)
    of_bob = store.for_user(bob).approvals
    for id_ in (approval.approval_id, "apr_absent"):
        with pytest.raises(NotFoundError, match="approval not found"):
            await of_bob.get(id_)
        with pytest.raises(NotFoundError, match="approval not found"):
            await of_bob.decide(id_, YES)
    for wanted in (ApprovalFilter(run_id=run.run_id), ApprovalFilter(conversation_id=run.conversation_id)):
        with pytest.raises(NotFoundError):
            await of_bob.list(wanted, ALL)
    assert not await listed(store, bob)
    assert await store.for_user(ann).approvals.get(approval.approval_id) == approval


async def test_an_answer_stays(store: SqlStore, ann: RequestContext) -> None:
    _, [approval] = await suspended(store, ann)
    approvals = store.for_user(ann).approvals
    decided = await approvals.decide(approval.approval_id, NO)
    assert decided.decide_time is not None
    answered = {"state": ApprovalState.DENIED, "decider": "user:ann", "reason": "no", "remember": Remember.ONCE}
    assert decided == replace(approval, decide_time=decided.decide_time, **answered)  # type: ignore[arg-type]  # by name
    assert await approvals.decide(approval.approval_id, YES) == decided
    assert await approvals.get(approval.approval_id) == decided
    assert await store.worker.appender(approval.run_id).expire_approvals([approval.approval_id]) == (decided,)


async def test_past_its_time_it_is_expired_by_whoever_comes(store: SqlStore, ann: RequestContext) -> None:
    _, [first, second] = await suspended(store, ann, 2, expire_time=NOW)
    decided = await store.for_user(ann).approvals.decide(first.approval_id, YES)
    [expired] = await store.worker.appender(second.run_id).expire_approvals([second.approval_id])
    for each in (decided, expired):
        assert (each.state, each.decider, each.remember) == (ApprovalState.EXPIRED, "", None)
        assert each.decide_time is not None


async def test_what_is_remembered_is_the_last_word(store: SqlStore, ann: RequestContext) -> None:
    approvals = store.for_user(ann).approvals
    run, [first, second, third] = await suspended(store, ann, 3)
    held = (run.conversation_id, "book", "s" * 64)
    assert await approvals.remembered(*held) is None
    await approvals.decide(first.approval_id, replace(YES, remember=Remember.CONVERSATION))
    assert await approvals.remembered(*held) is True
    await approvals.decide(second.approval_id, replace(NO, remember=Remember.CONVERSATION))
    await approvals.decide(third.approval_id, YES)
    assert await approvals.remembered(*held) is False


async def test_with_its_run_it_ends_and_with_its_conversation_it_goes(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run, [first, second] = await suspended(store, ann, 2)
        approvals = store.for_user(ann).approvals
        decided = await approvals.decide(first.approval_id, replace(YES, remember=Remember.CONVERSATION))
        closing = [(ApprovalResolved(each.approval_id, "", ApprovalState.CANCELLED), "") for each in (first, second)]
        await store.worker.appender(run.run_id).finish(answer("done"), closing)
        assert await approvals.get(first.approval_id) == decided
        assert (await approvals.get(second.approval_id)).state is ApprovalState.CANCELLED
        await store.for_user(ann).conversations.delete(run.conversation_id)
        with pytest.raises(NotFoundError):
            await approvals.get(first.approval_id)
    assert await engine.rows("SELECT count(*) FROM approvals") == [(0,)]
    assert await engine.rows("SELECT count(*) FROM remembered_approvals") == [(0,)]


async def test_who_takes_a_run_over_is_told_of_all_its_approvals(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run, asked = await suspended(store, ann, 2)
        decided = await store.for_user(ann).approvals.decide(asked[0].approval_id, YES)
    async with open_same_store() as store:
        [left], _ = await store.worker.take_over()
    assert (left.stored.run.run_id, left.stored.run.state) == (run.run_id, RunState.WAITING_APPROVAL)
    assert left.approvals == (decided, asked[1])
