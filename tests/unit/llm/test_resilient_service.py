"""ResilientService in front of a real server: how often that is asked, and what is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_server import ModelServer, RawAnswer, text_frame
from parley_server import breaker as breaker_module
from parley_server.breaker import MIN_CALLS, BreakerState
from parley_server.domain.errors import Reason
from parley_server.domain.run import ModelOptions
from parley_server.llm import resilient_service
from parley_server.llm.model_errors import BreakerOpenError
from parley_server.llm.model_service import ModelChunk, ModelError, ModelRequest, ModelService, TextChunk
from parley_server.llm.openai_service import OpenAIService
from parley_server.llm.resilient_service import ResilientService
from parley_server.llm.retry import RetryPolicy
from parley_server.metrics.prometheus import PrometheusRecorder
from structlog.testing import capture_logs
from unit.llm.service_calls import CONTEXT, HELLO, WHOLE

OK = RawAnswer([WHOLE])
DOWN = RawAnswer([b"{}"], 503)


@pytest.fixture
def recorder() -> PrometheusRecorder:
    return PrometheusRecorder()


@asynccontextmanager
async def service_at(
    upstream: ModelServer, recorder: PrometheusRecorder, retries: int = 2, **settings: object
) -> AsyncIterator[ModelService]:
    inner = OpenAIService(upstream.settings(**settings))
    service = ResilientService(inner, "tested", RetryPolicy(retries, first_ceiling_s=0.02), ["offline"], recorder)
    try:
        yield service
    finally:
        await service.aclose()


async def ask(service: ModelService, request: ModelRequest = HELLO) -> list[ModelChunk]:
    async with aclosing(service.stream(CONTEXT, request)) as chunks:
        return [chunk async for chunk in chunks]


async def failure(service: ModelService, request: ModelRequest = HELLO) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await ask(service, request)
    return raised.value


def count(recorder: PrometheusRecorder, name: str, **labels: str) -> float:
    return recorder.registry.get_sample_value(f"parley_model_{name}", {"provider": "tested", **labels}) or 0.0


@pytest.mark.parametrize(
    "answer",
    [
        *(RawAnswer([b"{}"], status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
        RawAnswer([b"{}"], 429, {"Retry-After": "0"}),
        RawAnswer([], then="reset"),
        RawAnswer([]),
        RawAnswer([b": thinking\n\n"], then="reset"),
    ],
)
async def test_what_fails_by_accident_is_asked_again(
    upstream: ModelServer, recorder: PrometheusRecorder, answer: RawAnswer
) -> None:
    upstream.enqueue(answer, OK)
    async with service_at(upstream, recorder) as service:
        assert (await ask(service))[0] == TextChunk("Hi")
    assert len(upstream.requests) == 2
    assert count(recorder, "retries_total", model="offline") == 1
    assert count(recorder, "calls_total", model="offline", outcome="ok") == 1
    assert count(recorder, "first_event_seconds_count", model="offline") == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        *((RawAnswer([b"{}"], status), Reason.MODEL_REQUEST_REJECTED) for status in (400, 404, 422)),
        *((RawAnswer([b"{}"], status), Reason.MODEL_AUTHENTICATION_FAILED) for status in (401, 403)),
        (RawAnswer([b"{}"], 413), Reason.MODEL_CONTEXT_TOO_LONG),
        *((RawAnswer([b"{}"], status), Reason.MODEL_UNAVAILABLE) for status in (501, 505)),
        (RawAnswer([b"{}"], 429, {"Retry-After": "31"}), Reason.MODEL_RATE_LIMITED),
        (RawAnswer([], then="hang"), Reason.MODEL_TIMEOUT),
        (RawAnswer([b"<html>"]), Reason.MODEL_RESPONSE_INVALID),
        (RawAnswer([text_frame("Hi")], then="reset"), Reason.MODEL_STREAM_INCOMPLETE),
        (RawAnswer([text_frame("")], then="reset"), Reason.MODEL_STREAM_INCOMPLETE),
    ],
)
async def test_what_would_fail_again_or_be_paid_for_twice_is_not(
    upstream: ModelServer, recorder: PrometheusRecorder, answer: RawAnswer, reason: Reason
) -> None:
    upstream.enqueue(answer)
    patience_s = 0.3 if answer.then == "hang" else 30
    async with service_at(upstream, recorder, first_event_timeout_s=patience_s) as service:
        assert (await failure(service)).reason == reason
    assert len(upstream.requests) == 1
    assert count(recorder, "calls_total", model="offline", outcome=reason.lower()) == 1


async def test_a_call_is_made_three_times_at_most(upstream: ModelServer, recorder: PrometheusRecorder) -> None:
    upstream.enqueue(*[DOWN] * 4)
    async with service_at(upstream, recorder) as service:
        assert (await failure(service)).metadata == {"http_status": "503"}
    assert len(upstream.requests) == 3


async def test_a_retry_after_beyond_the_runs_deadline_is_told_at_once(
    upstream: ModelServer, recorder: PrometheusRecorder
) -> None:
    upstream.enqueue(RawAnswer([b"{}"], 429, {"Retry-After": "20"}))
    request = replace(HELLO, deadline_time=datetime.now(UTC) + timedelta(seconds=10))
    async with service_at(upstream, recorder) as service:
        assert (await failure(service, request)).retry_after_s == 20
    assert len(upstream.requests) == 1


async def test_nobody_listening_is_asked_again_and_found(recorder: PrometheusRecorder) -> None:
    async with ModelServer() as gone:
        settings = gone.settings()
    service = ResilientService(
        OpenAIService(settings), "tested", RetryPolicy(2, first_ceiling_s=0.02), ["offline"], recorder
    )
    assert (await failure(service)).reason == Reason.MODEL_UNAVAILABLE
    assert count(recorder, "retries_total", model="offline") == 2
    await service.aclose()


async def test_a_model_that_mostly_fails_is_left_alone_until_a_probe_gets_through(
    upstream: ModelServer, recorder: PrometheusRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "PROBE_INTERVAL_S", 1.0)
    upstream.enqueue(*[DOWN] * MIN_CALLS)
    async with service_at(upstream, recorder, retries=0) as service:
        with capture_logs() as logs:
            for _ in range(MIN_CALLS):
                await failure(service)
            error = await failure(service)
            assert isinstance(error, BreakerOpenError)
            assert error.retry_after_s is not None
            assert 0 < error.retry_after_s <= 1
            assert len(upstream.requests) == MIN_CALLS
            assert count(recorder, "breaker_state", model="offline") == 2
            # Another model of the same server is asked as ever.
            upstream.enqueue(OK)
            await ask(service, replace(HELLO, model="another"))
            await asyncio.sleep(1.01)
            upstream.enqueue(OK)
            await ask(service)
        assert count(recorder, "breaker_state", model="offline") == 0
        assert count(recorder, "calls_total", model="offline", outcome="breaker_open") == 1
        assert count(recorder, "calls_total", model="other", outcome="ok") == 1
    changes = [line for line in logs if line["event"] == "model_breaker_changed"]
    assert [line["state"] for line in changes] == ["open", "half_open", "closed"]
    assert changes[0] == {
        "event": "model_breaker_changed",
        "log_level": "warning",
        "provider": "tested",
        "model": "offline",
        "state": "open",
    }


async def test_what_was_never_sent_closes_no_breaker(
    upstream: ModelServer, recorder: PrometheusRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "PROBE_INTERVAL_S", 0.0)
    upstream.enqueue(*[DOWN] * MIN_CALLS)
    async with service_at(upstream, recorder, retries=0, profile={"sampling": False}) as service:
        for _ in range(MIN_CALLS):
            await failure(service)
        refused = await failure(service, replace(HELLO, options=ModelOptions(temperature=0.5)))
        assert refused.reason == Reason.MODEL_REQUEST_REJECTED
        assert count(recorder, "breaker_state", model="offline") == BreakerState.HALF_OPEN
        await ask(service)
        assert count(recorder, "breaker_state", model="offline") == BreakerState.CLOSED
    assert len(upstream.requests) == MIN_CALLS + 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429])
async def test_what_the_caller_or_a_limit_brought_about_opens_no_breaker(
    upstream: ModelServer, recorder: PrometheusRecorder, status: int
) -> None:
    upstream.enqueue(*[RawAnswer([b"{}"], status)] * (MIN_CALLS + 5))
    async with service_at(upstream, recorder, retries=0) as service:
        for _ in range(MIN_CALLS + 5):
            await failure(service)
    assert len(upstream.requests) == MIN_CALLS + 5


async def test_a_call_given_up_while_it_waits_to_be_repeated_ends_there(
    upstream: ModelServer, recorder: PrometheusRecorder
) -> None:
    upstream.enqueue(RawAnswer([b"{}"], 429, {"Retry-After": "20"}))
    async with service_at(upstream, recorder) as service:
        asking = asyncio.create_task(ask(service))
        await upstream.request()
        while not count(recorder, "retries_total", model="offline"):  # noqa: ASYNC110  # it is only counted
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert len(upstream.requests) == 1
    assert count(recorder, "calls_total", model="offline", outcome="cancelled") == 1


async def test_models_that_users_make_up_are_forgotten_and_never_labels(
    upstream: ModelServer, recorder: PrometheusRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resilient_service, "MAX_MODELS", 2)
    upstream.enqueue(*[OK] * 5)
    async with service_at(upstream, recorder) as service:
        for number in range(5):
            await ask(service, replace(HELLO, model=f"made-up-{number}"))
        assert isinstance(service, ResilientService)
        assert list(service._lines) == ["made-up-3", "made-up-4"]
    assert b"made-up" not in recorder.scrape()
    assert count(recorder, "calls_total", model="other", outcome="ok") == 5
