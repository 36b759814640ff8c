"""Results too large to be told whole, on every engine: there with the event that names them, gone with the rest."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore, context_for
from contract.storage.engines import Engine
from contract.storage.test_repositories import ANSWERED, spec
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.message import ToolCallItem
from parley_server.domain.run import Run
from parley_server.domain.run_event import RunStarted, ToolCallFinished, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.storage.page import PageRequest
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.storage.sql.store import SqlStore

WHOLE = json.dumps({"text": "ä😀" * 30_000}, ensure_ascii=False)


async def run_with_result(
    store: SqlStore, context: RequestContext, result_id: str = "result_1", conversation_id: str = "", whole: str = WHOLE
) -> Run:
    """Play a run whose tool has a large result."""
    run = (await store.for_user(context).runs.accept(spec("much", conversation_id), None)).run
    pen = store.worker.appender(run.run_id)
    await pen.begin(RunStarted("m"))
    call_id, item_id = f"call_{run.run_id}", f"item_{run.run_id}"
    record = CallRecord(call_id, item_id, "much", ToolEffect.READ, CallState.DISPATCHED)
    await pen.append_all([(ToolCallStarted(call_id, "much", "{}", ToolEffect.READ), item_id)], [record])
    finished = ToolCallFinished(
        call_id, "much", ToolCallStatus.OK, "{}", truncated=True, result_id=result_id, whole_json=whole
    )
    await pen.append(finished, item_id)
    item = ToolCallItem(call_id, "much", "{}", ToolEffect.READ, ToolCallStatus.OK, "{}", True, result_id)
    await pen.finish(RunConclusion(ANSWERED, Usage(), (FinishedItem(item_id, item),)))
    return run


async def count(engine: Engine) -> int:
    """Count the results, which are stored once however many conversations have them."""
    return len(await engine.rows("SELECT result_id FROM tool_result_contents"))


async def test_a_result_is_read_in_pieces_of_any_size(store: SqlStore, ann: RequestContext) -> None:
    await run_with_result(store, ann)
    calls = store.for_user(ann).tool_calls
    raw = WHOLE.encode()
    for size in (1000, 65_537, len(raw), 10 * len(raw)):
        pieces = [await calls.result_piece("result_1", offset, size) for offset in range(0, len(raw), size)]
        assert b"".join(piece.content for piece in pieces) == raw
        assert {piece.total_bytes for piece in pieces} == {len(raw)}
    for offset in (len(raw), len(raw) + 1, 2**31):
        assert (await calls.result_piece("result_1", offset, 10)).content == b""


async def test_nobody_reads_anothers_result_and_no_run_one_of_another_conversation(
    store: SqlStore, ann: RequestContext
) -> None:
    run = await run_with_result(store, ann)
    other = await run_with_result(store, ann, "result_2")
    calls, bobs = store.for_user(ann).tool_calls, store.for_user(context_for("bob")).tool_calls
    assert await calls.result_for_run("result_1", run.run_id) == WHOLE
    for refused in (
        calls.result_for_run("result_1", other.run_id),
        calls.result_for_run("result_0", run.run_id),
        bobs.result_for_run("result_1", run.run_id),
        bobs.result_piece("result_1", 0, 10),
        calls.result_piece("result_0", 0, 10),
    ):
        with pytest.raises(NotFoundError, match="tool_result not found"):
            await refused


async def test_a_result_is_durable_with_the_event_that_names_it(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = (await store.for_user(ann).runs.accept(spec("much"), None)).run
        pen = store.worker.appender(run.run_id)
        await pen.begin(RunStarted("m"))
        finished = ToolCallFinished(
            "c1", "much", ToolCallStatus.OK, "{}", truncated=True, result_id="result_1", whole_json=WHOLE
        )
        # Of two calls that one execution answers.
        await pen.append_all([(finished, "i1"), (finished, "i2")])
        assert await count(engine) == 0
        await pen.flush()
        assert await count(engine) == 1
    async with open_same_store() as store:
        [interrupted], _ = await store.worker.take_over()
        told = [event.body for event in interrupted.events if isinstance(event.body, ToolCallFinished)]
        assert [(body.result_id, body.truncated, body.whole_json) for body in told] == [("result_1", True, "")] * 2
        assert await store.for_user(ann).tool_calls.result_for_run("result_1", run.run_id) == WHOLE


async def test_a_fork_has_the_results_it_names_while_it_is_there(
    engine: Engine, store: SqlStore, ann: RequestContext
) -> None:
    user = store.for_user(ann)
    run = await run_with_result(store, ann)
    await run_with_result(store, ann, "result_2", run.conversation_id)
    messages = (await user.conversations.messages(run.conversation_id, PageRequest(10))).items
    fork = await user.conversations.fork(run.conversation_id, messages[1].message_id)
    assert await count(engine) == 2
    in_fork = (await user.runs.accept(spec("go on", fork.conversation_id), None)).run
    assert await user.tool_calls.result_for_run("result_1", in_fork.run_id) == WHOLE
    with pytest.raises(NotFoundError):
        await user.tool_calls.result_for_run("result_2", in_fork.run_id)
    await user.conversations.delete(run.conversation_id)
    assert await count(engine) == 1
    assert (await user.tool_calls.result_piece("result_1", 0, 10)).total_bytes == len(WHOLE.encode())
    await store.worker.appender(in_fork.run_id).finish(RunConclusion(ANSWERED, Usage(), ()))
    await user.conversations.delete(fork.conversation_id)
    assert await count(engine) == 0


async def test_results_go_with_their_conversation_a_few_at_a_time(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store(ttl=timedelta(seconds=1)) as store:
        run = await run_with_result(store, ann, whole="{}")
        for number in range(2, 20):
            await run_with_result(store, ann, f"result_{number}", run.conversation_id, "{}")
        later = datetime.now(UTC) + timedelta(seconds=2)
        parts = 0
        while await store.retention.delete_expired(later):
            parts += 1
        assert parts >= 3
        assert await count(engine) == 0
        assert await engine.rows("SELECT conversation_id FROM conversations") == []
