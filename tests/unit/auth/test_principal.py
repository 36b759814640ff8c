"""Whom a caller may speak for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import MAX_SERVICE_CHARS, Principal, PrincipalKind, is_user_id, owner_of
from pydantic import ValidationError

BRIDGE = Principal(kind=PrincipalKind.SERVICE, subject="bridge", act_as=("tg:*", "ann"), method="test")
EVERYBODYS = Principal(kind=PrincipalKind.SERVICE, subject="gateway", act_as=("*",), method="test")
NAMES = st.from_regex(r"(service:)?[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}", fullmatch=True).filter("gateway".__ne__)


@pytest.mark.parametrize("user_id", ["service:bridge", "ann", "tg:1", "tg:", "tg:1@x"])
def test_a_service_speaks_for_itself_and_whom_its_patterns_name(user_id: str) -> None:
    assert BRIDGE.may_act_as(user_id)


@pytest.mark.parametrize(
    "user_id",
    [
        *("TG:1", "Tg:1", "tg", "tgx:1", " tg:1", "xtg:1", "ann2", "Ann", "", "bridge", "service:tg:1"),
        *("tg:1\n", "tg:*", "tg:1 ", "tg:1\0", "tg:\u0661", "tg:/../ann", "tg:1%", "ann\n", "tg:" + "1" * 126),
    ],
)
def test_a_service_speaks_for_nobody_else_and_for_nothing_that_is_no_user(user_id: str) -> None:
    assert not BRIDGE.may_act_as(user_id)


@given(st.text())
def test_no_text_but_a_user_id_of_the_patterns_is_spoken_for(text: str) -> None:
    own = text in {"service:bridge", "ann"} or (is_user_id(text) and text.startswith("tg:"))
    assert BRIDGE.may_act_as(text) == own
    assert BRIDGE.may_act_as(f"tg:{text}") == is_user_id(f"tg:{text}")


def test_a_user_speaks_for_himself_alone_whatever_patterns_he_has() -> None:
    ann = Principal(kind=PrincipalKind.USER, subject="ann", act_as=("bob", "c*"), method="test")
    assert ann.may_act_as("ann")
    assert not any(ann.may_act_as(other) for other in ("bob", "carl", "Ann"))


@pytest.mark.parametrize("pattern", ["", "**", "*x", "a*b", "tg:*\n", "tg :*", "-x*", "tg:%", "a" * 129 + "*"])
def test_a_pattern_is_a_user_id_or_the_beginning_of_one(pattern: str) -> None:
    with pytest.raises(ValidationError):
        Principal(kind=PrincipalKind.SERVICE, subject="bridge", act_as=(pattern,), method="test")


@given(NAMES, NAMES)
def test_no_users_things_are_a_services_own_whatever_their_names(user_id: str, service: str) -> None:
    for kind, subject in ((PrincipalKind.USER, user_id), (PrincipalKind.SERVICE, service)):
        with contextlib.suppress(ValidationError):
            caller = Principal(kind=kind, subject=subject, act_as=("*",), method="test")
            assert owner_of(caller.own_user_id) == (kind, subject)
            assert EVERYBODYS.may_act_as(caller.own_user_id) == (kind is PrincipalKind.USER)


@pytest.mark.parametrize("subject", ["service:bot", "service:", "service:service:bot"])
@pytest.mark.parametrize("kind", PrincipalKind)
def test_nobody_is_named_as_what_is_a_services_own(kind: PrincipalKind, subject: str) -> None:
    with pytest.raises(ValidationError):
        Principal(kind=kind, subject=subject, method="test")


def test_the_longest_name_of_a_service_makes_a_user_id_that_can_be_stored() -> None:
    longest = Principal(kind=PrincipalKind.SERVICE, subject="x" * MAX_SERVICE_CHARS, method="test")
    context = RequestContext.from_claim(ContextClaim(), longest)
    assert RequestContext.from_json(context.to_json()) == context
    with pytest.raises(ValidationError):
        Principal(kind=PrincipalKind.SERVICE, subject="x" * (MAX_SERVICE_CHARS + 1), method="test")


def test_a_user_and_a_service_of_one_subject_are_told_apart_by_name() -> None:
    user = Principal(kind=PrincipalKind.USER, subject="bridge", method="test")
    assert (user.name, BRIDGE.name) == ("user:bridge", "service:bridge")
