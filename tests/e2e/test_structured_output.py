"""An answer that has to fit a schema: what the model is told, what is checked, and what is made of a bad one."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from e2e.test_model_failures import reason_of_end
from e2e.test_runs import get, reason_of, start
from model_server import DONE, ModelServer, RawAnswer, delta_frame, finish_frame, text_frame, usage_frame
from parley.v1 import admin_service_pb2, conversation_pb2, conversation_service_pb2, run_event_pb2, run_pb2
from parley_client import ParleyClient
from run_history import check_run
from server_process import ServerProcess, running_server
from unit.console.test_console_program import parley

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = '{ "name": "Zoë",\n "age": 3 }'
CANONICAL = '{"name":"Zoë","age":3}'
BAD = '{"name": "Zoë", "age": "three"}'


@pytest.fixture(scope="module")
def server(upstream: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "tested",
        "PARLEY_MODEL__PROFILE__KIND": "openai",
    }
    with running_server(tmp_path_factory.mktemp("server"), environment=environment) as running:
        yield running


def demanding(text: str = "Who?", schema: object = PERSON, conversation_id: str = "") -> run_pb2.RunSpec:
    spec = run_spec(text, conversation_id)
    spec.output_schema_json = schema if isinstance(schema, str) else json.dumps(schema)
    return spec


def says(text: str, reason: str = "stop") -> RawAnswer:
    usage = usage_frame(prompt_tokens=10, completion_tokens=5)
    return RawAnswer([text_frame(text), finish_frame(reason), usage, DONE])


def calls(name: str, arguments: str) -> RawAnswer:
    call = {"index": 0, "id": "c1", "function": {"name": name, "arguments": arguments}}
    usage = usage_frame(prompt_tokens=10, completion_tokens=5)
    return RawAnswer([delta_frame(tool_calls=[call]), finish_frame("tool_calls"), usage, DONE])


def completed(events: list[run_event_pb2.RunEvent]) -> list[run_event_pb2.MessageCompleted]:
    return [event.message_completed for event in events if event.HasField("message_completed")]


def warnings(events: list[run_event_pb2.RunEvent]) -> list[tuple[str, str]]:
    return [(event.warning.reason, event.item_id) for event in events if event.HasField("warning")]


async def messages_of(stubs: Stubs, conversation_id: str) -> list[conversation_pb2.Message]:
    request = conversation_service_pb2.ListMessagesRequest(conversation_id=conversation_id)
    return list((await stubs.conversations.ListMessages(request, timeout=RPC_DEADLINE_S)).messages)


@pytest.mark.parametrize("text", [GOOD, f"Here it is:\n```json\n{GOOD}\n```\nAnything else?"], ids=["plain", "fenced"])
async def test_an_answer_that_fits_is_there_as_json(stubs: Stubs, upstream: ModelServer, text: str) -> None:
    upstream.enqueue(says(text))
    events = await run_agent(stubs, demanding())
    check_run(events)
    [answer] = completed(events)
    assert (answer.text, answer.output_json) == (text, CANONICAL)
    assert (await get(stubs, events[0].run_id)).output_json == CANONICAL
    assert (await messages_of(stubs, events[0].conversation_id))[1].assistant.output_json == CANONICAL
    asked = upstream.requests[-1].body
    named = {"name": "output", "schema": PERSON, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": named}
    assert json.dumps(PERSON) in asked["messages"][0]["content"]


async def test_a_bad_answer_is_mended_once_and_both_are_seen(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(says(BAD), says(GOOD))
    events = await run_agent(stubs, demanding())
    check_run(events)
    bad, good = completed(events)
    assert (bad.text, bad.output_json, good.text, good.output_json) == (BAD, "", GOOD, CANONICAL)
    [(reason, item_id)] = warnings(events)
    assert reason == "OUTPUT_INVALID"
    assert item_id != events[-1].run_finished.output_item_id
    assert events[-1].run_finished.stop_reason == run_pb2.STOP_REASON_ANSWERED
    assert (events[-1].run_finished.usage.model_calls, events[-1].run_finished.usage.output_tokens) == (2, 10)
    *_, answered, objected = upstream.requests[-1].body["messages"]
    assert answered == {"role": "assistant", "content": BAD}
    assert objected["role"] == "user"
    assert "/age: 'three' is not of type 'integer'" in objected["content"]
    # What the user said is all that his history holds of him, and the next turn's model reads what this one read.
    said = await messages_of(stubs, events[0].conversation_id)
    assert [message.WhichOneof("item") for message in said] == ["user", "assistant", "assistant"]
    before = upstream.requests[-1].body["messages"][1:]
    upstream.enqueue(says("Bye."))
    await run_agent(stubs, run_spec("Thanks", events[0].conversation_id))
    after = upstream.requests[-1].body["messages"][1:]
    assert after == [
        *before,
        {"role": "assistant", "content": GOOD},
        {"role": "user", "content": "Thanks"},
    ]


async def test_an_answer_that_is_not_mended_fails_the_run_and_stays(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(says(BAD), says("I am afraid I can't."))
    events = await run_agent(stubs, demanding())
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_ERROR)
    assert reason_of_end(end) == "OUTPUT_INVALID"
    assert [answer.text for answer in completed(events)] == [BAD, "I am afraid I can't."]
    run = await get(stubs, events[0].run_id)
    assert (run.output_text, run.output_json) == ("I am afraid I can't.", "")


async def test_tools_run_before_the_answer_and_before_the_mended_one(stubs: Stubs, upstream: ModelServer) -> None:
    sums = [calls("calculator", json.dumps({"expression": f"{n} + 1"})) for n in (1, 2)]
    upstream.enqueue(sums[0], says(BAD), sums[1], says(GOOD))
    events = await run_agent(stubs, demanding())
    check_run(events)
    kinds = [event.WhichOneof("event") for event in events if event.item_id and not event.HasField("text_delta")]
    call = ["tool_call_started", "tool_call_finished"]
    assert kinds == [*call, "message_completed", "warning", *call, "message_completed"]
    assert [answer.output_json for answer in completed(events)] == ["", CANONICAL]
    roles = [message["role"] for message in upstream.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("answer", "stop_reason"),
    [
        (says('{"name": "Zo', "length"), run_pb2.STOP_REASON_OUTPUT_LENGTH),
        (says('{"name": "Zo', "content_filter"), run_pb2.STOP_REASON_CONTENT_FILTER),
        (RawAnswer([delta_frame(refusal="I won't."), finish_frame(), DONE]), run_pb2.STOP_REASON_REFUSAL),
    ],
    ids=["cut", "filtered", "refused"],
)
async def test_what_was_cut_or_refused_is_not_mended(
    stubs: Stubs, upstream: ModelServer, answer: RawAnswer, stop_reason: run_pb2.StopReason.ValueType
) -> None:
    asked_before = len(upstream.requests)
    upstream.enqueue(answer)
    events = await run_agent(stubs, demanding())
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_SUCCEEDED, stop_reason)
    assert [each.output_json for each in completed(events)] == [""]
    assert len(upstream.requests) == asked_before + 1


async def test_the_step_that_mends_counts(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(says(BAD))
    spec = demanding()
    spec.limits.max_steps = 1
    events = await run_agent(stubs, spec)
    check_run(events)
    assert reason_of_end(events[-1].run_finished) == "STEP_LIMIT_REACHED"


@pytest.mark.parametrize(
    "schema",
    [
        "nope",
        "[]",
        {"type": "objekt"},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"unevaluatedProperties": False},
        {"pattern": "(?=a)"},
        "[" * 30_000,
    ],
    ids=lambda schema: str(schema)[:40],
)
async def test_what_is_no_schema_is_refused_at_once(stubs: Stubs, schema: object) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await start(stubs, demanding(schema=schema))
    assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "run.output_schema_json" in (refused.value.details() or "")


async def test_the_server_says_that_it_can(stubs: Stubs) -> None:
    info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=RPC_DEADLINE_S)
    assert "output_schema" in info.features


async def test_a_crash_between_the_bad_answer_and_the_mended_one_changes_nothing(
    stubs: Stubs, upstream: ModelServer, server: ServerProcess
) -> None:
    upstream.enqueue(says(BAD), RawAnswer([text_frame('{"na')], then="hang"))
    asked_before = len(upstream.requests)
    run = await start(stubs, demanding())
    await upstream.request(asked_before + 2)
    upstream.enqueue(says(GOOD))
    server.kill()
    server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        events = await watch(stubs_on(channel), run.run_id)
    check_run(events)
    assert [answer.output_json for answer in completed(events)] == ["", CANONICAL]
    assert [reason for reason, _ in warnings(events)] == ["OUTPUT_INVALID"]
    before, after = upstream.requests[-2].body, upstream.requests[-1].body
    assert after == before


async def test_the_console_prints_the_json_alone_and_fails_without_one(
    upstream: ModelServer, server: ServerProcess, tmp_path: Path
) -> None:
    schema = tmp_path / "person.json"
    schema.write_text(json.dumps(PERSON), encoding="utf-8")
    upstream.enqueue(says(f"```json\n{GOOD}\n```"))
    asked = await parley("ask", "--schema", str(schema), "Who?", target=server.address)
    assert (asked.code, asked.out, asked.err) == (0, CANONICAL + "\n", "")
    upstream.enqueue(says('{"name": "Zo', "length"))
    asked = await parley("ask", "--schema", str(schema), "Who?", target=server.address)
    assert (asked.code, asked.out) == (1, "")
    assert "cut short" in asked.err
    upstream.enqueue(says(GOOD))
    asked = await parley("ask", "--json", "--schema", str(schema), "Who?", target=server.address)
    assert json.loads(asked.out)["output"] == {"name": "Zoë", "age": 3}
    schema.write_text('{"type": "objekt"}', encoding="utf-8")
    asked = await parley("ask", "--schema", str(schema), "Who?", target=server.address)
    assert (asked.code, asked.out) == (64, "")
    assert "#/type" in asked.err


async def test_the_client_takes_a_mapping_and_gives_the_json(upstream: ModelServer, server: ServerProcess) -> None:
    upstream.enqueue(says(BAD), says(GOOD))
    async with ParleyClient(server.address) as client, client.run("Who?", output_schema=PERSON) as run:
        await run.wait()
        assert (run.output_json, run.text) == (CANONICAL, GOOD)
        async with client.watch(run.run_id, run.last_seq) as again:
            await again.wait()
            assert again.output_json == CANONICAL
