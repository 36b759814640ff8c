"""The RequestContext: frozen, the same after every round trip, and held to the contract's grammar and limits."""

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley.v1 import request_context_pb2
from parley_server.domain.access_errors import ClockSkewError, ContextInvalidError, UserMismatchError
from parley_server.domain.context import MAX_CONTEXT_BYTES, ClientInfo, ContextClaim, RequestContext
from parley_server.domain.principal import ALL_SCOPES, ALL_TOOLS_SCOPE, Principal, PrincipalKind
from parley_server.rpc.mapping.request_context import claim_from_binary, claim_from_json, to_binary, to_json
from pydantic import BaseModel, ValidationError

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ANN = Principal(kind=PrincipalKind.USER, subject="ann", method="test", scopes=frozenset({"runs:read"}))
BOT = Principal(kind=PrincipalKind.SERVICE, subject="bot", method="test", act_as=("telegram:*", "bob"))

user_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=64)
metadata = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=24),
    max_size=16,
)
moments = st.datetimes(timezones=st.just(UTC))
zones = st.sampled_from(["", "UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
locales = st.sampled_from(["", "en", "de-CH", "zh-Hant-TW", "sl-rozaj-biske-1994"])
claims = st.builds(
    ContextClaim,
    user_id=st.just("") | user_ids,
    metadata=metadata,
    timestamp=st.none() | moments,
    time_zone=zones,
    locale=locales,
    client=st.builds(ClientInfo, name=names, version=names, channel=names),
)


@given(claims)
def test_a_claim_is_the_same_after_both_wire_forms(claim: ContextClaim) -> None:
    if len(raw := to_binary(claim)) <= MAX_CONTEXT_BYTES:
        assert claim_from_binary(raw) == claim
    if len(text := to_json(claim)) <= MAX_CONTEXT_BYTES:
        assert claim_from_json(text) == claim


@given(claims, st.lists(st.none() | st.timedeltas(timedelta(0), timedelta(days=9)), max_size=3))
def test_every_call_of_a_client_has_its_own_timestamp(claim: ContextClaim, ages: list[timedelta | None]) -> None:
    for age in ages:
        sent = claim.at(None if age is None else NOW - age)
        if len(raw := to_binary(sent)) <= MAX_CONTEXT_BYTES:
            assert claim_from_binary(raw) == sent


@pytest.mark.parametrize("later", [{"actors", "expires_at"}, {"expires_at"}, {"actors"}])
def test_a_context_that_was_stored_before_there_were_chains_of_actors_is_read(later: set[str]) -> None:
    context = RequestContext.from_claim(ContextClaim(user_id="bob"), BOT, request_id="req_1", now=NOW)
    stored = json.loads(context.to_json())
    stored["principal"] = {name: value for name, value in stored["principal"].items() if name not in later}
    assert RequestContext.from_json(json.dumps(stored)) == context


CHAIN = ("service:host:weather", "service:web")


@pytest.mark.parametrize(
    ("user_id", "principal", "actors", "actor"),
    [
        ("", ANN, (), "user:ann"),
        ("", BOT, (), "service:bot"),
        ("bob", BOT, ("service:bot",), "service:bot"),
        ("", ANN.model_copy(update={"actors": CHAIN}), CHAIN, "service:host:weather"),
    ],
)
def test_who_acts_for_whom_is_told_by_the_context(
    user_id: str, principal: Principal, actors: tuple[str, ...], actor: str
) -> None:
    context = RequestContext.from_claim(ContextClaim(user_id=user_id), principal, now=NOW)
    assert (context.actors, context.actor) == (actors, actor)
    assert RequestContext.from_json(context.to_json()).actors == actors


@given(st.frozensets(st.sampled_from(sorted(ALL_SCOPES | {"tool:refunds", ALL_TOOLS_SCOPE}))))
def test_in_another_users_name_there_is_all_but_admin(scopes: frozenset[str]) -> None:
    bot = BOT.model_copy(update={"scopes": scopes})
    own = RequestContext.from_claim(ContextClaim(), bot, now=NOW)
    other = RequestContext.from_claim(ContextClaim(user_id="bob"), bot, now=NOW)
    assert own.scopes == scopes
    assert other.scopes == scopes - {"admin"}
    assert ("admin" in other.lacks(["admin"])) is True
    assert not other.lacks(other.scopes)
    assert bool(other.lacks(["tool:mail"])) is (ALL_TOOLS_SCOPE not in scopes)


@given(claims, st.sampled_from([ANN, BOT]))
def test_a_context_is_the_same_after_storage_and_on_the_wire(claim: ContextClaim, principal: Principal) -> None:
    claim = claim.model_copy(update={"user_id": "", "timestamp": None})
    context = RequestContext.from_claim(claim, principal, request_id="req_1", now=NOW)
    assert RequestContext.from_json(context.to_json()) == context
    sent = claim_from_json(to_json(context)) if len(to_json(context)) <= MAX_CONTEXT_BYTES else None
    if sent is not None:
        assert (sent.user_id, sent.timestamp, dict(sent.metadata)) == (principal.own_user_id, NOW, dict(claim.metadata))
        assert (sent.time_zone, sent.locale, sent.client) == (context.time_zone, context.locale, claim.client)


@given(claims)
def test_a_context_that_is_bound_is_one_that_would_pass_validation(claim: ContextClaim) -> None:
    claim = claim.model_copy(update={"user_id": "", "timestamp": None})
    context = RequestContext.from_claim(claim, ANN, now=NOW)
    assert RequestContext.model_validate(dict(context)) == context


def frozen_things() -> list[BaseModel]:
    claim = ContextClaim(user_id="ann", metadata={"k": "v"})
    return [claim, claim.client, ANN, RequestContext.from_claim(claim, ANN)]


@pytest.mark.parametrize("thing", frozen_things(), ids=lambda thing: type(thing).__name__)
def test_nothing_of_it_can_be_changed(thing: BaseModel) -> None:
    for name in type(thing).model_fields:
        with pytest.raises(ValidationError):
            setattr(thing, name, getattr(thing, name))
    if isinstance(thing, ContextClaim | RequestContext):
        with pytest.raises(TypeError):
            thing.metadata["k"] = "other"  # type: ignore[index]  # the attempt under test


def test_the_callers_dictionary_is_not_the_contexts() -> None:
    pairs = {"k": "v"}
    claim = ContextClaim(metadata=pairs)
    pairs["k"] = "other"
    assert claim.metadata["k"] == "v"


def test_metadata_is_added_to_a_copy() -> None:
    context = RequestContext.from_claim(ContextClaim(metadata={"a": "1"}), ANN)
    more = context.with_metadata(b="2")
    assert (dict(context.metadata), dict(more.metadata)) == ({"a": "1"}, {"a": "1", "b": "2"})
    assert more.get("b") == "2"
    assert context.get("b", "none") == "none"
    assert more.principal == ANN
    with pytest.raises(ValidationError):
        context.with_metadata(**{f"k{n}": "v" for n in range(16)})


BAD: list[dict[str, object]] = [
    {"user_id": " "},
    {"user_id": "-ann"},
    {"user_id": "ann\n"},
    {"user_id": "a" * 129},
    {"user_id": "änn"},
    {"user_id": "tg:*"},
    {"metadata": {f"k{n}": "v" for n in range(17)}},
    {"metadata": {"": "v"}},
    {"metadata": {"k" * 65: "v"}},
    {"metadata": {"k\n": "v"}},
    {"metadata": {"k": "v" * 257}},
    {"metadata": {"k": "\0"}},
    {"time_zone": "Mars/Olympus"},
    {"time_zone": "../etc/passwd"},
    {"locale": "e"},
    {"locale": "en_US"},
    {"client": {"name": "n" * 65}},
    {"client": {"name": "a\nb"}},
    {"timestamp": datetime(2026, 1, 1)},  # noqa: DTZ001  # the fault under test
    {"extra": 1},
]


@pytest.mark.parametrize("fields", BAD, ids=lambda fields: repr(fields)[:40])
def test_what_is_out_of_bounds_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ContextClaim.model_validate(fields)


@given(st.binary(max_size=200))
def test_no_bytes_can_do_more_than_be_refused(raw: bytes) -> None:
    with contextlib.suppress(ContextInvalidError):
        claim_from_binary(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["userId", "user_id", "metadata", "timestamp", "client", "x"]), inner, max_size=3
        )
    ),
)


@given(st.text(max_size=100) | json_values.map(json.dumps))
def test_no_text_can_do_more_than_be_refused(text: str) -> None:
    with contextlib.suppress(ContextInvalidError):
        claim_from_json(text)


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (0, -1), (0, 10**9), (253402300800, 0)])
def test_a_time_out_of_all_bounds_is_refused(seconds: int, nanos: int) -> None:
    message = request_context_pb2.RequestContext()
    message.timestamp.seconds, message.timestamp.nanos = seconds, nanos
    with pytest.raises(ContextInvalidError):
        claim_from_binary(message.SerializeToString())


def test_a_context_of_4_kib_is_taken_and_one_byte_more_is_not() -> None:
    header = b"\xfa\x07\xfc\x1f"  # field 127, which this version does not know, with 4,092 bytes
    assert claim_from_binary(header + bytes(4092)) == ContextClaim()
    with pytest.raises(ContextInvalidError, match="over 4096 bytes"):
        claim_from_binary(header + bytes(4093))


def test_the_fields_at_fault_are_named_and_their_values_are_not() -> None:
    message = request_context_pb2.RequestContext(user_id="my secret", time_zone="Mars", locale="!")
    with pytest.raises(ContextInvalidError) as error:
        claim_from_binary(message.SerializeToString())
    assert "secret" not in f"{error.value} {error.value.violations}"
    assert [violation.description.split()[0] for violation in error.value.violations] == [
        "locale",
        "time_zone",
        "user_id",
    ]


@pytest.mark.parametrize(
    ("principal", "user_id", "effective"),
    [
        (ANN, "", "ann"),
        (ANN, "ann", "ann"),
        (ANN, "bob", None),
        (ANN, "ANN", None),
        (BOT, "", "service:bot"),
        (BOT, "service:bot", "service:bot"),
        (BOT, "bot", None),
        (BOT, "service:other", None),
        (BOT, "bob", "bob"),
        (BOT, "bobby", None),
        (BOT, "telegram:42", "telegram:42"),
        (BOT, "telegram:", "telegram:"),
        (BOT, "Telegram:42", None),
        (BOT, "telegra", None),
        (BOT, "ann", None),
    ],
)
def test_for_whom_a_caller_may_speak(principal: Principal, user_id: str, effective: str | None) -> None:
    claim = ContextClaim(user_id=user_id)
    if effective is None:
        with pytest.raises(UserMismatchError):
            RequestContext.from_claim(claim, principal)
    else:
        context = RequestContext.from_claim(claim, principal)
        assert (context.user_id, context.principal) == (effective, principal)


@pytest.mark.parametrize("minutes", [-5, 0, 5])
def test_the_servers_clock_counts(minutes: int) -> None:
    claim = ContextClaim(timestamp=NOW + timedelta(minutes=minutes))
    context = RequestContext.from_claim(claim, ANN, now=NOW.astimezone(timezone(timedelta(hours=3))))
    assert (context.timestamp, context.timestamp.tzinfo) == (NOW, UTC)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_clock_that_is_off_is_refused(seconds: int) -> None:
    with pytest.raises(ClockSkewError) as error:
        RequestContext.from_claim(ContextClaim(timestamp=NOW + timedelta(seconds=seconds)), ANN, now=NOW)
    assert error.value.metadata == {"server_time": "2026-11-22T10:00:00Z"}


def test_what_is_not_told_has_a_default() -> None:
    context = RequestContext.from_claim(ContextClaim(), ANN)
    assert (context.time_zone, context.locale, context.client) == ("UTC", "en", ClientInfo())
    assert context.request_id
    assert context.zone.key == "UTC"
