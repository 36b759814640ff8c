"""A tool host made with parley_client.tool_host, asked by plain stubs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import protovalidate
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_host_service_pb2_grpc as pb_grpc
from parley.v1 import tool_pb2
from parley.v1.request_context_pb2 import RequestContext
from parley_client.rich_status import error_of_call
from parley_client.tool_host import Arguments, ToolContext, ToolError, ToolHost
from pydantic import BaseModel

TOKEN = "s3cret"
ANN = RequestContext(user_id="ann", time_zone="Europe/Berlin", locale="de-DE")


class Job(Arguments):
    """What the tools are asked to do."""

    do: str = "answer"
    times: int = 1


class Done(BaseModel):
    """What came of it."""

    user_id: str
    zone: str
    key: str
    has_time: bool


HOST = ToolHost()
CANCELLED: asyncio.Queue[str] = asyncio.Queue()


@HOST.tool(effect="idempotent", timeout_s=20, max_retries=1, required_scopes=["work:do"])
async def work(context: ToolContext, arguments: Job) -> Done:
    """Work.

    At length."""
    match arguments.do:
        case "report":
            for number in range(arguments.times):
                context.progress(f"step {number}", number / 2)
                await asyncio.sleep(0.001)
        case "refuse":
            raise ToolError("sold_out", "None left.", hint="Wait.", retryable=True)
        case "break":
            raise RuntimeError("password hunter2")
        case "exit":
            raise SystemExit(3)
        case "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                CANCELLED.put_nowait(context.call_id)
                raise
        case "own timeout":
            raise TimeoutError("upstream")
        case "flood":
            return Done(user_id="x" * 4_200_000, zone="", key="", has_time=True)
    return Done(
        user_id=context.user_id,
        zone=str(context.zone),
        key=context.idempotency_key,
        has_time=0 < context.time_left_s <= 20,
    )


@HOST.tool(effect="write", name="quick", timeout_s=0.05)
async def never_in_time(context: ToolContext, arguments: Job) -> Done:  # noqa: ARG001
    """Be late."""
    await asyncio.Event().wait()
    raise AssertionError


@HOST.tool(effect="read")
async def find(context: ToolContext, arguments: Job) -> Done:
    """Find a file, whose name is no UTF-8, as Python reads it."""
    if arguments.do == "cancel itself":
        raise asyncio.CancelledError
    context.progress("looking for caf\udce9", 10**400)
    await asyncio.sleep(0.01)
    raise ToolError("not_found", "There is no caf\udce9.", hint="Not even \udce9.")


@dataclass
class Door:
    """A host that runs, and its stubs."""

    address: str
    stub: "pb_grpc.ToolHostServiceAsyncStub"
    hashes: dict[str, str]

    def call(
        self,
        arguments: str = "{}",
        *,
        name: str = "work",
        context: RequestContext | None = ANN,
        token: str = TOKEN,
        spec_hash: str = "",
        timeout_s: float | None = 10.0,
    ) -> "grpc.aio.UnaryStreamCall[pb.CallToolRequest, pb.CallToolResponse]":
        request = pb.CallToolRequest(
            name=name,
            arguments_json=arguments,
            spec_hash=spec_hash or self.hashes.get(name, "?"),
            idempotency_key="key-1",
            run_id="run_1",
            call_id="call_1",
        )
        metadata = [("authorization", f"Bearer {token}"), ("x-request-id", "req_1")]
        sent: list[tuple[str, str | bytes]] = [*metadata]
        if context is not None:
            sent.append(("parley-context-bin", context.SerializeToString()))
        return self.stub.CallTool(request, metadata=tuple(sent), timeout=timeout_s)

    async def error(self, arguments: str = "{}", **more: str) -> pb.HostedToolError:
        [event] = [event async for event in self.call(arguments, **more)]  # type: ignore[arg-type]  # names and texts
        assert event.HasField("error")
        assert "hunter2" not in str(event)
        return event.error


@pytest.fixture(scope="module")
async def door() -> AsyncIterator[Door]:
    async with HOST.serving("127.0.0.1:0", token=TOKEN, grace_s=0) as address, grpc.aio.insecure_channel(address) as ch:
        stub: pb_grpc.ToolHostServiceAsyncStub = pb_grpc.ToolHostServiceStub(ch)
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        told = await stub.DescribeTools(pb.DescribeToolsRequest(), metadata=metadata, timeout=10)
        yield Door(address, stub, {tool.name: tool.spec_hash for tool in told.tools})


async def test_tools_are_described_as_their_functions_say(door: Door) -> None:
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    told = await door.stub.DescribeTools(pb.DescribeToolsRequest(), metadata=metadata, timeout=10)
    first, second, _ = told.tools
    assert protovalidate.Validator().collect_violations(told) == []
    assert (first.name, first.description, first.effect) == (
        "work",
        "Work.\n\nAt length.",
        tool_pb2.TOOL_EFFECT_IDEMPOTENT,
    )
    assert json.loads(first.input_schema_json) == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"do": {"type": "string", "default": "answer"}, "times": {"type": "integer", "default": 1}},
    }
    assert json.loads(first.output_schema_json)["required"] == ["user_id", "zone", "key", "has_time"]
    assert (first.timeout.seconds, first.max_retries, list(first.required_scopes)) == (20, 1, ["work:do"])
    assert (second.name, second.effect, second.timeout.nanos) == ("quick", tool_pb2.TOOL_EFFECT_WRITE, 50_000_000)
    assert len({tool.spec_hash for tool in told.tools}) == 3


@pytest.mark.parametrize("timeout_s", [10.0, None])
async def test_a_call_is_made_for_its_user(door: Door, timeout_s: float | None) -> None:
    [event] = [event async for event in door.call('{"do":"answer"}', timeout_s=timeout_s)]
    told = {"user_id": "ann", "zone": "Europe/Berlin", "key": "key-1", "has_time": True}
    assert json.loads(event.result.result_json) == told


async def test_progress_comes_before_the_answer_and_only_the_newest_has_to(door: Door) -> None:
    events = [event async for event in door.call('{"do":"report","times":5}')]
    assert [event.WhichOneof("event") for event in events] == ["progress"] * (len(events) - 1) + ["result"]
    assert events[-2].progress.message == "step 4"
    assert events[-2].progress.fraction == 1.0


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ('{"times":"x","more":1}', {"times", "more"}),
        ("[]", {""}),
        ("{", {""}),
        ('{"times":1e999}', {"times"}),
    ],
)
async def test_arguments_that_do_not_fit_are_listed(door: Door, arguments: str, fields: set[str]) -> None:
    error = await door.error(arguments)
    assert error.code == "invalid_arguments"
    assert {field.path for field in error.fields} == fields


@pytest.mark.parametrize(
    ("do", "code", "retryable"),
    [
        ("refuse", "sold_out", True),
        ("break", "internal", False),
        ("exit", "internal", False),
        ("own timeout", "internal", False),
        ("flood", "result_too_large", False),
    ],
)
async def test_what_goes_wrong_is_an_error_without_its_insides(
    door: Door, do: str, code: str, retryable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = await door.error(json.dumps({"do": do}))
    assert (error.code, error.retryable) == (code, retryable)
    assert bool(caplog.records) == (code == "internal")


async def test_text_that_no_message_can_carry_is_made_one_that_it_can(door: Door) -> None:
    told, failed = [event async for event in door.call(name="find")]
    assert (told.progress.message, told.progress.fraction) == ("looking for caf\ufffd", 1.0)
    assert (failed.error.code, failed.error.message) == ("not_found", "There is no caf\ufffd.")
    assert failed.error.hint == "Not even \ufffd."


async def test_a_tool_that_cancels_itself_answers(door: Door) -> None:
    assert (await door.error('{"do":"cancel itself"}', name="find")).code == "internal"


async def test_a_tool_that_is_late_is_given_up(door: Door) -> None:
    assert (await door.error(name="quick")).code == "timeout"


async def test_a_cancelled_call_cancels_the_tool(door: Door) -> None:
    call = door.call('{"do":"hang"}')
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0.1)
    call.cancel()
    async with asyncio.timeout(10):
        assert await CANCELLED.get() == "call_1"
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize(
    ("refused", "code", "reason"),
    [
        (lambda door: door.call(token="wrong"), "UNAUTHENTICATED", "CREDENTIALS_INVALID"),
        (lambda door: door.call(token=""), "UNAUTHENTICATED", "CREDENTIALS_INVALID"),
        (lambda door: door.call(name="nothing"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (lambda door: door.call(spec_hash="other"), "FAILED_PRECONDITION", "TOOL_CHANGED"),
        (lambda door: door.call(context=None), "INVALID_ARGUMENT", "CONTEXT_INVALID"),
        (lambda door: door.call(context=RequestContext()), "INVALID_ARGUMENT", "CONTEXT_INVALID"),
    ],
)
async def test_a_refusal_has_its_reason(
    door: Door,
    refused: "Callable[[Door], grpc.aio.UnaryStreamCall[pb.CallToolRequest, pb.CallToolResponse]]",
    code: str,
    reason: str,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await refused(door).read()
    assert (failure.value.code().name, error_of_call(failure.value).reason) == (code, reason)


async def test_a_host_that_stops_says_so_and_lets_calls_end() -> None:
    host, go_on = ToolHost(), asyncio.Event()

    @host.tool(effect="read")
    async def wait(context: ToolContext, arguments: Job) -> Job:  # noqa: ARG001
        """Wait."""
        await go_on.wait()
        return arguments

    serving = host.serving("127.0.0.1:0")
    address = await serving.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: pb_grpc.ToolHostServiceAsyncStub = pb_grpc.ToolHostServiceStub(channel)
        [tool] = (await stub.DescribeTools(pb.DescribeToolsRequest(), timeout=10)).tools
        call = Door(address, stub, {"wait": tool.spec_hash}).call(name="wait")
        reading = asyncio.create_task(call.read())
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(serving.__aexit__(None, None, None))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        go_on.set()
        answered = await reading
        assert isinstance(answered, pb.CallToolResponse)
        assert answered.HasField("result")
        await stopping


async def test_health_is_told_of_what_there_is() -> None:
    host, status = ToolHost(), health_pb2.HealthCheckResponse
    async with host.serving("127.0.0.1:0", grace_s=5) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "parley.v1.ToolHostService"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == status.SERVING
        other = health_pb2.HealthCheckRequest(service="other")
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await stub.Check(other)
        assert (await stub.Watch(other).read()).status == status.SERVICE_UNKNOWN


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.7:1", "[::]:0"])
@pytest.mark.parametrize("token", ["", "x"])
async def test_a_host_that_others_can_reach_wants_a_token_and_tls(listen: str, token: str) -> None:
    with pytest.raises(ValueError, match="needs a token, and tls"):
        await ToolHost().serving(listen, token=token).__aenter__()


async def test_a_host_serves_on_a_unix_socket(tmp_path: Path) -> None:
    async with HOST.serving(f"unix:{tmp_path}/host") as address, grpc.aio.insecure_channel(address) as channel:
        stub: pb_grpc.ToolHostServiceAsyncStub = pb_grpc.ToolHostServiceStub(channel)
        assert len((await stub.DescribeTools(pb.DescribeToolsRequest(), timeout=10)).tools) == 3


class Open(BaseModel):
    """Takes anything."""

    x: int = 0


async def open_arguments(context: ToolContext, arguments: Open) -> Open:
    """Do."""
    raise AssertionError(context, arguments)


async def no_docstring(context: ToolContext, arguments: Job) -> Done:
    raise AssertionError(context, arguments)


async def no_context(arguments: Job) -> Done:
    """Do."""
    raise AssertionError(arguments)


async def no_model(context: ToolContext, arguments: dict[str, str]) -> Done:
    """Do."""
    raise AssertionError(context, arguments)


def no_coroutine(context: ToolContext, arguments: Job) -> Done:
    """Do."""
    raise AssertionError(context, arguments)


@pytest.mark.parametrize(
    ("function", "rules", "said"),
    [
        (open_arguments, {}, "Open must be closed"),
        (no_docstring, {}, "needs a docstring"),
        (no_context, {}, "it must be `async def f"),
        (no_model, {}, "it must be `async def f"),
        (no_coroutine, {}, "it must be `async def f"),
        (work, {"name": "a b"}, "its name must be"),
        (work, {"timeout_s": 601.0}, "timeout_s must be"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_at_once(
    function: Callable[..., Awaitable[BaseModel]], rules: dict[str, str], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        ToolHost().tool(effect="read", **rules)(function)  # type: ignore[arg-type]  # wrong on purpose


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools are named work"):
        HOST.tool(effect="read")(work)
