"""Calls of a host's tools: for whom, for how long, until when; and when none is made any more."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import protovalidate
import pytest
import structlog
from certificates import authority, issued_by
from parley_server.breaker import MIN_CALLS, PROBE_INTERVAL_S
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import StartError
from parley_server.domain.tool import ToolCallStatus
from parley_server.rpc.mapping.request_context import to_binary
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ToolError
from parley_server.tools.grpc_source import GrpcToolSource
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.remote.host_settings import ToolHostSettings
from parley_server.tools.source import published
from parley_server.tools.tool import Tool, ToolContext
from unit.tools.remote.raw_host import (
    TOKEN,
    Behaviour,
    RawHost,
    Received,
    a_tool,
    ends_with,
    progress,
    result,
    source_of,
    there,
    tools_of,
)
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, run
from unit.tools.user_context import context_of


def call_context(user: RequestContext, run_id: str = "run_1", time_s: float = 10.0) -> ToolContext:
    deadline = asyncio.get_running_loop().time() + time_s
    return ToolContext(request=user, run_id=run_id, call_id="call_1", idempotency_key="k", deadline=deadline)


async def hang(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
    await asyncio.Event().wait()
    yield result("1")


async def begin_and_hang(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
    yield progress("begun")
    await asyncio.Event().wait()


async def tell_who_asks(received: Received) -> AsyncIterator[bytes]:
    await asyncio.sleep(0.001)
    yield result(json.dumps(received.user.user_id))


async def test_every_call_is_made_for_its_own_user_whatever_the_arguments_say() -> None:
    host = RawHost(behaviour=tell_who_asks)
    async with tools_of(host) as registry:
        tool = await there(registry, "h_do")

        async def ask(number: int) -> None:
            user, other = ("ann", "ben") if number % 2 else ("ben", "ann")
            context = call_context(context_of(user), f"run_{user}")
            assert await tool.call(context, {"user_id": other, "n": number}) == user

        await asyncio.gather(*(ask(number) for number in range(200)))
    for each in host.received:
        assert each.request.run_id == f"run_{each.user.user_id}"


async def test_the_context_is_the_users_own_and_of_now_and_nobodys_key_goes_along() -> None:
    host = RawHost()
    async with tools_of(host) as registry:
        tool = await there(registry, "h_do")
        user = context_of("ann").with_metadata(page="7")
        await tool.call(call_context(user), {})
    [received] = host.received
    assert protovalidate.Validator().collect_violations(received.request) == []
    assert (received.user.user_id, received.user.time_zone, received.user.locale) == ("ann", "Europe/Berlin", "de-DE")
    assert dict(received.user.metadata) == {"page": "7"}
    made = received.user.timestamp.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert received.metadata["x-request-id"] == user.request_id
    assert received.metadata["authorization"] == f"Bearer {TOKEN}"
    known = {"parley-context-bin", "x-request-id", "authorization", "user-agent"}
    assert set(received.metadata) <= known


async def test_the_host_is_told_how_long_the_tool_has() -> None:
    host = RawHost(a_tool("short"), a_tool("long"))
    host.tools[0].timeout.FromSeconds(5)
    host.tools[1].timeout.FromSeconds(500)
    async with tools_of(host, call_timeout_s=50) as registry:
        for name in ("h_short", "h_long"):
            await run([await there(registry, name)], [a_call(1, name)], RunSink())
    short, long = [each.time_s for each in host.received]
    # The wire rounds up: 5 s and 50 s, though the tool said 500.
    assert 0 < short <= 6 < long <= 52


async def test_a_slow_tool_is_given_up_in_time_and_the_host_is_told() -> None:
    host = RawHost(behaviour=hang)
    host.tools[0].timeout.FromMilliseconds(100)
    async with tools_of(host) as registry:
        [told] = await run([await there(registry, "h_do")], [a_call(1, "h_do")], RunSink())
        assert told.status is ToolCallStatus.TIMED_OUT
        async with asyncio.timeout(10):
            await host.received[0].over.wait()


@pytest.mark.parametrize("behaviour", [hang, begin_and_hang])
async def test_a_cancelled_call_ends_at_the_host(behaviour: Behaviour) -> None:
    host = RawHost(behaviour=behaviour)
    async with tools_of(host) as registry:
        tools = ToolRegistry([await there(registry, "h_do")])
        manager = ToolCallManager(tools)
        plan = manager.plan(context_of(), "run_1", [a_call(1, "h_do")], tools.names)
        running = asyncio.create_task(manager.run(context_of(), plan, RunSink()))
        received = await host.call()
        running.cancel()
        # Long before the tool's own 30 s.
        async with asyncio.timeout(10):
            await received.over.wait()
        with pytest.raises(asyncio.CancelledError):
            await running


class Clock:
    """A clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def code_of(tool: Tool, time_s: float = 10.0) -> str:
    """Call it; return the error's code, empty for none."""
    try:
        await tool.call(call_context(context_of(), time_s=time_s), {})
    except ToolError as error:
        return error.code
    return ""


async def test_a_host_that_mostly_fails_is_left_alone_for_a_while() -> None:
    host, clock, registry = RawHost(behaviour=ends_with(grpc.StatusCode.INTERNAL)), Clock(), ToolRegistry()
    await host.start()
    settings = ToolHostSettings.model_validate({"target": host.address, "token": TOKEN})
    with structlog.testing.capture_logs() as logs:
        async with published([GrpcToolSource("h", settings, to_binary, clock)], registry):
            tool = await there(registry, "h_do")
            assert [await code_of(tool) for _ in range(MIN_CALLS)] == ["internal"] * MIN_CALLS
            assert await code_of(tool) == "unavailable"
            assert len(host.received) == MIN_CALLS
            clock.now += PROBE_INTERVAL_S
            assert [await code_of(tool), await code_of(tool)] == ["internal", "unavailable"]
            host.behaviour = tell_who_asks
            clock.now += PROBE_INTERVAL_S
            assert [await code_of(tool), await code_of(tool)] == ["", ""]
    await host.stop()
    states = [line["state"] for line in logs if line["event"] == "tool_host_breaker"]
    assert states == ["open", "half_open", "open", "half_open", "closed"]


async def test_a_host_that_hangs_is_left_alone() -> None:
    host = RawHost(behaviour=hang)
    host.tools[0].timeout.FromMilliseconds(50)
    async with tools_of(host) as registry:
        tool = await there(registry, "h_do")
        told = await run([tool], [a_call(number, "h_do") for number in range(MIN_CALLS)], RunSink())
        assert {each.error_code for each in told} == {"timeout"}
        assert await code_of(tool) == "unavailable"


async def test_a_tool_that_tells_how_far_it_is_may_be_slow() -> None:
    host = RawHost(behaviour=begin_and_hang)
    async with tools_of(host) as registry:
        tool = await there(registry, "h_do")
        assert set(await asyncio.gather(*(code_of(tool, time_s=0.5) for _ in range(MIN_CALLS)))) == {"timeout"}
        host.behaviour = tell_who_asks
        assert await code_of(tool) == ""


async def test_what_a_tool_refuses_does_not_count_against_its_host() -> None:
    host = RawHost(behaviour=ends_with(grpc.StatusCode.INVALID_ARGUMENT))
    async with tools_of(host) as registry:
        tool = await there(registry, "h_do")
        assert {await code_of(tool) for _ in range(2 * MIN_CALLS)} == {"invalid_arguments"}
    assert len(host.received) == 2 * MIN_CALLS


# --- The way there ---------------------------------------------------------------------------------------------------


async def test_a_host_on_a_unix_socket_is_called(tmp_path: Path) -> None:
    host = RawHost()
    host.address = f"unix:{tmp_path}/host"
    async with tools_of(host) as registry:
        assert await code_of(await there(registry, "h_do")) == ""


async def test_a_host_with_a_certificate_asks_for_this_servers(tmp_path: Path) -> None:
    ca, clients_ca = authority(), authority("Clients")
    certificate, ours = issued_by(ca), issued_by(clients_ca)
    files = ours.write(tmp_path / "ours")
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    asks = grpc.ssl_server_credentials(
        [(certificate.key_pem, certificate.certificate_pem)], clients_ca.certificate_pem, require_client_auth=True
    )
    host = RawHost()
    await host.start(asks)
    shown = {"tls_certificate_file": files.certificate, "tls_private_key_file": files.private_key}
    for settings, names in (({"tls_ca_file": tmp_path / "ca.pem", **shown}, ["h_do"]), (shown, [])):
        registry = ToolRegistry()
        async with published([source_of(host, **settings)], registry):
            assert list(registry.names) == names
    await host.stop()


@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_certificate_that_is_none_keeps_the_server_from_starting(tmp_path: Path, content: str | None) -> None:
    file, host = tmp_path / "ca.pem", RawHost()
    host.address = "tools.example.org:7000"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartError, match=r"\[tool_hosts\.h\] tls_ca_file: .*ca\.pem"):
        source_of(host, tls_ca_file=file)
