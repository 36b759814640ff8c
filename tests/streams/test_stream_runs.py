"""The corpus end to end: a real server, the generated stub, RunAgent; all cases at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from e2e.conftest import Stubs, run_agent, run_spec, stubs_on
from google.rpc import error_details_pb2
from parley.v1 import run_event_pb2, run_pb2
from run_history import check_run, text_of
from server_process import running_server
from streams.case_server import FINAL, CaseServer
from streams.corpus import Expected, case_named, cases
from streams.outcomes import REASONS

AT_ONCE = 24
STOPS = {
    "stop": run_pb2.STOP_REASON_ANSWERED,
    # The tools are unknown, the model is told so, and answers.
    "tool_calls": run_pb2.STOP_REASON_ANSWERED,
    "length": run_pb2.STOP_REASON_OUTPUT_LENGTH,
    "content_filter": run_pb2.STOP_REASON_CONTENT_FILTER,
    "refusal": run_pb2.STOP_REASON_REFUSAL,
}

Events = Sequence[run_event_pb2.RunEvent]


@pytest.fixture(scope="module")
async def stubs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stubs]:
    data_dir: Path = tmp_path_factory.mktemp("server")
    async with CaseServer() as models:
        environment = {
            "PARLEY_MODEL__BASE_URL": models.base_url,
            "PARLEY_MODEL__NAME": "text",
            "PARLEY_MODEL__API_KEY": "sk-test",
            # Every case is a model of its own, so that no case's failures stop another's calls.
            "PARLEY_MODEL__ALLOWED": "*",
            "PARLEY_MODEL__RETRIES": "0",
        }
        with running_server(data_dir, environment=environment) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                yield stubs_on(channel)
            assert "internal_error" not in server.log
            assert "Traceback" not in server.log


async def runs_of(stubs: Stubs, models: Sequence[str]) -> list[Events]:
    """Run the agent once with each model."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def run(model: str) -> Events:
        spec = run_spec("hello")
        spec.model_options.model = model
        async with turns:
            return await run_agent(stubs, spec)

    return await asyncio.gather(*map(run, models))


def calls_in(events: Events) -> list[str]:
    return [event.tool_call_started.name for event in events if event.HasField("tool_call_started")]


def reason_of(events: Events) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in events[-1].run_finished.error.details:
        detail.Unpack(info)
    return str(info.reason)


def wrong_in(expected: Expected, events: Events) -> list[str]:
    """What a run says that the case did not, in words."""
    end = events[-1].run_finished
    calls = [call.name for call in expected.tool_calls]
    text = expected.text + (FINAL if calls else "")
    facts: dict[str, tuple[object, object]] = {
        "text": (text, text_of(events)),
        "calls": (calls, calls_in(events)),
        "refusal": (expected.refusal, "".join(event.message_completed.refusal for event in events)),
        "reasoning": (expected.reasoning, "".join(event.reasoning_delta.text for event in events)),
    }
    if expected.error is not None:
        facts["state"] = (run_pb2.RUN_STATE_FAILED, end.state)
        facts["reason"] = (str(REASONS[expected.error]), reason_of(events))
    elif expected.finish is not None:
        facts["end"] = ((run_pb2.RUN_STATE_SUCCEEDED, STOPS[expected.finish]), (end.state, end.stop_reason))
    if expected.usage is not None and not calls:
        usage = expected.usage
        facts["usage"] = (
            (usage.input_tokens, usage.output_tokens),
            (end.usage.input_tokens, end.usage.output_tokens),
        )
    return [f"{name}: {meant!r} expected, {came!r} came" for name, (meant, came) in facts.items() if meant != came]


def is_marked_incomplete(events: Events) -> bool:
    told = [event.message_completed for event in events if event.HasField("message_completed")]
    return all(message.incomplete for message in told)


async def test_every_case_as_a_run(stubs: Stubs) -> None:
    runs = await runs_of(stubs, [case.name for case in cases()])
    wrong: dict[str, list[str]] = {}
    for case, events in zip(cases(), runs, strict=True):
        check_run(events)
        told = wrong_in(case.expected, events)
        if case.expected.error is not None and not is_marked_incomplete(events):
            told.append("what was said is not marked as cut")
        if told:
            wrong[case.name] = told
    assert wrong == {}


@pytest.mark.parametrize("name", ["reply-of-two-kibibytes", "reply-with-a-call"])
async def test_a_reply_that_is_cut_is_never_final_and_none_of_its_tools_runs(stubs: Stubs, name: str) -> None:
    body = case_named(name).body
    end_of_finish = body.index(b"\n", body.index(b'"finish_reason":"'))
    places = [*range(1, end_of_finish, 16), end_of_finish - 1]
    for events in await runs_of(stubs, [f"{name}!{place}" for place in places]):
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_FAILED
        assert reason_of(events) == "MODEL_STREAM_INCOMPLETE"
        assert calls_in(events) == []
        assert is_marked_incomplete(events)
