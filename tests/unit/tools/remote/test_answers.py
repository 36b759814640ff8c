"""What a host's answers come to: whatever it says, every call has one honest result, and its words stay material."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_pb2
from parley_server.domain.run_event import ToolCallProgress
from parley_server.domain.tool import ToolCallStatus, ToolResult
from parley_server.tools import retries
from parley_server.tools.errors import ToolError
from parley_server.tools.remote.outcomes import result_aside
from unit.tools.remote.raw_host import (
    IDEMPOTENT,
    READ,
    WRITE,
    Behaviour,
    RawHost,
    Received,
    a_tool,
    ends_with,
    failure,
    progress,
    result,
    says,
    there,
    tools_of,
    until,
)
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, error_of, run

CODE = grpc.StatusCode
OK, ERROR, UNKNOWN = ToolCallStatus.OK, ToolCallStatus.ERROR, ToolCallStatus.UNKNOWN_OUTCOME
BAD_UTF8 = b"\x12\x05\x0a\x03\xff\xfe\xfd"
NO_RESULT = {READ: (ERROR, "internal"), IDEMPOTENT: (ERROR, "internal"), WRITE: (UNKNOWN, "unknown_outcome")}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_CEILING_S", 0.001)


async def ask(
    behaviour: Behaviour, effect: tool_pb2.ToolEffect.ValueType = READ, max_retries: int = 0
) -> tuple[ToolResult, RawHost]:
    """Call a tool that behaves so, once."""
    host = RawHost(a_tool(effect=effect, max_retries=max_retries), behaviour=behaviour)
    async with tools_of(host) as registry:
        [told] = await run([await there(registry, "h_do")], [a_call(1, "h_do")], RunSink())
    assert "SELECT" not in told.result_json
    return told, host


def outcome(told: ToolResult) -> tuple[ToolCallStatus, str]:
    return told.status, told.error_code


@pytest.mark.parametrize("text", ["{}", "[1,2]", '"x"', "null", "-0.5", '{"a":9007199254740993}', '"\\ud83d\\ude00"'])
async def test_a_result_is_any_json_value(text: str) -> None:
    told, _ = await ask(says(result(text)))
    assert json.loads(told.result_json) == {"ok": True, "result": json.loads(text)}


@pytest.mark.parametrize("effect", [READ, IDEMPOTENT, WRITE])
@pytest.mark.parametrize(
    "behaviour",
    [
        says(result("{")),
        says(result("")),
        says(result("NaN")),
        says(result("[" * 100_000)),
        says(result("[" * 65 + "]" * 65)),
        says(result("1" * 5000)),
        says(b"\xff\xff"),
        says(BAD_UTF8),
        says(progress("x"), BAD_UTF8),
        says(),
        says(progress("x")),
    ],
)
async def test_an_answer_that_is_none_is_an_error_and_of_a_write_no_one_knows(
    behaviour: Behaviour, effect: tool_pb2.ToolEffect.ValueType
) -> None:
    told, host = await ask(behaviour, effect)
    assert outcome(told) == NO_RESULT[effect]
    assert len(host.received) == 1


@pytest.mark.parametrize("effect", [READ, WRITE])
@pytest.mark.parametrize("more", [says(result("1"), result("2")), says(result("1"), failure("late"))])
async def test_the_first_answer_counts(more: Behaviour, effect: tool_pb2.ToolEffect.ValueType) -> None:
    told, _ = await ask(more, effect)
    assert told.result_json == '{"ok":true,"result":1}'


@pytest.mark.parametrize("behaviour", [ends_with(CODE.INTERNAL, result("1")), ends_with(CODE.UNAVAILABLE, result("1"))])
async def test_an_answer_counts_whatever_status_follows_it(behaviour: Behaviour) -> None:
    told, _ = await ask(behaviour, WRITE)
    assert told.status is OK


async def test_a_host_that_never_ends_what_it_has_answered_holds_up_nobody() -> None:
    async def linger(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
        yield result("1")
        await asyncio.Event().wait()

    told, host = await ask(linger)
    assert told.status is OK
    async with asyncio.timeout(5):
        await host.received[0].over.wait()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (failure("sold_out", "None left.", hint="Wait.", retryable=False), (ERROR, "sold_out")),
        (failure("unknown_outcome", "x"), (UNKNOWN, "unknown_outcome")),
        (failure("", "x"), (ERROR, "internal")),
        (failure("no such code!\n", "x" * 5000), (ERROR, "internal")),
    ],
)
async def test_an_error_is_told_in_the_hosts_words(event: bytes, expected: tuple[ToolCallStatus, str]) -> None:
    told, _ = await ask(says(event), WRITE)
    assert outcome(told) == expected
    assert len(told.error_message) <= 1024


async def test_arguments_that_do_not_fit_are_listed() -> None:
    problem = pb.HostedToolFieldProblem(path="items[0].price", problem="must be a number")
    told, _ = await ask(says(failure("invalid_arguments", fields=[problem])), WRITE)
    assert told.status is ToolCallStatus.INVALID_ARGUMENTS
    assert error_of(told)["fields"] == [{"path": "items[0].price", "problem": "must be a number"}]


@pytest.mark.parametrize("effect", [READ, IDEMPOTENT, WRITE])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (CODE.UNAUTHENTICATED, (ERROR, "unavailable")),
        (CODE.PERMISSION_DENIED, (ERROR, "unavailable")),
        (CODE.UNIMPLEMENTED, (ERROR, "unavailable")),
        (CODE.NOT_FOUND, (ERROR, "unavailable")),
        (CODE.FAILED_PRECONDITION, (ERROR, "tool_changed")),
        (CODE.INVALID_ARGUMENT, (ToolCallStatus.INVALID_ARGUMENTS, "invalid_arguments")),
    ],
)
async def test_a_refusal_says_that_nothing_has_happened(
    code: grpc.StatusCode, expected: tuple[ToolCallStatus, str], effect: tool_pb2.ToolEffect.ValueType
) -> None:
    told, host = await ask(ends_with(code), effect)
    assert outcome(told) == expected
    assert len(host.received) == 1


@pytest.mark.parametrize("begun", [(), (progress("half"),)])
@pytest.mark.parametrize(
    ("code", "reads"),
    [
        (CODE.UNAVAILABLE, "unavailable"),
        (CODE.CANCELLED, "unavailable"),
        (CODE.ABORTED, "unavailable"),
        (CODE.RESOURCE_EXHAUSTED, "unavailable"),
        (CODE.INTERNAL, "internal"),
        (CODE.UNKNOWN, "internal"),
    ],
)
async def test_a_call_that_breaks_is_repeated_unless_it_writes(
    code: grpc.StatusCode, reads: str, begun: tuple[bytes, ...]
) -> None:
    for effect in (READ, IDEMPOTENT):
        told, host = await ask(ends_with(code, *begun), effect, max_retries=2)
        assert outcome(told) == (ERROR, reads)
        assert len(host.received) == (3 if reads == "unavailable" else 1)
        # The same call, and known as that.
        assert len({(each.request.idempotency_key, each.request.call_id) for each in host.received}) == 1
    told, host = await ask(ends_with(code, *begun), WRITE, max_retries=2)
    assert outcome(told) == (UNKNOWN, "unknown_outcome")
    assert len(host.received) == 1


async def test_after_progress_a_refusal_is_no_proof_that_nothing_happened() -> None:
    told, _ = await ask(ends_with(CODE.NOT_FOUND, progress("booking")), WRITE)
    assert outcome(told) == (UNKNOWN, "unknown_outcome")


async def test_progress_is_told_on_the_way() -> None:
    sink, more = RunSink(), asyncio.Event()

    async def work(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
        yield progress("half\0")
        await more.wait()
        yield result("1")

    host = RawHost(behaviour=work)
    async with tools_of(host) as registry:
        running = asyncio.create_task(run([await there(registry, "h_do")], [a_call(1, "h_do")], sink))
        await until(lambda: bool(sink.bodies(ToolCallProgress)))
        more.set()
        await running
    assert [(body.message, body.fraction) for body in sink.bodies(ToolCallProgress)] == [("half\ufffd", None)]


@pytest.mark.parametrize(
    ("effect", "expected"),
    [(READ, (ERROR, "result_too_large")), (WRITE, (UNKNOWN, "unknown_outcome"))],
)
async def test_a_message_beyond_the_limit_is_not_taken_in(
    effect: tool_pb2.ToolEffect.ValueType, expected: tuple[ToolCallStatus, str]
) -> None:
    told, _ = await ask(says(result(json.dumps("x" * 4_400_000))), effect)
    assert outcome(told) == expected


async def test_a_host_that_says_10_gb_is_stopped_early() -> None:
    sent = 0

    async def flood(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
        nonlocal sent
        chunk = progress("x" * 1_000_000)
        for _ in range(10_000):
            sent += len(chunk)
            yield chunk

    told, host = await ask(flood)
    assert outcome(told) == (ERROR, "internal")
    async with asyncio.timeout(5):
        await host.received[0].over.wait()
    assert sent < 40_000_000


async def test_nobody_waits_while_a_large_result_is_read() -> None:
    text = f"[{'[],' * 500_000}1]"
    reading = asyncio.create_task(result_aside(pb.CallToolResponse(result=pb.HostedToolResult(result_json=text))))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 3
    with pytest.raises(ToolError, match="too large"):
        await reading
