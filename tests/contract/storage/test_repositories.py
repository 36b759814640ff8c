"""Conversations, runs and keys on every engine: what a user has is his alone, and pages fit together."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from contract.storage.conftest import OpenStore, context_for
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import (
    ConversationBusyError,
    NotFoundError,
    PageTokenInvalidError,
    QueueFullError,
    RequestIdReusedError,
)
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.message import AssistantItem, Message, SummaryItem, UserItem
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.domain.run import ConcurrencyPolicy, RunEnd, RunSpec, RunState, StopReason
from parley_server.domain.run_event import RunStarted
from parley_server.domain.usage import Usage
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import RunFilter
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.storage.sql.store import SqlStore

ANSWERED = RunEnd(RunState.SUCCEEDED, StopReason.ANSWERED)


def spec(text: str = "hello", conversation_id: str = "", **changes: object) -> RunSpec:
    made = RunSpec(agent_id="assistant", conversation_id=conversation_id, input=(TextPart(text),))
    return replace(made, **changes)  # type: ignore[arg-type]


def answer(text: str) -> RunConclusion:
    item = FinishedItem(f"item_{text[:40]}", AssistantItem(text))
    return RunConclusion(ANSWERED, Usage(), (item,), item.message_id, text)


async def test_a_conversation_is_created_and_read_again(store: SqlStore, ann: RequestContext) -> None:
    made = await store.for_user(ann).conversations.create("Plans", {"colour": "blue"})
    assert await store.for_user(ann).conversations.get(made.conversation_id) == made
    assert (made.title, dict(made.metadata), made.active_run_id) == ("Plans", {"colour": "blue"}, "")


async def test_somebody_elses_and_an_absent_conversation_are_told_in_the_same_words(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    made = await store.for_user(ann).conversations.create("Secret", {})
    conversations = store.for_user(bob).conversations
    with pytest.raises(NotFoundError) as foreign:
        await conversations.get(made.conversation_id)
    with pytest.raises(NotFoundError) as absent:
        await conversations.get("conv_absent")
    assert (foreign.value.message, foreign.value.metadata) == (absent.value.message, absent.value.metadata)
    for listing in (
        conversations.messages(made.conversation_id, PageRequest(10)),
        store.for_user(bob).runs.list(RunFilter(conversation_id=made.conversation_id), PageRequest(10)),
        store.for_user(bob).runs.accept(spec(conversation_id=made.conversation_id), None),
    ):
        with pytest.raises(NotFoundError):
            await listing


async def test_conversation_pages_fit_together_and_are_bound_to_the_user(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    made = [(await store.for_user(ann).conversations.create(str(n), {})).conversation_id for n in range(7)]
    conversations = store.for_user(ann).conversations
    seen: list[str] = []
    token = ""
    while True:
        page = await conversations.list(PageRequest(3, token))
        seen += [conversation.conversation_id for conversation in page.items]
        token = page.next_token
        if not token:
            break
    assert seen == made[::-1]
    token = (await conversations.list(PageRequest(3))).next_token
    for bad in ("x", "äöü", token[:-2], token[:-4] + "AAAA"):
        with pytest.raises(PageTokenInvalidError):
            await conversations.list(PageRequest(3, bad))
    with pytest.raises(PageTokenInvalidError):
        await store.for_user(bob).conversations.list(PageRequest(3, token))


async def test_a_request_id_means_one_conversation(
    open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    once = Idempotency("r1", "conversations.create", b"a")
    async with open_same_store() as store:
        first = await store.for_user(ann).conversations.create("A", {}, once)
        assert await store.for_user(ann).conversations.create("A", {}, once) == first
        assert (await store.for_user(bob).conversations.create("A", {}, once)).conversation_id != first.conversation_id
    async with open_same_store() as store:
        assert await store.for_user(ann).conversations.create("A", {}, once) == first
        with pytest.raises(RequestIdReusedError):
            await store.for_user(ann).conversations.create("B", {}, Idempotency("r1", "conversations.create", b"b"))


async def test_a_request_id_of_one_service_is_each_of_its_users_own(store: SqlStore, ann: RequestContext) -> None:
    service = Principal(kind=PrincipalKind.SERVICE, subject="bot", act_as=("*",), method="test")
    once = Idempotency("r1", "conversations.create", b"a")
    made = [
        await store.for_user(ann.model_copy(update={"principal": service, "user_id": user_id})).conversations.create(
            "A", {}, once
        )
        for user_id in ("ann", "bob", "ann")
    ]
    assert made[0] == made[2] != made[1]


async def test_an_accepted_run_is_durable_with_its_input(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    accepted = await user.runs.accept(spec("What is it?", labels={"k": "v"}), None)
    assert accepted.created
    assert accepted.starts_now
    assert await user.runs.get(accepted.run.run_id) == accepted.run
    conversation = await user.conversations.get(accepted.run.conversation_id)
    assert (conversation.title, conversation.active_run_id) == ("What is it?", accepted.run.run_id)
    page = await user.conversations.messages(accepted.run.conversation_id, PageRequest(10))
    assert [message.item for message in page.items] == [UserItem((TextPart("What is it?"),))]


async def test_the_run_of_an_equal_request_is_found(store: SqlStore, ann: RequestContext, bob: RequestContext) -> None:
    once, runs = Idempotency("r1", "runs.start", b"same"), store.for_user(ann).runs
    assert await runs.accepted(once) is None
    run = (await runs.accept(spec(), once)).run
    assert await runs.accepted(once) == run
    assert await runs.accepted(None) is None
    assert await store.for_user(bob).runs.accepted(once) is None
    with pytest.raises(RequestIdReusedError):
        await runs.accepted(Idempotency("r1", "runs.start", b"other"))


async def test_equal_requests_at_once_make_one_run(store: SqlStore, ann: RequestContext) -> None:
    once = Idempotency("r1", "runs.start", b"same")
    results = await asyncio.gather(*(store.for_user(ann).runs.accept(spec(), once) for _ in range(50)))
    assert len({accepted.run.run_id for accepted in results}) == 1
    assert sum(accepted.created for accepted in results) == 1


async def test_a_busy_conversation_queues_four_and_refuses_the_fifth(store: SqlStore, ann: RequestContext) -> None:
    runs = store.for_user(ann).runs
    first = (await runs.accept(spec(), None)).run
    rejecting = spec(conversation_id=first.conversation_id, concurrency_policy=ConcurrencyPolicy.REJECT)
    with pytest.raises(ConversationBusyError):
        await runs.accept(rejecting, None)
    waiting = [await runs.accept(spec(str(n), first.conversation_id), None) for n in range(4)]
    assert not any(accepted.starts_now for accepted in waiting)
    with pytest.raises(QueueFullError):
        await runs.accept(spec("5", first.conversation_id), None)
    appender = store.worker.appender(first.run_id)
    await appender.begin(RunStarted("m"))
    assert await appender.finish(answer("one")) == waiting[0].run.run_id
    assert (await runs.accept(spec("5", first.conversation_id), None)).created


async def test_history_begins_with_the_run_that_the_newest_summary_ends_with(
    store: SqlStore, ann: RequestContext
) -> None:
    user, conversation_id = store.for_user(ann), ""
    messages: tuple[Message, ...] = ()
    for read in (1, 3, 5, 7, 8, 10):
        run = (await user.runs.accept(spec("question", conversation_id), None)).run
        conversation_id = run.conversation_id
        history = await user.conversations.history(conversation_id, run.run_id)
        messages = (await user.conversations.messages(conversation_id, PageRequest(1000))).items
        assert history == messages[-read:]
        ended = answer(f"{run.run_id} answers")
        if read == 7:
            # It stands for two turns of three.
            summary = SummaryItem(messages[0].message_id, messages[3].message_id, "S")
            ended = replace(ended, items=(FinishedItem("item_summary", summary), *ended.items))
        await store.worker.appender(run.run_id).finish(ended)
    assert len(messages) == 12


async def test_history_follows_the_order_of_the_runs_not_of_the_writes(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    first = (await user.runs.accept(spec("one?"), None)).run
    second = (await user.runs.accept(spec("two?", first.conversation_id), None)).run
    await store.worker.appender(first.run_id).finish(answer("one!"))
    history = await user.conversations.history(first.conversation_id, second.run_id)
    assert [message.item for message in history] == [
        UserItem((TextPart("one?"),)),
        AssistantItem("one!"),
        UserItem((TextPart("two?"),)),
    ]
    assert len(await user.conversations.history(first.conversation_id, first.run_id)) == 2
    pages = [await user.conversations.messages(first.conversation_id, PageRequest(2))]
    pages.append(await user.conversations.messages(first.conversation_id, PageRequest(2, pages[0].next_token)))
    assert tuple(item for page in pages for item in page.items) == history
    assert pages[1].next_token == ""


async def test_runs_are_listed_newest_first_and_filtered(store: SqlStore, ann: RequestContext) -> None:
    runs = store.for_user(ann).runs
    made = [(await runs.accept(spec(str(n), labels={"n": str(n % 2)}), None)).run for n in range(4)]
    await store.worker.appender(made[0].run_id).finish(answer("done"))

    async def listed(run_filter: RunFilter) -> list[str]:
        return [run.run_id for run in (await runs.list(run_filter, PageRequest(10))).items]

    ids = [run.run_id for run in made]
    assert await listed(RunFilter()) == ids[::-1]
    assert await listed(RunFilter(states=(RunState.SUCCEEDED,))) == [ids[0]]
    assert await listed(RunFilter(labels=(("n", "1"),))) == [ids[3], ids[1]]
    assert await listed(RunFilter(conversation_id=made[2].conversation_id)) == [ids[2]]
    assert await listed(RunFilter(agent_id="other")) == []
    page = await runs.list(RunFilter(), PageRequest(2))
    with pytest.raises(PageTokenInvalidError):
        await runs.list(RunFilter(agent_id="assistant"), PageRequest(2, page.next_token))


async def test_keys_are_stored_listed_and_revoked(store: SqlStore) -> None:
    now = datetime.now(UTC)
    for n in range(3):
        key = ApiKey(f"key{n:09}", PrincipalKind.USER, "ann", frozenset({"runs:read"}), (), now)
        await store.api_keys.create(StoredKey(key, b"hash"))
    first = await store.api_keys.list(PageRequest(2))
    rest = await store.api_keys.list(PageRequest(2, first.next_token))
    assert {key.key_id for page in (first, rest) for key in page.items} == {f"key{n:09}" for n in range(3)}
    assert (await store.api_keys.revoke("key000000001", now)).revoke_time == now
    assert (await store.api_keys.revoke("key000000001", datetime.now(UTC))).revoke_time == now
    found = await store.api_keys.find("key000000001")
    assert found is not None
    assert found.secret_hash == b"hash"
    assert await store.api_keys.find("absent") is None
    with pytest.raises(NotFoundError):
        await store.api_keys.revoke("absent", now)


async def test_users_do_not_meet_in_any_list(store: SqlStore) -> None:
    users = [context_for(f"user{n}") for n in range(3)]
    for user in users:
        await store.for_user(user).runs.accept(spec(user.user_id), None)
    for user in users:
        page = await store.for_user(user).conversations.list(PageRequest(10))
        assert [conversation.title for conversation in page.items] == [user.user_id]
        assert len((await store.for_user(user).runs.list(RunFilter(), PageRequest(10))).items) == 1
