"""Which limits hold for a call: on every path all that are for it, so that nobody gets round one by another door."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import ALL_SCOPES, USER_SCOPES, Principal, PrincipalKind
from parley_server.domain.quota import (
    Consumer,
    Measure,
    QuotaLimits,
    QuotaRule,
    Subject,
    SubjectKind,
    effective_limits,
)
from parley_server.domain.quota_errors import QuotaExceededError
from parley_server.quotas.quotas import Quotas

FIVE = QuotaLimits(requests_per_minute=5)
EACH_USER = QuotaRule("each_user", FIVE, users=("*",))
EACH_SERVICE = QuotaRule("each_service", FIVE, services=("*",))


def user(subject: str, key_id: str = "", scopes: frozenset[str] = USER_SCOPES) -> Principal:
    kind = PrincipalKind.USER
    return Principal(kind=kind, subject=subject, scopes=scopes, method="api_key", credential_id=key_id)


def service(subject: str, key_id: str = "key_s") -> Principal:
    kind = PrincipalKind.SERVICE
    return Principal(kind=kind, subject=subject, act_as=("*",), method="api_key", credential_id=key_id)


def context(principal: Principal, user_id: str = "", metadata: dict[str, str] | None = None) -> RequestContext:
    claim = ContextClaim(user_id=user_id, metadata=metadata or {})
    return RequestContext.from_claim(claim, principal, now=datetime.now(UTC))


def let_through(quotas: Quotas, *contexts: RequestContext) -> int:
    """Ask in turns, a hundred times; return how often that was let through."""
    passed = 0
    for n in range(100):
        try:
            quotas.count_request(contexts[n % len(contexts)])
        except QuotaExceededError:
            continue
        passed += 1
    return passed


def test_a_limit_of_the_key_does_not_take_the_place_of_its_users() -> None:
    of_key = QuotaRule("key", QuotaLimits(requests_per_minute=50), keys=("key_1",))
    quotas = Quotas([of_key, EACH_USER])
    assert let_through(quotas, context(user("ann", "key_1"))) == 5
    strict_key = QuotaRule("key", QuotaLimits(requests_per_minute=2), keys=("key_1",))
    assert let_through(Quotas([strict_key, EACH_USER]), context(user("ann", "key_1"))) == 2


def test_many_keys_of_one_user_are_one_user() -> None:
    assert let_through(Quotas([EACH_USER]), *(context(user("ann", f"key_{n}")) for n in range(20))) == 5


def test_the_user_whom_a_service_names_is_counted() -> None:
    """Through the service and with his own key he is the same."""
    quotas = Quotas([EACH_USER])
    assert let_through(quotas, context(service("bot"), "ann"), context(user("ann", "key_a"))) == 5


def test_a_service_is_counted_whomever_it_names() -> None:
    assert let_through(Quotas([EACH_SERVICE]), *(context(service("bot"), f"u{n}") for n in range(20))) == 5


def test_a_service_that_acts_for_a_user_counts_for_both() -> None:
    quotas = Quotas([EACH_USER, QuotaRule("bots", QuotaLimits(requests_per_minute=8), services=("bot",))])
    assert let_through(quotas, context(service("bot"), "ann")) == 5
    assert let_through(quotas, context(service("bot"), "bob")) == 3


def test_a_service_is_counted_by_a_delegation_too() -> None:
    """However many stand between it and the call."""
    quotas = Quotas([EACH_SERVICE])
    delegated = (
        user("ann").model_copy(update={"actors": actors})
        for actors in (("service:bot",), ("service:host:h", "service:bot"), ("user:ann", "service:bot"))
    )
    assert let_through(quotas, context(service("bot"), "ann"), *map(context, delegated)) == 5


def test_an_administrator_is_no_exception() -> None:
    assert let_through(Quotas([EACH_USER]), context(user("root", scopes=ALL_SCOPES))) == 5


def test_a_caller_without_a_key_is_no_exception() -> None:
    local = Principal(kind=PrincipalKind.USER, subject="me", scopes=ALL_SCOPES, method="local")
    assert let_through(Quotas([EACH_USER]), context(local)) == 5


def test_what_the_caller_says_of_himself_changes_nothing() -> None:
    metadata = ({"user": f"u{n}", "x-user-id": f"u{n}"} for n in range(20))
    assert let_through(Quotas([EACH_USER]), *(context(user("ann"), metadata=each) for each in metadata)) == 5


def test_a_user_and_a_service_of_one_name_are_two() -> None:
    of_service = QuotaRule("bots", FIVE, services=("bot",))
    assert let_through(Quotas([of_service]), context(user("bot"))) == 100


def test_a_rule_for_nobody_in_particular_counts_all_together() -> None:
    quotas = Quotas([QuotaRule("all", FIVE)])
    assert let_through(quotas, context(user("ann")), context(user("bob")), context(service("bot"), "eve")) == 5


def test_a_rule_for_models_holds_for_their_calls_alone() -> None:
    costly = QuotaRule("costly", QuotaLimits(tokens_per_minute=9), users=("*",), models=("opus*",))
    ann = context(user("ann"))
    quotas = Quotas([costly])
    assert [each.amount for each in quotas.spending_limits(ann, "opus-5")] == [9]
    assert quotas.spending_limits(ann, "mini") == ()
    assert quotas.limits(ann) == ()


def test_budgets_hold_beside_the_settings_and_from_now_on() -> None:
    quotas = Quotas([EACH_USER])
    ann = context(user("ann"))
    quotas.count_request(ann)
    quotas.replace_budgets([QuotaRule("budget", QuotaLimits(requests_per_minute=2), users=("ann",))])
    assert let_through(quotas, ann) == 2
    assert let_through(quotas, context(user("bob"))) == 5


LIMITS = st.builds(QuotaLimits, *(st.none() | st.integers(1, 9) for _ in range(6)))
NAMES = st.sampled_from(["ann", "bob", "bot", "*", "b*"])
RULES = st.lists(
    st.builds(
        QuotaRule,
        st.text("abc", min_size=1),
        LIMITS,
        st.lists(NAMES, max_size=2).map(tuple),
        st.lists(NAMES, max_size=2).map(tuple),
        st.lists(st.sampled_from(["k1", "k*"]), max_size=1).map(tuple),
    ),
    max_size=5,
)


@given(RULES, RULES, st.sampled_from(["ann", "bob"]), st.sampled_from(["user:ann", "service:bot"]))
def test_more_rules_never_allow_more(few: list[QuotaRule], more: list[QuotaRule], user_id: str, principal: str) -> None:
    consumer = Consumer(user_id, principal, "k1")
    before = effective_limits(few, consumer)
    assert set(before) <= set(effective_limits([*few, *more], consumer))


@pytest.mark.parametrize("kind", SubjectKind)
def test_a_limit_counts_the_use_of_its_subject(kind: SubjectKind) -> None:
    subject = Consumer("ann", "service:bot", "k1").subject(kind)
    ids = {SubjectKind.USER: "ann", SubjectKind.SERVICE: "bot", SubjectKind.KEY: "k1", SubjectKind.EVERYONE: ""}
    assert subject == Subject(kind, ids[kind])
    assert [measure for measure, _ in QuotaLimits(concurrent_runs=0).amounts()] == [Measure.CONCURRENT_RUNS]
