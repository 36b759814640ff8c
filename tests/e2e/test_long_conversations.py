"""Conversations that outgrow the model's window, over the wire: they go on with a summary, and nothing is lost."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on
from e2e.test_fork_and_export import export, messages_of
from e2e.test_model_failures import reason_of_end
from e2e.test_runs import get
from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame, usage_frame
from parley.v1 import conversation_pb2, conversation_service_pb2, run_event_pb2
from run_history import check_messages, check_run, check_told
from server_process import running_server

SUMMARY = "They spoke of ships."
SCRIPT = {"rules": [{"when": "The conversation:", "text": SUMMARY}, {"text": "fine"}]}
WINDOW = "4000"
TOO_LONG = RawAnswer([b'{"code": "context_length_exceeded"}'], 400)
REJECTED = RawAnswer([b"{}"], 400)


@asynccontextmanager
async def talking_to(upstream: ModelServer, data_dir: Path, **settings: str) -> AsyncIterator[Stubs]:
    environment = {"PARLEY_MODEL__BASE_URL": upstream.base_url, "PARLEY_MODEL__NAME": "tested"}
    environment |= {f"PARLEY_MODEL__{name}": value for name, value in settings.items()}
    with running_server(data_dir, environment=environment) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield stubs_on(channel)


def question(number: int) -> str:
    return f"Question {number}: " + "ship " * 300


async def ask(stubs: Stubs, text: str, conversation_id: str = "") -> list[run_event_pb2.RunEvent]:
    events = await run_agent(stubs, run_spec(text, conversation_id))
    check_run(events)
    check_told(await get(stubs, events[0].run_id), events)
    of_run = [each for each in await messages_of(stubs, events[0].conversation_id) if each.run_id == events[0].run_id]
    check_messages(events, of_run, prompt=text)
    return events


def compactions(events: list[run_event_pb2.RunEvent]) -> list[run_event_pb2.HistoryCompacted]:
    return [event.history_compacted for event in events if event.HasField("history_compacted")]


async def ask_until_compacted(stubs: Stubs, conversation_id: str = "") -> list[run_event_pb2.RunEvent]:
    for number in range(12):
        events = await ask(stubs, question(number), conversation_id)
        conversation_id = events[0].conversation_id
        if compactions(events):
            return events
    raise AssertionError("the conversation was never compacted")


def told(upstream: ModelServer, number: int = -1) -> str:
    """What a request put before the model, but for the system's words."""
    return json.dumps(upstream.requests[number].body["messages"][1:], ensure_ascii=False)


async def fork_at(stubs: Stubs, conversation_id: str, message: conversation_pb2.Message | None) -> str:
    request = conversation_service_pb2.ForkConversationRequest(
        conversation_id=conversation_id, message_id=message.message_id if message else ""
    )
    return (await stubs.conversations.ForkConversation(request, timeout=RPC_DEADLINE_S)).conversation.conversation_id


async def test_a_conversation_goes_on_with_a_summary_and_keeps_all(tmp_path: Path) -> None:
    async with ModelServer(SCRIPT) as upstream, talking_to(upstream, tmp_path, PROFILE__CONTEXT_WINDOW=WINDOW) as stubs:
        events = await ask_until_compacted(stubs)
        conversation_id = events[0].conversation_id
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[:4] == ["run_accepted", "run_started", "history_compacted", "usage_updated"]
        assert events[-1].run_finished.usage.model_calls == 2
        [compacted] = compactions(events)
        messages = await messages_of(stubs, conversation_id)
        check_that_the_summary_is_a_message(messages, compacted)
        asked = len(upstream.requests)
        assert "Question 0" in told(upstream, -2)
        assert "tools" not in upstream.requests[-2].body
        await ask(stubs, "And now?", conversation_id)
        # One call, with the summary in the place of the old turns, and the later turns as they were.
        assert len(upstream.requests) == asked + 1
        assert SUMMARY in told(upstream)
        assert "Question 0" not in told(upstream)
        assert messages[-3].user.parts[0].text in told(upstream)
        await check_that_it_can_be_undone(stubs, upstream, messages)
        again = await ask_until_compacted(stubs, conversation_id)
        [second] = compactions(again)
        assert second.first_message_id == compacted.first_message_id
        assert second.last_message_id > compacted.last_message_id
        assert SUMMARY in told(upstream, -2)
        assert told(upstream).count(SUMMARY) == 1


def check_that_the_summary_is_a_message(
    messages: list[conversation_pb2.Message], compacted: run_event_pb2.HistoryCompacted
) -> None:
    [place] = [n for n, each in enumerate(messages) if each.HasField("summary")]
    summary = messages[place].summary
    assert summary.text == compacted.summary_text == SUMMARY
    assert (summary.first_message_id, summary.last_message_id) == (messages[0].message_id, compacted.last_message_id)
    assert place == len(messages) - 2
    assert messages[0].user.parts[0].text == question(0)
    # What it stands for ends with a whole turn.
    [last] = [n for n, each in enumerate(messages) if each.message_id == summary.last_message_id]
    assert messages[last].HasField("assistant")
    assert messages[last + 1].HasField("user")


async def check_that_it_can_be_undone(
    stubs: Stubs, upstream: ModelServer, messages: list[conversation_pb2.Message]
) -> None:
    conversation_id = messages[0].conversation_id
    lines = [json.loads(line) for line in "".join(await export(stubs, conversation_id)).splitlines()]
    assert [line["message"]["summary"]["text"] for line in lines[1:] if "summary" in line["message"]] == [SUMMARY]
    copy_id = await fork_at(stubs, conversation_id, None)
    copies = await messages_of(stubs, copy_id)
    [copied] = [each.summary for each in copies if each.HasField("summary")]
    assert copied.first_message_id == copies[0].message_id
    assert copied.last_message_id in {each.message_id for each in copies}
    await ask(stubs, "In the fork?", copy_id)
    assert SUMMARY in told(upstream)
    assert "Question 0" not in told(upstream)
    before_id = await fork_at(stubs, conversation_id, messages[3])
    await ask(stubs, "From before?", before_id)
    assert SUMMARY not in told(upstream)
    assert "Question 0" in told(upstream)


async def test_what_the_server_finds_too_long_is_compacted_and_asked_once_more(tmp_path: Path) -> None:
    async with ModelServer(SCRIPT) as upstream, talking_to(upstream, tmp_path) as stubs:
        first = await ask(stubs, question(0))
        conversation_id = first[0].conversation_id
        await ask(stubs, question(1), conversation_id)
        upstream.enqueue(TOO_LONG)
        events = await ask(stubs, "And now?", conversation_id)
        assert [each.summary_text for each in compactions(events)] == [SUMMARY]
        assert events[-1].run_finished.usage.model_calls == 2
        assert SUMMARY in told(upstream)
        assert "Question 0" not in told(upstream)
        # Twice in one run is once too often, and with nothing left to leave out there is no second try.
        for _ in range(2):
            await ask(stubs, question(2), conversation_id)
        summary = RawAnswer([text_frame(SUMMARY), finish_frame(), usage_frame(prompt_tokens=9), DONE])
        upstream.enqueue(TOO_LONG, summary, TOO_LONG)
        refused = await ask(stubs, "And then?", conversation_id)
        assert len(compactions(refused)) == 1
        assert reason_of_end(refused[-1].run_finished) == "MODEL_CONTEXT_TOO_LONG"
        upstream.enqueue(TOO_LONG)
        assert reason_of_end((await ask(stubs, "Alone"))[-1].run_finished) == "MODEL_CONTEXT_TOO_LONG"


async def test_a_summary_that_fails_fails_no_run(tmp_path: Path) -> None:
    async with ModelServer(SCRIPT) as upstream, talking_to(upstream, tmp_path) as stubs:
        conversation_id = (await ask(stubs, question(0)))[0].conversation_id
        upstream.enqueue(TOO_LONG, REJECTED)
        [compacted] = compactions(await ask(stubs, "And now?", conversation_id))
        assert "left out" in compacted.summary_text
        assert compacted.summary_text in told(upstream)
        assert "Question 0" not in told(upstream)
        # A run with one step keeps it for its answer.
        spec = run_spec("And then?", conversation_id)
        spec.limits.max_steps = 1
        asked = len(upstream.requests)
        upstream.enqueue(TOO_LONG)
        events = await run_agent(stubs, spec)
        assert not events[-1].run_finished.HasField("error")
        assert events[-1].run_finished.usage.model_calls == 1
        assert len(compactions(events)) == 1
        assert len(upstream.requests) == asked + 2


async def test_without_compaction_such_a_run_fails(tmp_path: Path) -> None:
    async with ModelServer(SCRIPT) as upstream, talking_to(upstream, tmp_path, COMPACT="false") as stubs:
        conversation_id = (await ask(stubs, question(0)))[0].conversation_id
        upstream.enqueue(TOO_LONG)
        events = await ask(stubs, "And now?", conversation_id)
        assert reason_of_end(events[-1].run_finished) == "MODEL_CONTEXT_TOO_LONG"
        assert not compactions(events)
