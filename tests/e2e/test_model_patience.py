"""What a user sees of a model's server that fails, is slow or is down, and how often that server is asked meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest
from e2e.conftest import Stubs, run_agent, run_spec, stubs_on
from e2e.test_metrics import number
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from model_server import ModelServer, RawAnswer, text_frame
from parley.v1 import run_event_pb2, run_pb2
from parley_server.breaker import MIN_CALLS, PROBE_INTERVAL_S
from run_history import check_run, text_of
from server_process import ServerProcess, running_server

Events = list[run_event_pb2.RunEvent]

SCRIPT = {
    "rules": [
        {"model": "^limited", "fault": {"status": 429}},
        {"model": "^down", "fault": {"status": 503}},
        {"model": "^silent", "text": "late", "first_delay_ms": 60_000},
        {"text": "fine"},
    ]
}
REQUESTS = 120


@pytest.fixture
async def upstream() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as running:
        yield running


@contextmanager
def server_asking(upstream: ModelServer, data_dir: Path, **settings: str) -> Iterator[ServerProcess]:
    environment = {
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "tested",
        "PARLEY_MODEL__ALLOWED": "*",
        "PARLEY_MODEL__FIRST_EVENT_TIMEOUT_S": "2",
        "PARLEY_MODEL__GAP_TIMEOUT_S": "0.8",
        "PARLEY_METRICS__LISTEN": "127.0.0.1:0",
        **{f"PARLEY_MODEL__{name}": value for name, value in settings.items()},
    }
    with running_server(data_dir, environment=environment) as running:
        yield running


@asynccontextmanager
async def stubs_of(server: ServerProcess) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield stubs_on(channel)


async def ask(stubs: Stubs, model: str = "", deadline_s: int = 0) -> Events:
    spec = run_spec("hello")
    spec.model_options.model = model
    if deadline_s:
        spec.limits.deadline.CopyFrom(Duration(seconds=deadline_s))
    events = await run_agent(stubs, spec)
    check_run(events)
    return events


def error_of(events: Events) -> tuple[str, float | None]:
    """Return a failed run's reason, and in how many seconds it says to try again."""
    end = events[-1].run_finished
    assert end.state == run_pb2.RUN_STATE_FAILED, end
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in end.error.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(info)
    return info.reason, retry_after_s


def asked(upstream: ModelServer, model: str) -> int:
    return sum(request.body["model"] == model for request in upstream.requests)


GARBAGE = [
    RawAnswer([b"<html>busy</html>"]),
    RawAnswer([text_frame("So far "), b"data: NaN\n\n"]),
    RawAnswer([b'data: {"choices": null, "error": {"message": "sk-leak"}}\n\n']),
    RawAnswer([b"\x1f\x8b\x08\x00" + b"\x00" * 1000]),
    RawAnswer([b"data: " + b"x" * 1_000_000] * 10),
]


async def test_accidents_before_the_first_event_are_repaired_and_later_ones_told(
    upstream: ModelServer, tmp_path: Path
) -> None:
    with server_asking(upstream, tmp_path / "data") as server:
        async with stubs_of(server) as stubs:
            upstream.enqueue(RawAnswer([b"{}"], 429, {"Retry-After": "1"}), RawAnswer([], then="reset"))
            assert text_of(await ask(stubs, "repaired")) == "fine"
            assert asked(upstream, "repaired") == 3
            # What is to be waited for is more than the run has, or than anybody should.
            for retry_after, deadline_s in (("20", 15), ("31", 0)):
                upstream.enqueue(RawAnswer([b"{}"], 429, {"Retry-After": retry_after}))
                events = await ask(stubs, f"limited for {retry_after}".replace(" ", "-"), deadline_s)
                assert error_of(events) == ("MODEL_RATE_LIMITED", float(retry_after))
                assert asked(upstream, f"limited-for-{retry_after}") == 1
            assert error_of(await ask(stubs, "silent")) == ("MODEL_TIMEOUT", None)
            assert asked(upstream, "silent") == 1
            upstream.enqueue(RawAnswer([text_frame("So far ")], then="reset"))
            cut = await ask(stubs, "cut")
            assert (text_of(cut), *error_of(cut)) == ("So far ", "MODEL_STREAM_INCOMPLETE", None)
            upstream.enqueue(RawAnswer([text_frame("So far "), *[b": working\n\n"] * 100], pause_s=0.05))
            stalled = await ask(stubs, "stalled")
            assert (text_of(stalled), *error_of(stalled)) == ("So far ", "MODEL_TIMEOUT", None)
            for answer in GARBAGE:
                upstream.enqueue(answer)
                events = await ask(stubs, "garbage")
                assert error_of(events) == ("MODEL_RESPONSE_INVALID", None)
                assert "sk-leak" not in str(events)
            assert asked(upstream, "garbage") == len(GARBAGE)
        assert number(server, "parley_model_retries_total", provider="default", model="other") == 2


async def test_a_server_at_its_limit_and_one_that_is_down_are_not_hammered(
    upstream: ModelServer, tmp_path: Path
) -> None:
    with server_asking(upstream, tmp_path / "data", NAME="down", FIRST_EVENT_TIMEOUT_S="60") as server:
        async with stubs_of(server) as stubs:
            ends = await asyncio.gather(*(ask(stubs, "limited") for _ in range(REQUESTS)))
            assert {error_of(events) for events in ends} == {("MODEL_RATE_LIMITED", None)}
            assert REQUESTS <= asked(upstream, "limited") <= 1.10 * REQUESTS
            await asyncio.gather(*(ask(stubs, "down") for _ in range(MIN_CALLS)))
            attempts = asked(upstream, "down")
            assert attempts <= 1.10 * MIN_CALLS
            reason, retry_after_s = error_of(await ask(stubs, "down"))
            assert reason == "MODEL_UNAVAILABLE"
            assert retry_after_s is not None
            assert 0 < retry_after_s <= PROBE_INTERVAL_S
            assert asked(upstream, "down") == attempts
            assert number(server, "parley_model_breaker_state", provider="default", model="down") == 2
            # Another model of the same server is asked as ever.
            assert text_of(await ask(stubs, "fine")) == "fine"
            await check_a_runs_deadline_ends_its_call(upstream, stubs)


async def check_a_runs_deadline_ends_its_call(upstream: ModelServer, stubs: Stubs) -> None:
    events = await ask(stubs, "silent", deadline_s=1)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_EXPIRED
    async with asyncio.timeout(5):
        await upstream.requests[-1].disconnected.wait()


async def test_another_model_answers_with_a_warning(upstream: ModelServer, tmp_path: Path) -> None:
    with server_asking(upstream, tmp_path / "data", NAME="down", FALLBACKS="limited,third", RETRIES="0") as server:
        async with stubs_of(server) as stubs:
            events = await ask(stubs)
            assert text_of(events) == "fine"
            (warning,) = (event.warning for event in events if event.HasField("warning"))
            assert warning.reason == "MODEL_FALLBACK"
            assert warning.message == "down is not available, so third answers"
            assert [request.body["model"] for request in upstream.requests] == ["down", "limited", "third"]
            upstream.enqueue(RawAnswer([b'{"code": "context_length_exceeded"}'], 400))
            assert error_of(await ask(stubs)) == ("MODEL_CONTEXT_TOO_LONG", None)
            assert len(upstream.requests) == 4
        assert number(server, "parley_model_calls_total", model="third", outcome="ok") == 1
