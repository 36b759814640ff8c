"""Rows 14, 17, 18 and 21 to 30: credentials and contexts that are not in order."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from catalogue.door import Door, check_words
from google.protobuf import timestamp_pb2
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import request_context_pb2
from parley_server.domain.principal import PrincipalKind
from rpc.chassis import GET_RUN, Metadata, bearer, failed, failure_of, running
from rpc.raw_http2 import Header, RawClient, framed

CODE = grpc.StatusCode
KEY = "{key}"
# Each with a server of its own: whoever tries bad ones too often is looked at no more.
BAD_CREDENTIALS: dict[str, list[str]] = {
    "none": [],
    "empty": [""],
    "the scheme alone": ["Bearer", "Bearer "],
    "another scheme": [f"Basic {KEY}", "Negotiate x"],
    "no scheme": [KEY],
    "another case": [f"Bearer {KEY.upper()}"],
    "two": [f"Bearer {KEY}", f"Bearer {KEY}"],
    "two in one": [f"Bearer {KEY}, Bearer {KEY}"],
    "a blank too many": [f"Bearer  {KEY}"],
    "the beginning alone": ["Bearer parley_"],
    "over 8 KiB": ["Bearer " + "x" * 9000],
    "two parts": ["Bearer e30.e30"],
    "four parts": ["Bearer e30.e30.e30.e30"],
    "no base64": ["Bearer !.!.!"],
    "an unsigned token": ["Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."],
    "SQL": ["Bearer ' OR 1=1 --"],
}


@pytest.mark.parametrize("values", BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS.keys())
async def test_a_bad_credential_is_told_like_any_other(values: list[str]) -> None:
    async with running(types=("api_key",)) as chassis:
        key = chassis.keys.issue("ann")
        presented = [value.replace(KEY, key).replace(KEY.upper(), key.upper()) for value in values]
        await check_refused(chassis.get_run(metadata=tuple(("authorization", value) for value in presented)), presented)
        assert (await chassis.get_run(metadata=bearer(key))).run.agent_id == "ann"


@pytest.mark.parametrize("place", [0, 7, 12, 20, 40, -1])
async def test_a_key_with_one_letter_changed_is_none(place: int) -> None:
    async with running(types=("api_key",)) as chassis:
        key = chassis.keys.issue("ann")
        letters = list(key)
        letters[place] = "A" if letters[place] != "A" else "B"
        for bad in ("".join(letters), key[:place] if place > 0 else key[:-1], key + "A", key.swapcase()):
            await check_refused(chassis.get_run(metadata=bearer(bad)), [bad])


async def check_refused(
    call: "grpc.aio.UnaryUnaryCall[agents.GetRunRequest | bytes, agents.GetRunResponse]", sent: list[str]
) -> None:
    failure = await failed(call)
    assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    assert failure.message == "missing or invalid credentials"
    check_words(failure, [value for value in sent if value])


def claim(**fields: object) -> tuple[str, bytes]:
    message = request_context_pb2.RequestContext(**fields)  # type: ignore[arg-type]  # names vary
    return "parley-context-bin", message.SerializeToString()


def as_json(text: str) -> tuple[str, str]:
    return "parley-context", text


async def refused_context(door: Door, *metadata: tuple[str, str | bytes], reason: str = "CONTEXT_INVALID") -> None:
    failure = await door.ann.saying(*metadata).refused(agents.ListRunsRequest())
    assert (failure.code, failure.reason) == (CODE.INVALID_ARGUMENT, reason)


async def test_somebody_elses_name_is_refused_with_a_good_credential(door: Door) -> None:
    for metadata in (claim(user_id="bob"), as_json('{"userId":"bob"}')):
        failure = await door.ann.saying(metadata).refused(agents.ListRunsRequest())
        assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "USER_MISMATCH")


async def test_identities_in_other_places_are_not_looked_at(door: Door) -> None:
    mine = await door.ann.ask(agents.ListRunsRequest(), agents.ListRunsResponse)
    for key in ("x-user-id", "x-forwarded-user", "user-id", "x-parley-user"):
        said = door.ann.saying((key, "bob"))
        assert await said.ask(agents.ListRunsRequest(), agents.ListRunsResponse) == mine


@pytest.mark.parametrize(
    "header", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]
)
async def test_what_a_proxy_forwards_without_a_credential_is_not_the_local_users(door: Door, header: str) -> None:
    await door.admin.ask(agents.ListRunsRequest(), agents.ListRunsResponse)
    failure = await door.admin.saying((header, "203.0.113.9")).refused(agents.ListRunsRequest())
    assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    said = door.ann.saying((header, "203.0.113.9"))
    await said.ask(agents.ListRunsRequest(), agents.ListRunsResponse)


DOUBLED: dict[str, Metadata] = {
    "equal": (claim(user_id="ann"), claim(user_id="ann")),
    "different": (claim(user_id="ann"), claim(user_id="bob")),
    "in both forms": (claim(user_id="ann"), as_json('{"userId":"ann"}')),
    "as JSON": (as_json("{}"), as_json("{}")),
    "a field": (as_json('{"userId":"ann","userId":"ann"}'),),
    "a field by both names": (as_json('{"userId":"ann","user_id":"bob"}'),),
    "the time": (as_json('{"timestamp":"2026-01-01T00:00:00Z","timestamp":"2026-01-01T00:00:00Z"}'),),
    "a pair": (as_json('{"metadata":{"k":"a","k":"b"}}'),),
}


@pytest.mark.parametrize("metadata", DOUBLED.values(), ids=DOUBLED.keys())
async def test_what_may_come_once_and_comes_twice_is_refused(door: Door, metadata: Metadata) -> None:
    await refused_context(door, *metadata)


BAD_USERS = {
    "CR": "ann\r", "LF": "ann\n", "NUL": "ann\0", "TAB": "an\tn", "DEL": "ann\x7f", "SOH": "\x01ann",
    "e acute": "ann\u00e9", "combining": "anne\u0301", "zero width": "an\u200bn", "bidi": "ann\u202e",
    "full width": "\uff41\uff4e\uff4e", "homograph": "\u0430nn", "BOM": "\ufeffann",
    "blank": " ", "leading": " ann", "trailing": "ann ", "inner": "a nn", "too long": "a" * 129,
    "path": "../ann", "slash": "a/b", "pattern": "a*", "wildcard": "a%", "dash": "-ann", "dots": "..",
    "prototype": "__proto__", "quote": "a'b", "comma": "a,b", "percent": "%61nn",
}  # fmt: skip


@pytest.mark.parametrize("user_id", BAD_USERS.values(), ids=BAD_USERS.keys())
async def test_what_is_no_user_is_refused(door: Door, user_id: str) -> None:
    await refused_context(door, claim(user_id=user_id))
    await refused_context(door, as_json('{"userId":"' + "".join(f"\\u{ord(letter):04x}" for letter in user_id) + '"}'))


@pytest.mark.parametrize("user_id", ["a", "telegram:42", "A.b_c@d+e-f", "0" * 128, "constructor", "null"])
async def test_every_other_user_is_taken_as_written(user_id: str) -> None:
    async with running() as chassis:
        service = bearer(chassis.keys.issue("bot", PrincipalKind.SERVICE, act_as=["*"]))
        assert (await chassis.get_run(metadata=(*service, claim(user_id=user_id)))).run.agent_id == user_id


async def test_an_empty_user_is_the_caller(door: Door) -> None:
    mine = await door.ann.ask(agents.ListRunsRequest(), agents.ListRunsResponse)
    for metadata in (claim(user_id=""), as_json('{"userId":""}'), claim(), as_json("{}")):
        assert await door.ann.saying(metadata).ask(agents.ListRunsRequest(), agents.ListRunsResponse) == mine


@pytest.mark.parametrize(
    "value",
    [
        b'{"userId":"ann\xe9"}',
        b'{"userId":"ann\xc3\xa9"}',
        b'{"userId":"ann\x01"}',
        b'{"userId":"ann\t"}',
        b"\x7f{}",
        b"\xff",
    ],
)
async def test_bytes_that_no_library_would_send_are_no_context(value: bytes) -> None:
    """The latin-1 byte E9 and the UTF-8 of the same letter reach a server as one text; neither is anybody's name."""
    async with running() as chassis, RawClient(chassis.address) as client:
        authorization = (b"authorization", f"Bearer {chassis.keys.issue('ann')}".encode())
        headers: list[Header] = [authorization, (b"parley-context", value)]
        answer = await client.answer(await client.call(GET_RUN, [framed(b"\x0a\x03run")], metadata=headers))
        assert answer.status == CODE.INVALID_ARGUMENT.value[0]


BAD_TIMES = {
    "year 10000": claim(timestamp=timestamp_pb2.Timestamp(seconds=253_402_300_800)),
    "before year 1": claim(timestamp=timestamp_pb2.Timestamp(seconds=-62_135_596_801)),
    "the last second": claim(timestamp=timestamp_pb2.Timestamp(seconds=2**63 - 1)),
    "the first second": claim(timestamp=timestamp_pb2.Timestamp(seconds=-(2**63))),
    "negative nanoseconds": claim(timestamp=timestamp_pb2.Timestamp(seconds=1, nanos=-1)),
    "too many nanoseconds": claim(timestamp=timestamp_pb2.Timestamp(seconds=1, nanos=10**9)),
    **{
        text: as_json('{"timestamp":' + text + "}")
        for text in (
            '"NaN"',
            '"inf"',
            '"-1"',
            "-1",
            "1e999",
            "NaN",
            '"10000-01-01T00:00:00Z"',
            '"now"',
            '""',
            '"' + "1" * 40 + '"',
        )
    },
}


@pytest.mark.parametrize("metadata", BAD_TIMES.values(), ids=BAD_TIMES.keys())
async def test_what_is_no_time_is_refused(door: Door, metadata: tuple[str, str | bytes]) -> None:
    await refused_context(door, metadata)


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=365_000)])
async def test_a_time_that_is_off_is_refused_and_none_is_the_servers(door: Door, off: timedelta) -> None:
    moment = datetime.now(UTC) + off
    await refused_context(door, claim(timestamp=moment), reason="CLOCK_SKEW")
    near = claim(timestamp=datetime.now(UTC) + timedelta(minutes=4))
    for metadata in (near, claim()):
        await door.ann.saying(metadata).ask(agents.ListRunsRequest(), agents.ListRunsResponse)


BAD_PAIRS = {
    "no JSON": as_json("{"),
    "no object": as_json("[]"),
    "null": as_json("null"),
    "nothing": as_json(""),
    "2,000 levels": as_json("[" * 2000 + "]" * 2000),
    "800 objects": as_json('{"a":' * 800 + "1" + "}" * 800),
    "2,000 open lists": as_json('{"metadata":' + "[" * 2000),
    "10,000 levels": as_json("[" * 5000 + "]" * 5000),
    "NaN": as_json('{"metadata":{"k":NaN}}'),
    "a number": as_json('{"metadata":{"k":1}}'),
    "4,000 digits": as_json('{"metadata":{"k":' + "1" * 4000 + "}}"),
    "10,000 digits": as_json('{"metadata":{"k":' + "1" * 10_000 + "}}"),
    "a lone surrogate": as_json('{"metadata":{"k":"\\ud800"}}'),
    "a surrogate key": as_json('{"metadata":{"\\udfff":"v"}}'),
    "over 4 KiB": claim(metadata={str(n): "v" * 256 for n in range(16)}),
    "17 pairs": claim(metadata={str(n): "v" for n in range(17)}),
    "no key": claim(metadata={"": "v"}),
    "a key too long": claim(metadata={"k" * 65: "v"}),
    "a value too long": claim(metadata={"k": "v" * 257}),
    "NUL": claim(metadata={"k": "\0"}),
    "a control key": claim(metadata={"k\x1b": "v"}),
    "bad UTF-8": ("parley-context-bin", b"\x0a\x02\xff\xfe"),
    "a truncated message": ("parley-context-bin", b"\x0a\x05abc"),
    "deep groups": ("parley-context-bin", b"\x7b" * 3000),
    "another zone": claim(time_zone="../../etc/passwd"),
    "another language": claim(locale="x" * 65),
    "a client's name too long": claim(client=request_context_pb2.ClientInfo(name="n" * 65)),
    "a client's name in colour": claim(client=request_context_pb2.ClientInfo(name="\x1b[31m")),
}


@pytest.mark.parametrize("metadata", BAD_PAIRS.values(), ids=BAD_PAIRS.keys())
async def test_a_context_out_of_bounds_is_refused(door: Door, metadata: tuple[str, str | bytes]) -> None:
    await refused_context(door, metadata)


async def test_keys_that_nobody_knows_are_ignored(door: Door) -> None:
    known_and_not = claim(user_id="ann")[1] + b"\xfa\x07\x03abc"
    said = door.ann.saying(("parley-context-bin", known_and_not), ("x-anything", "%s"), ("x-bytes-bin", b"\xff\0"))
    await said.ask(agents.ListRunsRequest(), agents.ListRunsResponse)


@pytest.mark.parametrize("request_id", ["mine", "x" * 64, "'; --", "%s {0}"])
async def test_a_request_id_is_given_back_by_errors_too(door: Door, request_id: str) -> None:
    caller = door.ann.saying(("x-request-id", request_id))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.ask(agents.GetRunRequest(run_id="run_0"), agents.GetRunResponse)
    assert failure_of(error.value).trailers["x-request-id"] == request_id
