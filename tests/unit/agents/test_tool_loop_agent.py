"""The loop: ask the model, run its tools, ask again, until an answer or a limit."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from parley_server.agents.base import AgentDescription
from parley_server.agents.history_repair import repaired
from parley_server.agents.model_step import MAX_ITEM_BYTES
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.run import Limits, ModelOptions, RunEnd, RunState, StopReason
from parley_server.domain.run_event import (
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageUpdated,
    Warned,
)
from parley_server.domain.tool import ToolCallStatus
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import (
    AssistantMessage,
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ModelRequest,
    ReasoningChunk,
    RefusalChunk,
    SystemMessage,
    TextChunk,
    ToolMessage,
    UserMessage,
)
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext
from unit.agents.agent_runs import ANSWERED, PRODUCT, a_turn, an_agent, run
from unit.agents.scripted_model import ScriptedModel, Step, ask_for, say
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.user_context import context_of


def kinds(sink: RunSink) -> list[str]:
    return [type(body).__name__ for _, body in sink.events]


async def test_an_answer_streams_and_completes_as_one_item() -> None:
    end, sink, model = await run(say("The answer ", "is 391."))
    assert end == ANSWERED
    assert [body for _, body in sink.events] == [
        TextDelta("The answer "),
        TextDelta("is 391."),
        MessageCompleted("The answer is 391."),
        UsageUpdated(Usage(input_tokens=10, output_tokens=1, model_calls=1)),
    ]
    assert len({item_id for item_id, body in sink.events if not isinstance(body, UsageUpdated)}) == 1
    [request] = model.requests
    assert request.model == "default-model"
    assert [tool.name for tool in request.tools] == ["calculator", "current_time"]
    assert isinstance(request.messages[0], SystemMessage)
    assert "Europe/Berlin" in request.messages[0].text
    assert request.messages[1] == UserMessage((TextPart("17 * 23?"),))


async def test_tools_run_between_two_questions_to_the_model() -> None:
    end, sink, model = await run(ask_for(PRODUCT, ("current_time", "{}"), text="Let me see."), say("391"))
    assert end == ANSWERED
    assert kinds(sink) == [
        "TextDelta",
        "MessageCompleted",
        "UsageUpdated",
        "ToolCallStarted",
        "ToolCallStarted",
        "ToolCallFinished",
        "ToolCallFinished",
        "TextDelta",
        "MessageCompleted",
        "UsageUpdated",
    ]
    assert sink.bodies(UsageUpdated)[-1].usage == Usage(20, 0, 2, 0, model_calls=2, tool_calls=2)
    answer, first, second = model.requests[1].messages[2:]
    assert isinstance(answer, AssistantMessage)
    assert isinstance(first, ToolMessage)
    assert isinstance(second, ToolMessage)
    assert answer.text == "Let me see."
    assert [call.call_id for call in answer.tool_calls] == [first.call_id, second.call_id]
    assert json.loads(first.content)["result"]["value"] == "391"
    assert all(call.call_id.startswith("call_") for call in answer.tool_calls)


async def test_reused_provider_ids_never_reach_the_log() -> None:
    steps = [ask_for(("calculator", f'{{"expression":"{n}"}}')) for n in range(50)]
    end, sink, model = await run(*steps, say("391"), limits=Limits(max_steps=51))
    assert end == ANSWERED
    started = [body.call_id for body in sink.bodies(ToolCallStarted)]
    assert len(set(started)) == 50
    assert not any("provider" in call_id for call_id in started)
    assert repaired(model.requests[-1].messages) == ([*model.requests[-1].messages], False)


async def test_reasoning_and_text_share_an_item() -> None:
    step: Step = [ReasoningChunk("Hm"), ReasoningChunk("m."), TextChunk("391"), FinishChunk(FinishReason.STOP)]
    _, sink, _ = await run(step)
    assert [body for _, body in sink.events[:-1]] == [
        ReasoningDelta("Hm"),
        ReasoningDelta("m."),
        TextDelta("391"),
        ReasoningCompleted("Hmm."),
        MessageCompleted("391"),
    ]
    assert len({item_id for item_id, _ in sink.events[:-1]}) == 1


async def test_an_empty_answer_is_still_an_item() -> None:
    end, sink, _ = await run(say())
    assert end == ANSWERED
    assert sink.bodies(MessageCompleted) == [MessageCompleted("")]


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [(FinishReason.LENGTH, StopReason.OUTPUT_LENGTH), (FinishReason.CONTENT_FILTER, StopReason.CONTENT_FILTER)],
)
async def test_cut_answers_succeed_and_are_incomplete(reason: FinishReason, stop_reason: StopReason) -> None:
    end, sink, _ = await run(say("The answer", reason=reason))
    assert end == RunEnd(RunState.SUCCEEDED, stop_reason)
    assert sink.bodies(MessageCompleted) == [MessageCompleted("The answer", incomplete=True)]


async def test_a_refusal_is_told_as_one() -> None:
    end, sink, _ = await run([RefusalChunk("I "), RefusalChunk("won't."), FinishChunk(FinishReason.REFUSAL)])
    assert end == RunEnd(RunState.SUCCEEDED, StopReason.REFUSAL)
    assert sink.bodies(MessageCompleted) == [MessageCompleted("", refusal="I won't.")]


async def test_the_step_limit_counts_model_calls() -> None:
    end, sink, model = await run(ask_for(PRODUCT), limits=Limits(max_steps=3))
    assert (end.state, end.stop_reason) == (RunState.FAILED, StopReason.MAX_STEPS)
    assert end.error is not None
    assert end.error.reason is Reason.STEP_LIMIT_REACHED
    assert len(model.requests) == 3
    assert len(sink.bodies(ToolCallFinished)) == 3


async def test_calls_beyond_the_runs_limit_are_told_and_not_run() -> None:
    two = ask_for(PRODUCT, ("calculator", '{"expression":"1"}'))
    end, sink, model = await run(two, two, limits=Limits(max_tool_calls=3))
    assert end.stop_reason is StopReason.MAX_TOOL_CALLS
    assert end.error is not None
    assert end.error.reason is Reason.TOOL_CALL_LIMIT_REACHED
    assert [body.status for body in sink.bodies(ToolCallFinished)] == [
        ToolCallStatus.OK,
        ToolCallStatus.OK,
        ToolCallStatus.TOO_MANY_CALLS,
        ToolCallStatus.OK,
    ]
    assert len(model.requests) == 2


async def test_a_run_may_use_all_its_tool_calls() -> None:
    end, _, _ = await run(ask_for(PRODUCT), ask_for(PRODUCT), say("391"), limits=Limits(max_tool_calls=2))
    assert end == ANSWERED


async def test_the_token_limit_is_the_runs_and_the_rest_of_it_caps_each_call() -> None:
    limits = Limits(max_output_tokens=100)
    end, sink, model = await run(
        ask_for(PRODUCT, output_tokens=30), say("391", output_tokens=70), say("never"), limits=limits
    )
    assert end == ANSWERED
    assert [request.options.max_output_tokens for request in model.requests] == [100, 70]
    assert sink.bodies(UsageUpdated)[-1].usage.output_tokens == 100


@pytest.mark.parametrize(
    "last",
    [
        say("cut", reason=FinishReason.LENGTH, output_tokens=70),
        say("too long", output_tokens=71),
        ask_for(PRODUCT, output_tokens=70),
    ],
    ids=["cut", "beyond", "calls"],
)
async def test_a_run_out_of_tokens_fails_and_runs_nothing_more(last: Step) -> None:
    end, sink, model = await run(ask_for(PRODUCT, output_tokens=30), last, limits=Limits(max_output_tokens=100))
    assert (end.state, end.stop_reason) == (RunState.FAILED, StopReason.MAX_OUTPUT_TOKENS)
    assert end.error is not None
    assert end.error.reason is Reason.OUTPUT_TOKEN_LIMIT_REACHED
    assert len(model.requests) == 2
    finished = [body.status for body in sink.bodies(ToolCallFinished)]
    assert finished in ([ToolCallStatus.OK], [ToolCallStatus.OK, ToolCallStatus.TOO_MANY_CALLS])


async def test_the_callers_own_cap_holds_when_it_is_less() -> None:
    model, sink = ScriptedModel(say("391")), RunSink()
    options = ModelOptions(model="other-model", temperature=0.5, max_output_tokens=20)
    await an_agent(model).run(context_of(), a_turn(sink, limits=Limits(max_output_tokens=100), options=options))
    [request] = model.requests
    assert request.model == "other-model"
    assert request.options == options


@pytest.mark.parametrize(
    ("allowed", "disabled", "offered"),
    [((), False, ["calculator", "current_time"]), (("current_time",), False, ["current_time"]), ((), True, [])],
)
async def test_only_allowed_tools_are_offered_and_run(
    allowed: tuple[str, ...], disabled: bool, offered: list[str]
) -> None:
    model, sink = ScriptedModel(ask_for(PRODUCT), say("391")), RunSink()
    await an_agent(model).run(context_of(), a_turn(sink, allowed_tools=allowed, disable_tools=disabled))
    assert [tool.name for tool in model.requests[0].tools] == offered
    [finished] = sink.bodies(ToolCallFinished)
    ran = "calculator" in offered
    assert finished.status is (ToolCallStatus.OK if ran else ToolCallStatus.UNKNOWN_TOOL)


async def test_a_model_that_fails_leaves_its_item_open_for_the_engine() -> None:
    error = ModelError(ErrorKind.UNAVAILABLE, Reason.MODEL_STREAM_INCOMPLETE, "broke off")
    model, sink = ScriptedModel([TextChunk("The answ"), error]), RunSink()
    with pytest.raises(ModelError) as caught:
        await an_agent(model).run(context_of(), a_turn(sink))
    assert caught.value is error
    assert [body for _, body in sink.events] == [TextDelta("The answ")]
    assert model.open_streams == 0


async def test_a_stream_without_a_finish_is_an_incomplete_one() -> None:
    model = ScriptedModel([TextChunk("The answ")])
    with pytest.raises(ModelError) as caught:
        await an_agent(model).run(context_of(), a_turn(RunSink()))
    assert caught.value.status.reason is Reason.MODEL_STREAM_INCOMPLETE


async def test_nul_and_lone_surrogates_become_replacement_characters() -> None:
    _, sink, _ = await run(say("a\x00b", "\ud800c"))
    assert sink.bodies(MessageCompleted) == [MessageCompleted("a\ufffdb\ufffdc")]


@pytest.mark.parametrize("char", ["x", "\u00e4", "\U0001f600"])
async def test_a_runaway_answer_is_cut_at_one_mebibyte(char: str) -> None:
    piece = TextChunk("a" + char * 50_000)
    end, sink, _ = await run([*[piece] * 50, FinishChunk(FinishReason.STOP)])
    assert end == RunEnd(RunState.SUCCEEDED, StopReason.OUTPUT_LENGTH)
    [completed] = sink.bodies(MessageCompleted)
    assert completed.incomplete
    assert MAX_ITEM_BYTES - 4 < len(completed.text.encode()) <= MAX_ITEM_BYTES
    assert [body.reason for body in sink.bodies(Warned)] == ["USAGE_UNKNOWN"]


async def test_runaway_reasoning_stops_too() -> None:
    end, sink, _ = await run([*[ReasoningChunk("x" * 600_000)] * 3, FinishChunk(FinishReason.STOP)])
    assert end.stop_reason is StopReason.OUTPUT_LENGTH
    assert len(sink.bodies(ReasoningCompleted)[0].text) == MAX_ITEM_BYTES


async def test_bad_calls_are_answered_and_the_model_goes_on() -> None:
    end, sink, model = await run(ask_for(("calc\u00fclator", "{}"), ("calculator", "{oops")), say("Sorry."))
    assert end == ANSWERED
    unknown, invalid = sink.bodies(ToolCallFinished)
    assert (unknown.status, invalid.status) == (ToolCallStatus.UNKNOWN_TOOL, ToolCallStatus.INVALID_ARGUMENTS)
    answer = model.requests[1].messages[2]
    assert isinstance(answer, AssistantMessage)
    assert [(call.name, call.arguments_json) for call in answer.tool_calls] == [
        ("calc_lator", "{}"),
        ("calculator", "{}"),
    ]


async def test_results_are_durable_before_the_model_is_asked_again() -> None:
    sink = RunSink()

    class WatchingModel(ScriptedModel):
        def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:
            if sink.bodies(ToolCallFinished):
                assert sink.durable == len(sink.events)
            return super().stream(context, request)

    model = WatchingModel(ask_for(PRODUCT), say("391"))
    assert (await an_agent(model).run(context_of(), a_turn(sink))).end == ANSWERED


async def test_a_cancelled_run_stops_model_and_tools() -> None:
    async def hang(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        return await asyncio.Event().wait()

    model, sink = ScriptedModel(ask_for(("hang", "{}"))), RunSink()
    task = asyncio.create_task(an_agent(model, [made_tool("hang", hang)]).run(context_of(), a_turn(sink)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kinds(sink) == ["UsageUpdated", "ToolCallStarted"]


def test_an_agent_of_tools_that_do_not_exist_is_refused() -> None:
    tools = ToolRegistry()
    description = AgentDescription("a", "A", "A.", "m", ("calculator",))
    with pytest.raises(ValueError, match="no tool is named calculator"):
        ToolLoopAgent(description, "", model=ScriptedModel(say("")), tools=tools, tool_calls=ToolCallManager(tools))
