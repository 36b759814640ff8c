"""Who is let in, what each refusal looks like, and that they come in the contract's order."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import request_context_pb2
from parley_server.auth.local import operating_system_user
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.interceptors.exchange import GuardLimits
from rpc.chassis import Chassis, Metadata, bearer, failed, running

CODE = grpc.StatusCode
NO_RUN = b"\n\x00"  # a run_id that is empty, which the rules refuse
NO_MESSAGE = b"\xff\xff"  # no protobuf message at all


def context(**fields: object) -> Metadata:
    message = request_context_pb2.RequestContext()
    for name, value in fields.items():
        if name == "timestamp":
            assert isinstance(value, datetime)
            message.timestamp.FromDatetime(value)
        else:
            setattr(message, name, value)
    return (("parley-context-bin", message.SerializeToString()),)


async def test_a_call_without_a_credential_is_the_local_users(chassis: Chassis) -> None:
    response = await chassis.get_run()
    assert response.run.agent_id == response.run.conversation_id == operating_system_user()


async def test_a_key_is_its_owner(chassis: Chassis) -> None:
    response = await chassis.get_run(metadata=bearer(chassis.keys.issue("ann")))
    assert (response.run.run_id, response.run.agent_id, response.run.conversation_id) == ("run", "ann", "ann")


async def test_a_service_speaks_for_whom_its_patterns_name(chassis: Chassis) -> None:
    key = bearer(chassis.keys.issue("bot", PrincipalKind.SERVICE, act_as=["telegram:*"]))
    response = await chassis.get_run(metadata=key + context(user_id="telegram:42"))
    assert (response.run.agent_id, response.run.conversation_id) == ("telegram:42", "bot")
    assert (await chassis.get_run(metadata=key)).run.agent_id == "service:bot"
    failure = await failed(chassis.get_run(metadata=key + context(user_id="ann")))
    assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "USER_MISMATCH")


async def test_the_context_is_taken_as_json_too(chassis: Chassis) -> None:
    key = bearer(chassis.keys.issue("ann"))
    response = await chassis.get_run(metadata=(*key, ("parley-context", '{"userId":"ann","timeZone":"Europe/Berlin"}')))
    assert response.run.agent_id == "ann"


BAD_CONTEXTS: dict[str, Metadata] = {
    "twice": (("parley-context-bin", b""), ("parley-context-bin", b"")),
    "both keys": (("parley-context-bin", b""), ("parley-context", "{}")),
    "json twice": (("parley-context", "{}"), ("parley-context", "{}")),
    "no message": (("parley-context-bin", NO_MESSAGE),),
    "no json": (("parley-context", "{"),),
    "json of another shape": (("parley-context", '{"user":"ann"}'),),
    "a lone surrogate": (("parley-context", '{"userId":"\\ud800"}'),),
    "too large": (("parley-context-bin", b"\x12" + bytes(4096)),),
    "a malformed user": context(user_id="a b"),
    "a user with a line feed": context(user_id="ann\n"),
    "an unknown zone": context(time_zone="Mars/Olympus"),
    "no language": context(locale="!"),
}


@pytest.mark.parametrize("metadata", BAD_CONTEXTS.values(), ids=BAD_CONTEXTS.keys())
async def test_a_bad_context_is_refused(chassis: Chassis, metadata: Metadata) -> None:
    failure = await failed(chassis.get_run(metadata=metadata))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "CONTEXT_INVALID")


@pytest.mark.parametrize("minutes", [-6, 6])
async def test_a_clock_that_is_off_is_told_the_servers_time(chassis: Chassis, minutes: int) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    failure = await failed(chassis.get_run(metadata=context(timestamp=moment)))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "CLOCK_SKEW")
    told = datetime.fromisoformat(failure.metadata["server_time"])
    assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)
    near = datetime.now(UTC) + timedelta(minutes=4)
    assert (await chassis.get_run(metadata=context(timestamp=near))).run.run_id == "run"


def bad_credentials(chassis: Chassis) -> list[Metadata]:
    good = chassis.keys.issue("ann")
    expired = chassis.keys.issue("ann", expire_time=datetime.now(UTC) - timedelta(seconds=1))
    never_issued = chassis.keys.issue("ann")
    del chassis.keys.stored[never_issued.split("_")[1]]
    of_another = "_".join([*good.split("_")[:2], *never_issued.split("_")[2:]])
    return [
        *map(bearer, [expired, never_issued, of_another, good[:-1], good + "A", "parley_", "x", "", f" {good}"]),
        (("authorization", f"Basic {good}"),),
        (("authorization", ""),),
        (*bearer(good), *bearer(good)),
    ]


async def test_bad_credentials_are_told_alike_and_never_fall_back_to_the_local_user(chassis: Chassis) -> None:
    for metadata in bad_credentials(chassis):
        failure = await failed(chassis.get_run(metadata=metadata))
        assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID"), metadata
        assert failure.message == "missing or invalid credentials"


async def test_without_the_local_provider_a_credential_is_needed() -> None:
    async with running(types=("api_key",)) as chassis:
        assert (await failed(chassis.get_run())).reason == "CREDENTIALS_INVALID"
        assert (await chassis.get_run(metadata=bearer(chassis.keys.issue("ann")))).run.agent_id == "ann"


async def test_a_store_that_fails_lets_nobody_in(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    chassis.keys.fault = OSError("disk on fire at /secret/path")
    try:
        failure = await failed(chassis.get_run(metadata=bearer(key)))
    finally:
        chassis.keys.fault = None
    assert (failure.code, failure.reason) == (CODE.UNAVAILABLE, "AUTH_UNAVAILABLE")
    assert "RetryInfo" in failure.details
    assert "secret" not in str(failure)


async def test_a_revoked_key_ends_at_once_where_the_server_is_told(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann")
    await chassis.get_run(metadata=bearer(key))
    key_id = key.split("_")[1]
    del chassis.keys.stored[key_id]
    await chassis.get_run(metadata=bearer(key))
    chassis.auth.forget(key_id)
    assert (await failed(chassis.get_run(metadata=bearer(key)))).reason == "CREDENTIALS_INVALID"


async def test_a_missing_scope_is_named(chassis: Chassis) -> None:
    key = chassis.keys.issue("ann", scopes=frozenset({"runs:write"}))
    failure = await failed(chassis.get_run(metadata=bearer(key)))
    assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "SCOPE_MISSING")
    assert failure.metadata == {"scope": "runs:read"}


async def test_all_violations_of_the_rules_are_named(chassis: Chassis) -> None:
    failure = await failed(chassis.get_run(pb.GetRunRequest(run_id="no id!")))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "run_id" in str(failure.details["BadRequest"])


async def test_a_message_of_another_type_is_malformed(chassis: Chassis) -> None:
    failure = await failed(chassis.get_run(NO_MESSAGE))
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


async def test_each_check_comes_before_the_next() -> None:
    """Give a call all faults at once, and mend them one by one."""
    async with running(limits=GuardLimits(max_metadata_bytes=2000)) as chassis:
        for metadata, message, reason in ever_better_calls(chassis):
            failure = await failed(chassis.get_run(message, metadata))
            assert failure.reason == reason


def ever_better_calls(chassis: Chassis) -> list[tuple[Metadata, bytes, str]]:
    unscoped = bearer(chassis.keys.issue("ann", scopes=frozenset()))
    scoped = bearer(chassis.keys.issue("ann"))
    too_much: Metadata = (("x-filler", "x" * 2000),)
    bad_context = context(user_id="a b")
    bob = context(user_id="bob")
    return [
        (too_much + unscoped * 2 + bad_context * 2, NO_MESSAGE, "METADATA_TOO_LARGE"),
        (unscoped * 2 + bad_context, NO_MESSAGE, "CREDENTIALS_INVALID"),
        (bearer("x") + bad_context * 2, NO_MESSAGE, "CONTEXT_INVALID"),
        (bearer("x") + bad_context, NO_MESSAGE, "CONTEXT_INVALID"),
        (bearer("x") + bob, NO_MESSAGE, "CREDENTIALS_INVALID"),
        (unscoped + bob, NO_MESSAGE, "USER_MISMATCH"),
        (unscoped, NO_MESSAGE, "SCOPE_MISSING"),
        (scoped, NO_MESSAGE, "MALFORMED_MESSAGE"),
        (scoped, NO_RUN, "INVALID_REQUEST"),
    ]


async def test_streams_are_checked_the_same_way(chassis: Chassis) -> None:
    unscoped = bearer(chassis.keys.issue("ann", scopes=frozenset()))
    assert (await failed(chassis.watch_run(unscoped).read())).reason == "SCOPE_MISSING"
    ann = bearer(chassis.keys.issue("ann"))
    events = [response.event async for response in chassis.watch_run(ann)]
    assert [(event.seq, event.conversation_id) for event in events] == [(1, "ann"), (2, "ann"), (3, "ann")]


async def test_the_request_id_is_echoed(chassis: Chassis) -> None:
    call = chassis.get_run(metadata=(("x-request-id", "mine 1"),))
    await call
    assert dict(await call.initial_metadata())["x-request-id"] == "mine 1"
    stream = chassis.watch_run((("x-request-id", "mine 2"),))
    assert [response async for response in stream]
    assert dict(await stream.initial_metadata())["x-request-id"] == "mine 2"
    failure = await failed(chassis.get_run(NO_RUN, (("x-request-id", "mine 3"),)))
    assert failure.trailers["x-request-id"] == "mine 3"


@pytest.mark.parametrize(
    "metadata", [(), (("x-request-id", "x" * 65),), (("x-request-id", "a"), ("x-request-id", "b"))]
)
async def test_a_request_id_is_made_where_there_is_no_good_one(chassis: Chassis, metadata: Metadata) -> None:
    made = set()
    for _ in range(2):
        call = chassis.get_run(metadata=metadata)
        await call
        made.add(dict(await call.initial_metadata())["x-request-id"])
    assert len(made) == 2
    assert all(str(request_id).startswith("req_") for request_id in made)


async def test_an_error_before_the_first_response_is_one_a_client_may_retry(chassis: Chassis) -> None:
    """Only a status without headers of its own (trailers-only) is retried by gRPC's clients."""
    call = chassis.get_run(NO_RUN)
    await failed(call)
    assert len(await call.initial_metadata()) == 0
