"""A tool host that wants every call to prove for whom it is, by tokens of a real signer."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import jwt
import pytest
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_host_service_pb2_grpc as pb_grpc
from parley.v1.request_context_pb2 import RequestContext
from parley_client.rich_status import error_of_call
from parley_client.tool_host import Arguments, DelegationError, DelegationKeys, ToolContext, ToolHost
from parley_server.auth.delegated import Delegation
from parley_server.auth.delegation_signer import DelegationSigner
from pydantic import BaseModel

SIGNER, OTHER = DelegationSigner(b"k" * 32), DelegationSigner(b"o" * 32)
KEY_SET = f'{{"keys":[{SIGNER.jwk_json()}]}}'
KEYS = DelegationKeys("weather", KEY_SET)
CALL = {"user_id": "ann", "run_id": "run_1", "call_id": "call_1"}


def a_delegation() -> Delegation:
    now = datetime.now(UTC).replace(microsecond=0)
    return Delegation(
        user_id="ann",
        actors=("service:host:weather", "service:web"),
        audiences=("host:weather", "parley"),
        scopes=frozenset({"runs:read"}),
        issue_time=now,
        expire_time=now + timedelta(minutes=5),
        token_id="token_1",
        credential_id="key",
        run_id="run_1",
        call_id="call_1",
    )


def _at(delegation: Delegation, offset: timedelta) -> Delegation:
    return replace(delegation, issue_time=delegation.issue_time + offset, expire_time=delegation.expire_time + offset)


def test_a_token_proves_its_call() -> None:
    made = a_delegation()
    proved = KEYS.verify_call(SIGNER.sign(made), **CALL)
    assert (proved.user_id, proved.actors, proved.scopes) == (made.user_id, made.actors, made.scopes)
    assert (proved.run_id, proved.call_id, proved.expire_time) == (made.run_id, made.call_id, made.expire_time)


@pytest.mark.parametrize(
    "token",
    [
        OTHER.sign,
        lambda made: SIGNER.sign(replace(made, audiences=("host:mail", "parley"))),
        lambda made: SIGNER.sign(replace(made, audiences=("parley",))),
        lambda made: SIGNER.sign(replace(made, user_id="bob")),
        lambda made: SIGNER.sign(replace(made, run_id="run_2")),
        lambda made: SIGNER.sign(replace(made, call_id="call_2")),
        lambda made: SIGNER.sign(replace(made, run_id="", call_id="")),
        lambda made: SIGNER.sign(_at(made, timedelta(minutes=-6))),
        lambda made: SIGNER.sign(_at(made, timedelta(minutes=6))),
        lambda made: SIGNER.sign(made)[:-2],
        lambda made: SIGNER.sign(made).rpartition(".")[0] + ".",
        lambda made: jwt.encode({"sub": made.user_id}, "x" * 64, headers={"kid": SIGNER.key_id}),
        lambda made: jwt.encode({"sub": made.user_id}, SIGNER.public_key, headers={"kid": SIGNER.key_id}),
        lambda made: jwt.encode({"sub": made.user_id}, "", algorithm="none", headers={"kid": SIGNER.key_id}),
        lambda _: "",
        lambda _: "x.y.z",
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_no_other_token_does(token: Callable[[Delegation], str]) -> None:
    with pytest.raises(DelegationError):
        KEYS.verify_call(token(a_delegation()), **CALL)


@pytest.mark.parametrize(
    "key_set",
    ["", "{}", "[]", '{"keys":[]}', '{"keys":[{"kty":"oct","kid":"x","k":"c2VjcmV0","alg":"HS256"}]}'],
)
def test_what_is_no_key_set_is_refused_at_once(key_set: str) -> None:
    with pytest.raises(ValueError, match="key"):
        DelegationKeys("weather", key_set)


class Nothing(Arguments):
    """No arguments."""


class Person(BaseModel):
    """Who asks."""

    user_id: str
    actors: list[str]


async def test_a_host_with_keys_serves_proved_calls_alone() -> None:
    host = ToolHost()

    @host.tool(effect="read")
    async def whoami(context: ToolContext, arguments: Nothing) -> Person:  # noqa: ARG001
        """Tell who asks."""
        assert context.delegation is not None
        assert context.delegation_token not in repr(context)
        return Person(user_id=context.delegation.user_id, actors=list(context.delegation.actors))

    async with host.serving("127.0.0.1:0", keys=KEYS) as address, grpc.aio.insecure_channel(address) as channel:
        stub: pb_grpc.ToolHostServiceAsyncStub = pb_grpc.ToolHostServiceStub(channel)
        [tool] = (await stub.DescribeTools(pb.DescribeToolsRequest(), timeout=10)).tools
        request = pb.CallToolRequest(
            name="whoami", arguments_json="{}", spec_hash=tool.spec_hash, run_id="run_1", call_id="call_1"
        )
        context = ("parley-context-bin", RequestContext(user_id="ann").SerializeToString())
        token = SIGNER.sign(a_delegation())
        answer = await stub.CallTool(request, metadata=(context, ("parley-delegation", token)), timeout=10).read()
        assert isinstance(answer, pb.CallToolResponse)
        assert answer.result.result_json == '{"user_id":"ann","actors":["service:host:weather","service:web"]}'
        bob = ("parley-context-bin", RequestContext(user_id="bob").SerializeToString())
        other = SIGNER.sign(replace(a_delegation(), call_id="call_2"))
        for metadata in (
            (context,),
            (bob, ("parley-delegation", token)),
            (context, ("parley-delegation", other)),
            (context, ("parley-delegation", token), ("parley-delegation", token)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stub.CallTool(request, metadata=metadata, timeout=10).read()
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error_of_call(failure.value).reason == "CREDENTIALS_INVALID"
