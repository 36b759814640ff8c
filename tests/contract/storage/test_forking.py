"""Forking conversations on every engine: a copy that lives a life of its own."""

import pytest
from contract.storage.test_repositories import answer, spec
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, RequestIdReusedError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.message import AssistantItem, Item, Message
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ConversationRepository
from parley_server.storage.sql.store import SqlStore

TURNS = 20


async def talk(store: SqlStore, context: RequestContext, turns: int = TURNS, conversation_id: str = "") -> str:
    """Make a conversation of so many questions and answers, or go on with one; return its id."""
    for n in range(turns):
        run = (await store.for_user(context).runs.accept(spec(f"question {n}", conversation_id), None)).run
        conversation_id = run.conversation_id
        await store.worker.appender(run.run_id).finish(answer(f"{run.run_id} answers {n}"))
    return conversation_id


async def messages_of(conversations: ConversationRepository, conversation_id: str) -> list[Message]:
    return list((await conversations.messages(conversation_id, PageRequest(1000))).items)


def said(messages: list[Message]) -> list[tuple[Item, bool, object]]:
    return [(message.item, message.incomplete, message.create_time) for message in messages]


async def test_a_fork_begins_with_the_same_messages_under_new_ids(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    conversation_id = await talk(store, ann)
    originals = await messages_of(conversations, conversation_id)
    fork = await conversations.fork(conversation_id)
    copies = await messages_of(conversations, fork.conversation_id)
    assert said(copies) == said(originals)
    assert len(copies) == 2 * TURNS
    assert not {each.message_id for each in copies} & {each.message_id for each in originals}
    assert sorted(each.message_id for each in copies) == [each.message_id for each in copies]
    assert {each.run_id for each in copies} == {""}
    assert fork.title == (await conversations.get(conversation_id)).title == "question 0"
    assert (await conversations.fork(conversation_id, title="Other")).title == "Other"


async def test_a_fork_ends_with_the_message_that_is_named(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    conversation_id = await talk(store, ann, 3)
    originals = await messages_of(conversations, conversation_id)
    for end, message in enumerate(originals, 1):
        fork = await conversations.fork(conversation_id, message.message_id)
        assert said(await messages_of(conversations, fork.conversation_id)) == said(originals[:end])


async def test_a_fork_and_its_original_go_their_own_ways(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    conversation_id = await talk(store, ann, 2)
    fork_id = (await conversations.fork(conversation_id)).conversation_id
    run = (await store.for_user(ann).runs.accept(spec("in the fork", fork_id), None)).run
    history = await conversations.history(fork_id, run.run_id)
    assert len(history) == 5
    await store.worker.appender(run.run_id).finish(answer("only there"))
    assert len(await messages_of(conversations, conversation_id)) == 4
    again_id = (await conversations.fork(fork_id)).conversation_id
    await conversations.delete(conversation_id)
    await conversations.delete(fork_id)
    copies = await messages_of(conversations, again_id)
    assert [each.item for each in copies][-1] == AssistantItem("only there")
    found = await conversations.list(PageRequest(9), "only there")
    assert [each.conversation_id for each in found.items] == [again_id]


async def test_a_repeated_fork_is_the_same_fork(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    conversation_id = await talk(store, ann, 1)
    request = Idempotency("r1", "fork_conversation", b"a")
    fork = await conversations.fork(conversation_id, idempotency=request)
    assert (await conversations.fork(conversation_id, idempotency=request)).conversation_id == fork.conversation_id
    with pytest.raises(RequestIdReusedError):
        await conversations.fork(conversation_id, idempotency=Idempotency("r1", "fork_conversation", b"b"))
    assert len((await conversations.list(PageRequest(9))).items) == 2


async def test_nobody_forks_somebody_elses_or_at_a_message_that_is_not_there(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    mine, other = await talk(store, ann, 1), await talk(store, ann, 1)
    foreign = (await messages_of(store.for_user(ann).conversations, other))[0].message_id
    for conversation_id in (mine, "conv_absent"):
        with pytest.raises(NotFoundError, match="conversation not found"):
            await store.for_user(bob).conversations.fork(conversation_id)
    for message_id in (foreign, "msg_absent"):
        with pytest.raises(NotFoundError, match="message not found"):
            await store.for_user(ann).conversations.fork(mine, message_id)
    assert len((await store.for_user(ann).conversations.list(PageRequest(9))).items) == 2
