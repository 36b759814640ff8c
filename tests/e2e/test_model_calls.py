"""What a call of the model takes and tells beside text: options, images, reasoning, tokens and their cost."""

import asyncio
import base64
import json
from collections.abc import Iterator

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from e2e.test_fork_and_export import export, messages_of
from e2e.test_model_failures import reason_of_end
from e2e.test_runs import cancel, get, start
from model_server import DONE, ModelServer, RawAnswer, delta_frame, finish_frame, text_frame, usage_frame
from parley.v1 import (
    agent_service_pb2,
    content_pb2,
    run_event_pb2,
    run_pb2,
    usage_pb2,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from parley.v1 import conversation_service_pb2 as conversations
from run_history import check_run
from server_process import ServerProcess, running_server

PNG = bytes(range(256))
INLINE = content_pb2.ContentPart(image=content_pb2.Image(data=PNG, media_type="image/png"))
LINKED = content_pb2.ContentPart(image=content_pb2.Image(uri="https://example.org/a.png"))
IMAGE_PARTS = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
]
COUNTS = {
    "prompt_tokens": 1000,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens": 50,
    "completion_tokens_details": {"reasoning_tokens": 20},
}
# Of COUNTS: 600 at 0.25, 400 at 0.025 and 50 at 2 a million.
TESTED_COST = 260
SECOND_COST = 1050


@pytest.fixture(scope="module")
def server(upstream: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "tested",
        "PARLEY_MODEL__ALLOWED": "*",
        "PARLEY_MODEL__FALLBACKS": "second",
        "PARLEY_MODEL__RETRIES": "0",
        "PARLEY_PROVIDERS__BLIND__BASE_URL": upstream.base_url,
        "PARLEY_PROVIDERS__BLIND__MODELS": "blind",
        "PARLEY_PROVIDERS__BLIND__PROFILE__IMAGES": "false",
        "PARLEY_PROVIDERS__BLIND__PROFILE__REPLAY_REASONING": "always",
        "PARLEY_PRICES__TESTED__INPUT": "0.25",
        "PARLEY_PRICES__TESTED__CACHED_INPUT": "0.025",
        "PARLEY_PRICES__TESTED__OUTPUT": "2",
        "PARLEY_PRICES__TESTED__CURRENCY": "EUR",
        "PARLEY_PRICES__SECOND__INPUT": "1",
        "PARLEY_PRICES__SECOND__OUTPUT": "1",
        "PARLEY_PRICES__SECOND__CURRENCY": "EUR",
    }
    with running_server(tmp_path_factory.mktemp("server"), environment=environment) as running:
        yield running


def asking(text: str = "hello", model: str = "", conversation_id: str = "") -> run_pb2.RunSpec:
    spec = run_spec(text, conversation_id)
    spec.model_options.model = model
    return spec


def says(text: str, **delta: str) -> RawAnswer:
    return RawAnswer([delta_frame(**delta), text_frame(text), finish_frame(), usage_frame(**COUNTS), DONE])


def calls(expression: str) -> RawAnswer:
    call = {"index": 0, "id": "c1", "function": {"name": "calculator", "arguments": f'{{"expression":"{expression}"}}'}}
    return RawAnswer([delta_frame(tool_calls=[call]), finish_frame("tool_calls"), usage_frame(**COUNTS), DONE])


def usages(events: list[run_event_pb2.RunEvent]) -> list[usage_pb2.Usage]:
    return [event.usage_updated.usage for event in events if event.HasField("usage_updated")]


def warnings(events: list[run_event_pb2.RunEvent]) -> list[str]:
    return [event.warning.reason for event in events if event.HasField("warning")]


async def test_tokens_and_cost_are_summed_and_the_same_everywhere(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(calls("17 * 23"), says("391"))
    events = await run_agent(stubs, asking())
    check_run(events)
    first, last = usages(events)
    assert first == usage_pb2.Usage(
        input_tokens=1000,
        cached_input_tokens=400,
        output_tokens=50,
        reasoning_tokens=20,
        model_calls=1,
        tool_calls=1,
        cost_micros=TESTED_COST,
        currency_code="EUR",
    )
    assert (last.input_tokens, last.model_calls, last.cost_micros) == (2000, 2, 2 * TESTED_COST)
    assert events[-1].run_finished.usage == last
    assert (await get(stubs, events[0].run_id)).usage == last


async def test_while_a_run_goes_on_its_usage_is_that_of_its_last_call(
    stubs: Stubs, upstream: ModelServer, server: ServerProcess
) -> None:
    upstream.enqueue(calls("1 + 1"), *[RawAnswer([text_frame("2")], then="hang")] * 2)
    asked_before = len(upstream.requests)
    run = await start(stubs, asking())
    await upstream.request(asked_before + 2)
    assert (await get(stubs, run.run_id)).usage.cost_micros == TESTED_COST
    [listed] = (
        await stubs.agents.ListRuns(
            agent_service_pb2.ListRunsRequest(conversation_id=run.conversation_id), timeout=RPC_DEADLINE_S
        )
    ).runs
    assert listed.usage.input_tokens == 1000
    server.kill()
    server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        again = stubs_on(channel)
        assert (await get(again, run.run_id)).usage.cost_micros == TESTED_COST
        await upstream.request(asked_before + 3)
        await cancel(again, run.run_id)
        assert (await watch(again, run.run_id))[-1].run_finished.usage.cost_micros == TESTED_COST


async def test_a_fallback_has_its_own_price(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([b"down"], status=503), says("Hi."))
    events = await run_agent(stubs, asking())
    assert upstream.requests[-1].body["model"] == "second"
    assert (events[-1].run_finished.usage.cost_micros, warnings(events)) == (SECOND_COST, ["MODEL_FALLBACK"])


async def test_a_fallback_that_may_not_be_asked_is_passed_over(
    server: ServerProcess, stubs: Stubs, upstream: ModelServer
) -> None:
    budget = usage_service_pb2.Budget(everyone=True, models=["second"])
    budget.limits.cost_per_day_micros = 0
    asked_before = len(upstream.requests)
    upstream.enqueue(RawAnswer([b"down"], status=503))
    async with grpc.aio.insecure_channel(server.address) as channel:
        usage = usage_service_pb2_grpc.UsageServiceStub(channel)
        await usage.SetBudget(usage_service_pb2.SetBudgetRequest(budget=budget), timeout=RPC_DEADLINE_S)
        events = await run_agent(stubs, asking())
        budget.limits.Clear()
        await usage.SetBudget(usage_service_pb2.SetBudgetRequest(budget=budget), timeout=RPC_DEADLINE_S)
    assert reason_of_end(events[-1].run_finished) == "MODEL_UNAVAILABLE"
    assert [each.body["model"] for each in upstream.requests[asked_before:]] == ["tested"]


async def test_a_model_without_a_price_has_no_cost(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(says("Hi."))
    usage = (await run_agent(stubs, asking(model="unpriced")))[-1].run_finished.usage
    assert (usage.input_tokens, usage.HasField("cost_micros"), usage.currency_code) == (1000, False, "")


async def test_what_a_server_does_not_count_is_told_once_and_has_no_cost(stubs: Stubs, upstream: ModelServer) -> None:
    uncounted = [RawAnswer([frame for frame in calls("1").reads if b"usage" not in frame]) for _ in range(2)]
    upstream.enqueue(*uncounted, says("2"))
    events = await run_agent(stubs, asking())
    check_run(events)
    usage = events[-1].run_finished.usage
    assert warnings(events) == ["USAGE_UNKNOWN"]
    assert (usage.model_calls, usage.output_tokens, usage.HasField("cost_micros")) == (3, 50, False)


async def test_every_option_reaches_the_model(stubs: Stubs, upstream: ModelServer) -> None:
    spec = asking()
    spec.model_options.MergeFrom(
        run_pb2.ModelOptions(temperature=0, top_p=0.5, max_output_tokens=9, stop=["\n\n", "END"], seed=-7)
    )
    await run_agent(stubs, spec)
    asked = upstream.requests[-1].body
    told = {name: asked.get(name) for name in ("model", "temperature", "top_p", "max_tokens", "stop", "seed")}
    assert told == {
        "model": "tested",
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 9,
        "stop": ["\n\n", "END"],
        "seed": -7,
    }
    await run_agent(stubs, asking())
    assert not {"temperature", "top_p", "max_tokens", "stop", "seed"} & upstream.requests[-1].body.keys()


async def test_images_reach_the_model_now_later_and_in_a_fork(stubs: Stubs, upstream: ModelServer) -> None:
    spec = asking("What is this?")
    spec.input.extend([INLINE, LINKED])
    conversation_id = (await run_agent(stubs, spec))[0].conversation_id
    shown = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, *IMAGE_PARTS]}
    assert upstream.requests[-1].body["messages"][1] == shown
    await run_agent(stubs, asking("And in colour?", conversation_id=conversation_id))
    assert upstream.requests[-1].body["messages"][1] == shown
    request = conversations.ForkConversationRequest(conversation_id=conversation_id)
    fork = (await stubs.conversations.ForkConversation(request, timeout=RPC_DEADLINE_S)).conversation
    await run_agent(stubs, asking("Sure?", conversation_id=fork.conversation_id))
    assert upstream.requests[-1].body["messages"][1] == shown
    for each in (conversation_id, fork.conversation_id):
        assert list((await messages_of(stubs, each))[0].user.parts[1:]) == [INLINE, LINKED]
        lines = [json.loads(line) for line in "".join(await export(stubs, each)).splitlines()]
        parts = lines[1]["message"]["user"]["parts"]
        assert base64.b64decode(parts[1]["image"]["data"]) == PNG
        assert parts[2]["image"]["uri"] == LINKED.image.uri


async def test_an_image_may_be_added_to_a_run(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Show "), text_frame("me."), finish_frame(), DONE], pause_s=0.5))
    asked_before = len(upstream.requests)
    run = await start(stubs, asking("Look at this"))
    await upstream.request(asked_before + 1)
    added = agent_service_pb2.SteerRunRequest(run_id=run.run_id, input=[LINKED])
    await stubs.agents.SteerRun(added, timeout=RPC_DEADLINE_S)
    events = await watch(stubs, run.run_id)
    check_run(events)
    assert upstream.requests[-1].body["messages"][-1] == {"role": "user", "content": [IMAGE_PARTS[1]]}
    assert [list(event.steer_applied.input) for event in events if event.HasField("steer_applied")] == [[LINKED]]


async def test_a_model_without_eyes_says_so_and_is_not_asked(stubs: Stubs, upstream: ModelServer) -> None:
    asked_before = len(upstream.requests)
    spec = asking("What is this?", "blind")
    spec.input.append(LINKED)
    events = await run_agent(stubs, spec)
    end = events[-1].run_finished
    assert (reason_of_end(end), len(upstream.requests)) == ("MODEL_REQUEST_REJECTED", asked_before)
    assert "does not take images" in end.error.message


async def test_reasoning_streams_is_kept_and_goes_back_where_the_model_wants_it(
    stubs: Stubs, upstream: ModelServer
) -> None:
    reasons = [delta_frame(reasoning_content=word) for word in ("First ", "this.")]
    answer = [text_frame("So."), finish_frame(), usage_frame(**COUNTS), DONE]
    upstream.enqueue(RawAnswer([*reasons, *answer], pause_s=0.05))
    events = await run_agent(stubs, asking(model="blind"))
    check_run(events)
    deltas = [event.reasoning_delta.text for event in events if event.HasField("reasoning_delta")]
    assert ("".join(deltas), deltas[0]) == ("First this.", "First ")
    [whole] = [event for event in events if event.HasField("reasoning_completed")]
    assert (whole.reasoning_completed.text, whole.item_id) == ("First this.", events[-1].run_finished.output_item_id)
    conversation_id = events[0].conversation_id
    assert (await messages_of(stubs, conversation_id))[1].assistant.reasoning_text == "First this."
    await run_agent(stubs, asking("And?", "blind", conversation_id))
    assert upstream.requests[-1].body["messages"][2] == {
        "role": "assistant",
        "content": "So.",
        "reasoning_content": "First this.",
    }


async def test_many_runs_at_once_cost_what_each_consumed(stubs: Stubs, upstream: ModelServer) -> None:
    upstream.enqueue(*[says("Hi.")] * 8)
    ended = await asyncio.gather(*(run_agent(stubs, asking()) for _ in range(8)))
    assert {events[-1].run_finished.usage.cost_micros for events in ended} == {TESTED_COST}
