"""Who acts for whom, by the public door: tokens for users, what they open, and what ends them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import jwt
import pytest
from google.protobuf.duration_pb2 import Duration
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import delegation_service_pb2 as delegations
from parley.v1.request_context_pb2 import RequestContext
from parley_server.domain.principal import PrincipalKind
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.page import PageRequest
from rpc.chassis import bearer, failed
from rpc.key_server import KeyServer, serving_keys

CODE = grpc.StatusCode
READ, WRITE = "conversations:read", "conversations:write"
SERVICE = PrincipalKind.SERVICE


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KeyServer]:
    async with serving_keys(Path(tmp_path_factory.mktemp("delegations"))) as running:
        yield running


async def issue(
    server: KeyServer, metadata: grpc.aio.Metadata, scopes: Sequence[str] = (), **wish: object
) -> delegations.IssueDelegationTokenResponse:
    request = delegations.IssueDelegationTokenRequest(scopes=scopes, **wish)  # type: ignore[arg-type]  # names vary
    return await server.delegations.IssueDelegationToken(request, metadata=metadata, timeout=10)


def by(token: str) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*bearer(token))


def acting_as(metadata: grpc.aio.Metadata, user_id: str) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*metadata, ("parley-context-bin", RequestContext(user_id=user_id).SerializeToString()))


async def create(server: KeyServer, metadata: grpc.aio.Metadata, title: str = "") -> str:
    request = conversations.CreateConversationRequest(title=title)
    made = await server.conversations.CreateConversation(request, metadata=metadata, timeout=10)
    return made.conversation.conversation_id


async def titles(server: KeyServer, metadata: grpc.aio.Metadata) -> set[str]:
    request = conversations.ListConversationsRequest()
    found = await server.conversations.ListConversations(request, metadata=metadata, timeout=10)
    return {each.title for each in found.conversations}


async def test_who_holds_a_token_is_the_user_it_names_and_nobody_else(server: KeyServer) -> None:
    web = await server.metadata("web", SERVICE, [READ, WRITE], ["tg:*"])
    made = await issue(server, web, [READ, WRITE], user_id="tg:1")
    assert list(made.actors) == ["service:web"]
    await create(server, by(made.token), "by token")
    await create(server, acting_as(web, "tg:1"), "by claim")
    assert await titles(server, by(made.token)) == {"by token", "by claim"}
    assert await titles(server, acting_as(web, "tg:2")) == set()
    failure = await failed(titles(server, acting_as(by(made.token), "tg:2")))
    assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "USER_MISMATCH")


async def test_a_token_opens_what_it_was_made_for(server: KeyServer) -> None:
    ann = await server.metadata("ann", scopes=[READ, WRITE])
    reading = await issue(server, ann, [READ])
    assert list(reading.actors) == ["user:ann"]
    await titles(server, by(reading.token))
    failure = await failed(create(server, by(reading.token)))
    assert (failure.code, failure.reason, failure.metadata) == (
        CODE.PERMISSION_DENIED,
        "SCOPE_MISSING",
        {"scope": WRITE},
    )
    nothing = await issue(server, ann)
    assert (await failed(titles(server, by(nothing.token)))).reason == "SCOPE_MISSING"
    assert (await failed(issue(server, ann, ["runs:read"]))).metadata == {"scope": "runs:read"}
    assert (await failed(issue(server, by(reading.token), [WRITE]))).metadata == {"scope": WRITE}


async def test_a_services_token_for_its_own_things_is_the_service_and_no_user_of_its_name(server: KeyServer) -> None:
    web = await server.metadata("web", SERVICE, [READ, WRITE], ["*"])
    made = by((await issue(server, web, [READ, WRITE])).token)
    await create(server, made, "the service's")
    await create(server, await server.metadata("web", scopes=[WRITE]), "the user's")
    assert await titles(server, made) == await titles(server, web) == {"the service's"}
    assert await titles(server, acting_as(web, "web")) == {"the user's"}
    assert (await failed(titles(server, acting_as(made, "web")))).reason == "USER_MISMATCH"


@pytest.mark.parametrize("user_id", ["TG:1", "tg", "ann", "tg2:1", "bob"])
async def test_nobody_is_spoken_for_outside_of_the_patterns(server: KeyServer, user_id: str) -> None:
    web = await server.metadata("web", SERVICE, [READ], ["tg:*"])
    for refused in (issue(server, web, user_id=user_id), titles(server, acting_as(web, user_id))):
        failure = await failed(refused)
        assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "USER_MISMATCH")


@pytest.mark.parametrize("user_id", ["tg:*", "tg:1\n", "\ntg:1", "tg:1\0", "tg:1 ", "tg:\u0661", "tg:1,ann"])
async def test_what_is_no_user_is_spoken_for_by_nobody(server: KeyServer, user_id: str) -> None:
    web = await server.metadata("web", SERVICE, [READ], ["tg:*"])
    reasons = {}
    for refused in (issue(server, web, user_id=user_id), titles(server, acting_as(web, user_id))):
        failure = await failed(refused)
        reasons[failure.reason] = failure.code
    assert reasons == {"INVALID_REQUEST": CODE.INVALID_ARGUMENT, "CONTEXT_INVALID": CODE.INVALID_ARGUMENT}


async def test_a_call_in_one_users_name_makes_no_token_for_another(server: KeyServer) -> None:
    web = await server.metadata("web", SERVICE, [READ], ["tg:*"])
    failure = await failed(issue(server, acting_as(web, "tg:1"), user_id="tg:2"))
    assert failure.reason == "USER_MISMATCH"
    assert list((await issue(server, acting_as(web, "tg:1"), user_id="tg:1")).actors) == ["service:web"]


async def test_a_service_keeps_its_own_scopes_and_acts_for_users_without_admin(server: KeyServer) -> None:
    web = await server.metadata("web", SERVICE, ["admin", READ], ["tg:*"])
    listing = keys.ListApiKeysRequest()
    assert (await server.keys.ListApiKeys(listing, metadata=web, timeout=10)).api_keys
    failure = await failed(server.keys.ListApiKeys(listing, metadata=acting_as(web, "tg:1"), timeout=10))
    assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "SCOPE_MISSING")
    assert failure.message == "the scope admin is not for acts in another user's name"
    failure = await failed(issue(server, acting_as(web, "tg:1"), ["approvals:decide"]))
    assert failure.metadata == {"scope": "approvals:decide"}


@pytest.mark.parametrize("scopes", [["admin"], ["*"], ["tool:*"], ["runs:read "], [""]])
async def test_admin_and_what_is_no_scope_are_handed_on_to_nobody(server: KeyServer, scopes: list[str]) -> None:
    failure = await failed(issue(server, grpc.aio.Metadata(), scopes))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_four_act_for_a_user_and_no_fifth(server: KeyServer) -> None:
    """Of tokens made with tokens the fourth is the last: DELEGATION_TOO_DEEP."""
    made = await issue(server, await server.metadata("ann", scopes=[READ]), [READ])
    for length in (2, 3, 4):
        further = await issue(server, by(made.token), [READ])
        assert list(further.actors) == ["user:ann"] * length
        assert further.expire_time.seconds <= made.expire_time.seconds
        made = further
    failure = await failed(issue(server, by(made.token), [READ]))
    assert (failure.code, failure.reason) == (CODE.FAILED_PRECONDITION, "DELEGATION_TOO_DEEP")
    assert failure.metadata == {"max_actors": "4"}


async def test_a_token_is_over_when_its_time_is(server: KeyServer) -> None:
    ann = await server.metadata("ann", scopes=[READ])
    made = await issue(server, ann, [READ], lifetime=Duration(seconds=2))
    assert made.expire_time.seconds <= time.time() + 2
    further = await issue(server, by(made.token), [READ], lifetime=Duration(seconds=300))
    assert further.expire_time == made.expire_time
    await titles(server, by(further.token))
    await asyncio.sleep(max(made.expire_time.seconds - time.time(), 0.0))
    for token in (made.token, further.token):
        failure = await failed(titles(server, by(token)))
        assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")


@pytest.mark.parametrize("lifetime", [Duration(), Duration(nanos=999_999_999), Duration(seconds=300, nanos=1)])
async def test_a_time_out_of_bounds_is_refused(server: KeyServer, lifetime: Duration) -> None:
    assert (await failed(issue(server, grpc.aio.Metadata(), lifetime=lifetime))).code == CODE.INVALID_ARGUMENT


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
async def test_the_end_of_a_key_is_the_end_of_all_that_rests_on_it(server: KeyServer, is_here: bool) -> None:
    administration = server.administration if is_here else server.elsewhere
    key, text = await server.administration.create(SERVICE, "web", [READ], ["tg:*"])
    made = await issue(server, by(text), [READ], user_id="tg:1")
    further = await issue(server, by(made.token), [READ])
    await titles(server, by(further.token))
    await administration.revoke(key.key_id)
    if not is_here:
        # As long as a server may go by what it has looked up.
        await asyncio.sleep(1.1)
    for token in (further.token, made.token):
        assert (await failed(titles(server, by(token)))).reason == "CREDENTIALS_INVALID"


async def test_a_token_for_somebody_else_opens_nothing_here_and_proves_itself_by_the_public_key(
    server: KeyServer,
) -> None:
    web = await server.metadata("web", SERVICE, [READ], ["tg:*"])
    made = await issue(server, web, [READ], user_id="tg:1", audience="billing")
    assert (await failed(titles(server, by(made.token)))).reason == "CREDENTIALS_INVALID"
    listed = await server.delegations.ListDelegationKeys(
        delegations.ListDelegationKeysRequest(), metadata=web, timeout=10
    )
    [key] = listed.keys
    public_key = jwt.PyJWK.from_json(key.jwk_json)
    claims = jwt.decode(made.token, public_key, algorithms=["EdDSA"], audience="billing", issuer="parley")
    assert (claims["sub"], claims["act"], claims["scope"]) == ("tg:1", {"sub": "service:web"}, READ)
    assert claims["exp"] - claims["iat"] <= 300
    assert claims["jti"]
    header = jwt.get_unverified_header(made.token)
    assert header == {"alg": "EdDSA", "kid": key.key_id, "typ": "parley-delegation+jwt"}
    assert json.loads(key.jwk_json)["kid"] == key.key_id


async def test_what_is_done_by_a_token_is_recorded_with_everybody_it_came_through(server: KeyServer) -> None:
    web = await server.metadata("web", SERVICE, [READ, WRITE], ["tg:*"])
    made = await issue(server, web, [READ, WRITE], user_id="tg:7")
    further = await issue(server, by(made.token), [WRITE])
    conversation_id = await create(server, by(further.token))
    delete = conversations.DeleteConversationRequest(conversation_id=conversation_id)
    await server.conversations.DeleteConversation(delete, metadata=by(further.token), timeout=10)
    page = await server.store.audit.list(PageRequest(5), AuditFilter(user_id="tg:7"))
    [deleted] = [each.entry for each in page.items if each.entry.action.endswith("DeleteConversation")]
    assert (deleted.principal, deleted.user_id) == ("user:tg:7", "tg:7")
    assert deleted.actors == ("service:web", "service:web")
    assert deleted.credential_id == web_key_of(web)


def web_key_of(metadata: grpc.aio.Metadata) -> str:
    """Return the id of the key in a call's metadata."""
    return str(dict(metadata)["authorization"]).split("_")[1]


async def test_what_looks_like_a_hosts_token_is_made_for_no_caller(server: KeyServer) -> None:
    failure = await failed(issue(server, grpc.aio.Metadata(), audience="host:weather"))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_nobody_without_a_credential_gets_a_token_or_a_key(server: KeyServer) -> None:
    bad = by("x")
    keys = delegations.ListDelegationKeysRequest()
    assert (await failed(issue(server, bad))).code == CODE.UNAUTHENTICATED
    listed = server.delegations.ListDelegationKeys(keys, metadata=bad, timeout=10)
    assert (await failed(listed)).code == CODE.UNAUTHENTICATED
