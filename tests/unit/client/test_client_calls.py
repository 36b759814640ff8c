"""What travels with a call, and how unary calls behave."""

import time
from importlib.metadata import version

import grpc
import pytest
from parley.v1.agent_pb2 import Agent
from parley.v1.content_pb2 import ContentPart
from parley.v1.request_context_pb2 import RequestContext
from parley.v1.run_pb2 import RunSpec
from parley_client import ParleyClient, UnavailableError, UnimplementedError, __version__
from parley_client.channel import is_local
from parley_client.run_request import run_spec
from unit.client.event_log import RUN_ID, answered
from unit.client.scripted_server import ReceivedCall, ScriptedAdmin, ScriptedRun, abort, serving


def values_of(call: ReceivedCall, key: str) -> list[str | bytes]:
    return [value for name, value in call.metadata if name == key]


def context_of(call: ReceivedCall) -> RequestContext:
    (value,) = values_of(call, "parley-context-bin")
    assert isinstance(value, bytes)
    return RequestContext.FromString(value)


async def test_the_server_receives_context_credential_request_id_and_deadline() -> None:
    run = ScriptedRun(answered("a"))
    async with (
        serving(run) as address,
        ParleyClient(
            address,
            "secret-key",
            user_id="telegram:42",
            time_zone="Europe/Berlin",
            locale="de-CH",
            client_name="test",
            client_version="1.2",
        ) as client,
    ):
        await client.get_run(RUN_ID)
        async with client.run("go") as stream:
            await stream.wait()
        await client.cancel_run(RUN_ID)
    for call in run.calls:
        context = context_of(call)
        assert (context.user_id, context.time_zone, context.locale) == ("telegram:42", "Europe/Berlin", "de-CH")
        assert (context.client.name, context.client.version) == ("test", "1.2")
        assert abs(context.timestamp.ToNanoseconds() / 1e9 - time.time()) < 5
        assert values_of(call, "authorization") == ["Bearer secret-key"]
        assert 0 < call.time_remaining_s < 3700
    request_ids = [values_of(call, "x-request-id")[0] for call in run.calls]
    assert len(set(request_ids)) == len(run.calls) == 3
    unary = run.calls[0]
    assert unary.time_remaining_s < 31


async def test_without_a_key_no_credential_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARLEY_API_KEY", raising=False)
    run = ScriptedRun()
    async with serving(run) as address, ParleyClient(address) as client:
        await client.get_run(RUN_ID)
    assert values_of(run.calls[0], "authorization") == []
    assert context_of(run.calls[0]).client.name == "parley-client-python"


async def test_target_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ScriptedRun()
    async with serving(run) as address:
        monkeypatch.setenv("PARLEY_TARGET", address)
        monkeypatch.setenv("PARLEY_API_KEY", "from-the-environment")
        async with ParleyClient() as client:
            await client.get_run(RUN_ID)
    assert values_of(run.calls[0], "authorization") == ["Bearer from-the-environment"]


@pytest.mark.parametrize("target", ["example.org:443", "10.0.0.1:50051", "dns:///example.org", "[2001:db8::1]:50051"])
def test_a_key_is_not_sent_in_the_clear(target: str) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        ParleyClient(target, "key")
    ParleyClient(target, "key", tls=True)
    ParleyClient(target, "key", tls=grpc.ssl_channel_credentials())
    ParleyClient(target, "key", allow_plaintext_key=True)
    ParleyClient(target, "")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\0"])
def test_a_key_that_is_no_header_value_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        ParleyClient("127.0.0.1:1", key)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("::1", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("unix:/run/parley.sock", True),
        ("unix:///run/parley.sock", True),
        ("127.0.0.1.example.org:50051", False),
        ("localhost.example.org:50051", False),
        ("ipv4:127.0.0.1:50051,10.0.0.1:50051", False),
        ("ipv6:[::1]:50051,[2001:db8::1]:50051", False),
        ("dns://10.0.0.1/localhost:50051", False),
        ("0.0.0.0:50051", False),
        ("example.org", False),
    ],
)
def test_loopback_and_unix_sockets_are_local(target: str, local: bool) -> None:
    assert is_local(target) is local


async def test_a_unary_call_is_repeated_while_the_server_is_unavailable() -> None:
    admin = ScriptedAdmin(failures=[abort(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")] * 2)
    async with serving(ScriptedRun(), admin) as address, ParleyClient(address, "") as client:
        assert (await client.server_info()).version == "9.9.9"
    assert admin.calls == 3


async def test_a_unary_call_gives_up_in_the_end() -> None:
    admin = ScriptedAdmin(failures=[abort(grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")] * 9)
    async with serving(ScriptedRun(), admin) as address, ParleyClient(address, "") as client:
        with pytest.raises(UnavailableError) as caught:
            await client.server_info()
    assert caught.value.reason == "STORAGE_UNAVAILABLE"
    assert admin.calls == 5


async def test_lists_are_fetched_to_their_end() -> None:
    run = ScriptedRun(agents=[Agent(agent_id=name) for name in ("assistant", "coder", "poet")])
    async with serving(run) as address, ParleyClient(address, "") as client:
        assert [agent.agent_id for agent in await client.agents()] == ["assistant", "coder", "poet"]
        with pytest.raises(UnimplementedError):
            await anext(client.list_runs())
    assert len(run.calls) == 3


async def test_start_sends_a_request_id_of_its_own() -> None:
    run = ScriptedRun()
    async with serving(run) as address, ParleyClient(address, "") as client:
        await client.start("go")
        await client.start("go", request_id="mine")
    first, second = (call.request_id for call in run.calls)
    assert first not in {"", "mine"}
    assert second == "mine"


def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        ParleyClient("127.0.0.1:1", "").run("go")


def test_a_spec_is_built_from_words_parts_or_a_spec() -> None:
    parts = [ContentPart(text="one"), ContentPart(text="two")]
    assert [part.text for part in run_spec("words").input] == ["words"]
    assert list(run_spec(parts).input) == parts
    given = RunSpec(agent_id="poet", conversation_id="c1", input=parts, disable_tools=True)
    built = run_spec(given, agent="coder", deadline_s=1.5)
    assert (built.agent_id, built.conversation_id, built.disable_tools) == ("coder", "c1", True)
    assert built.limits.deadline.ToMilliseconds() == 1500
    assert list(built.input) == parts
    assert given.agent_id == "poet"


def test_the_version_is_the_distributions() -> None:
    assert __version__ == version("parley-client")
