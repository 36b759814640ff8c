"""The rules that rpcs state in their options: who is let in by each, and that nobody is by what cannot be read."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from parley.v1 import access_policy_pb2, admin_service_pb2
from parley.v1.access_policy_pb2 import AccessPolicy
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.policy import MethodWithoutRuleError, Rule
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service, rule_of
from rpc.chassis import HASH_KEY, Keys, bearer, failed

USER, SERVICE = access_policy_pb2.PRINCIPAL_KIND_USER, access_policy_pb2.PRINCIPAL_KIND_SERVICE
GOOD = {
    "Anybody": (AccessPolicy(any_authenticated=True), Rule()),
    "Scoped": (AccessPolicy(scope="runs:read", audit=True), Rule("runs:read", audit=True)),
    "Users": (AccessPolicy(any_authenticated=True, principal_kind=USER), Rule("", PrincipalKind.USER)),
    "Services": (AccessPolicy(scope="runs:read", principal_kind=SERVICE), Rule("runs:read", PrincipalKind.SERVICE)),
}
BAD: dict[str, AccessPolicy | None] = {
    "Empty": AccessPolicy(),
    "NoScope": AccessPolicy(scope=""),
    "NotEven": AccessPolicy(any_authenticated=False),
    "KindAlone": AccessPolicy(principal_kind=USER),
    "OfAnotherKind": AccessPolicy(any_authenticated=True, principal_kind=access_policy_pb2.PrincipalKind.ValueType(9)),
    "Without": None,
}


def declared() -> dict[str, ServiceDescriptor]:
    """Declare two services as a proto file would."""
    file = descriptor_pb2.FileDescriptorProto(name="access_rules.proto", package="test", syntax="proto3")
    file.dependency.extend(["parley/v1/access_policy.proto", "parley/v1/admin_service.proto"])
    for service, methods in (("Good", {name: policy for name, (policy, _) in GOOD.items()}), ("Bad", BAD)):
        declaration = file.service.add(name=service)
        for name, policy in methods.items():
            method = declaration.method.add(name=name)
            method.input_type = ".parley.v1.GetServerInfoRequest"
            method.output_type = ".parley.v1.GetServerInfoResponse"
            if policy is not None:
                method.options.Extensions[access_policy_pb2.access_policy].CopyFrom(policy)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return dict(pool.FindFileByName(file.name).services_by_name)


SERVICES = declared()


class Servicer:
    """Lets everybody in who gets here."""

    async def _answer(
        self, _context: RequestContext, _request: admin_service_pb2.GetServerInfoRequest
    ) -> admin_service_pb2.GetServerInfoResponse:
        return admin_service_pb2.GetServerInfoResponse(version="1")

    anybody = scoped = users = services = empty = no_scope = not_even = kind_alone = of_another_kind = without = _answer


@pytest.mark.parametrize("method", list(SERVICES["Good"].methods), ids=lambda method: method.name)
def test_a_rule_is_what_the_options_say(method: MethodDescriptor) -> None:
    assert rule_of(method) == GOOD[method.name][1]


@pytest.mark.parametrize("method", list(SERVICES["Bad"].methods), ids=lambda method: method.name)
def test_options_that_let_nobody_in_by_name_let_nobody_in(method: MethodDescriptor) -> None:
    assert rule_of(method) is None


async def test_a_server_with_an_rpc_that_is_nobodys_is_not_built() -> None:
    chain = build_auth_chain(("api_key",), ProviderParts(Keys(), HASH_KEY))
    with pytest.raises(MethodWithoutRuleError):
        RpcServer([Service(SERVICES["Bad"], Servicer())], chain, Drain())


@pytest.fixture(scope="module")
async def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
async def channel(keys: Keys) -> AsyncIterator[grpc.aio.Channel]:
    chain = build_auth_chain(("api_key",), ProviderParts(keys, HASH_KEY))
    server = RpcServer([Service(SERVICES["Good"], Servicer())], chain, Drain())
    address = await server.start(ServerSettings(listen="127.0.0.1:0"))
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened
    await server.stop(0)


async def outcome(channel: grpc.aio.Channel, method: str, key: str) -> tuple[str, dict[str, str]]:
    """Return the reason a caller is refused for, with what is said of it; empty where he is let in."""
    call: grpc.aio.UnaryUnaryMultiCallable[
        admin_service_pb2.GetServerInfoRequest, admin_service_pb2.GetServerInfoResponse
    ] = channel.unary_unary(
        f"/test.Good/{method}",
        admin_service_pb2.GetServerInfoRequest.SerializeToString,
        admin_service_pb2.GetServerInfoResponse.FromString,
    )
    calling = call(admin_service_pb2.GetServerInfoRequest(), metadata=grpc.aio.Metadata(*bearer(key)), timeout=5)
    if await calling.code() is grpc.StatusCode.OK:
        return "", {}
    failure = await failed(calling)
    assert failure.code is grpc.StatusCode.PERMISSION_DENIED
    return failure.reason, failure.metadata


@pytest.mark.parametrize("has_scope", [False, True])
@pytest.mark.parametrize("kind", PrincipalKind)
async def test_every_kind_of_caller_gets_what_the_rule_says(
    channel: grpc.aio.Channel, keys: Keys, kind: PrincipalKind, has_scope: bool
) -> None:
    key = keys.issue("ann", kind, scopes=frozenset({"runs:read"} if has_scope else ()))
    no_scope = ("", {}) if has_scope else ("SCOPE_MISSING", {"scope": "runs:read"})
    is_user = kind is PrincipalKind.USER
    assert await outcome(channel, "Anybody", key) == ("", {})
    assert await outcome(channel, "Scoped", key) == no_scope
    users_only = ("", {}) if is_user else ("PRINCIPAL_NOT_ALLOWED", {"principal_kind": "user"})
    assert await outcome(channel, "Users", key) == users_only
    services_only = ("PRINCIPAL_NOT_ALLOWED", {"principal_kind": "service"}) if is_user else no_scope
    assert await outcome(channel, "Services", key) == services_only


async def test_a_service_that_speaks_for_a_user_stays_a_service(channel: grpc.aio.Channel, keys: Keys) -> None:
    key = keys.issue("bot", PrincipalKind.SERVICE, act_as=["ann"])
    metadata = grpc.aio.Metadata(*bearer(key), ("parley-context", '{"userId":"ann"}'))
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Good/Users")
    assert (await failed(call(b"", metadata=metadata, timeout=5))).reason == "PRINCIPAL_NOT_ALLOWED"
