"""Changing and deleting conversations on every engine: no lost update, and nothing left of what was deleted."""

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import answer, spec
from contract.storage.test_run_log import watched
from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import ConversationBusyError, EtagMismatchError, NotFoundError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run_event import RunStarted
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import RunFilter
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import metadata
from sqlalchemy import select

# What stays behind: that a request was made, without its content.
TOMBSTONES = {"request_ids"}


async def test_only_what_is_named_changes(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    made = await conversations.create("Old", {"k": "v"})
    titled = await conversations.update(made.conversation_id, ConversationChanges(title="New"))
    assert (titled.title, dict(titled.metadata)) == ("New", {"k": "v"})
    cleared = await conversations.update(made.conversation_id, ConversationChanges(metadata={}))
    assert (cleared.title, dict(cleared.metadata)) == ("New", {})
    assert made.update_time < titled.update_time < cleared.update_time
    assert len({made.etag, titled.etag, cleared.etag}) == 3
    assert await conversations.get(made.conversation_id) == cleared


async def test_of_two_who_change_what_they_both_read_one_hears_it(store: SqlStore, ann: RequestContext) -> None:
    conversations = store.for_user(ann).conversations
    read = await conversations.create("Old", {})
    await conversations.update(read.conversation_id, ConversationChanges(title="First"), read.etag)
    with pytest.raises(EtagMismatchError):
        await conversations.update(read.conversation_id, ConversationChanges(title="Second"), read.etag)
    assert (await conversations.get(read.conversation_id)).title == "First"


async def test_a_run_does_not_change_the_etag(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    read = await user.conversations.create("Old", {})
    run = (await user.runs.accept(spec(conversation_id=read.conversation_id), None)).run
    await store.worker.appender(run.run_id).finish(answer("x"))
    assert (await user.conversations.get(read.conversation_id)).etag == read.etag


async def test_nobody_changes_or_deletes_somebody_elses(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    made = await store.for_user(ann).conversations.create("Mine", {})
    conversations = store.for_user(bob).conversations
    for conversation_id in (made.conversation_id, "conv_absent"):
        with pytest.raises(NotFoundError, match="conversation not found"):
            await conversations.update(conversation_id, ConversationChanges(title="His"))
        with pytest.raises(NotFoundError, match="conversation not found"):
            await conversations.delete(conversation_id)
        await conversations.delete(conversation_id, allow_missing=True)
    assert await store.for_user(ann).conversations.get(made.conversation_id) == made


async def test_nothing_is_left_of_a_deleted_conversation(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    tables = [table for table in metadata.sorted_tables if table.name not in TOMBSTONES]

    async def counts() -> dict[str, int]:
        return {table.name: len(await engine.rows(str(select(table)))) for table in tables}

    async with open_same_store() as store:
        user = store.for_user(ann)
        kept = (await user.runs.accept(spec("kept", labels={"k": "v"}), None)).run
        await store.worker.appender(kept.run_id).finish(answer("kept"))
        before = await counts()
        run = (await user.runs.accept(spec("secret plans", labels={"k": "v"}), None)).run
        await store.worker.appender(run.run_id).finish(answer("secret answer"))
        await user.conversations.delete(run.conversation_id)
        # Neither at once, though its log was in memory still, nor later.
        with pytest.raises(NotFoundError):
            await watched(store, ann, run.run_id)
        with pytest.raises(NotFoundError):
            await user.conversations.messages(run.conversation_id, PageRequest(10))
        assert [each.run_id for each in (await user.runs.list(RunFilter(), PageRequest(10))).items] == [kept.run_id]
        after = await counts()
        # The journal of both ended runs is swept by and by.
        assert {**after, "run_journal": 0} == {**before, "run_journal": 0}
        assert (run.run_id,) not in await engine.rows("SELECT run_id FROM run_journal")
    async with open_same_store() as store:
        with pytest.raises(NotFoundError):
            await store.for_user(ann).conversations.delete(run.conversation_id)


async def test_a_busy_conversation_is_not_deleted(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    run = (await user.runs.accept(spec(), None)).run
    appender = store.worker.appender(run.run_id)
    for _ in range(2):
        with pytest.raises(ConversationBusyError) as busy:
            await user.conversations.delete(run.conversation_id)
        assert busy.value.metadata == {"active_run_id": run.run_id}
        await appender.begin(RunStarted("m"))
    await appender.finish(answer("x"))
    await user.conversations.delete(run.conversation_id)


async def test_a_request_that_made_what_is_deleted_makes_nothing_again(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    created, started = Idempotency("r1", "conversation", b"a"), Idempotency("r1", "runs.start", b"a")
    made = await user.conversations.create("A", {}, created)
    run = (await user.runs.accept(spec(), started)).run
    await store.worker.appender(run.run_id).finish(answer("x"))
    for conversation_id in (made.conversation_id, run.conversation_id):
        await user.conversations.delete(conversation_id)
    with pytest.raises(NotFoundError):
        await user.conversations.create("A", {}, created)
    with pytest.raises(NotFoundError):
        await user.runs.accept(spec(), started)
    assert (await user.conversations.list(PageRequest(10))).items == ()
