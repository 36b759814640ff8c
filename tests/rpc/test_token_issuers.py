"""Issuers over time: keys that change or cannot be had, and clocks that differ, through a server with its own clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2
from parley_server.auth.jwt_provider import JwtProvider
from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.principal import Principal
from rpc.chassis import Chassis, Failure, bearer, failed, running
from token_issuer import START_S, Clock, JwksServer, SigningKey, jwks_server, provider_of, settings_of

CODE = grpc.StatusCode
OLD, NEW = SigningKey.make("old"), SigningKey.make("new")
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class Place:
    """A server, the issuer's, and the time at both."""

    chassis: Chassis
    provider: JwtProvider
    jwks: JwksServer
    clock: Clock

    async def user_of(self, token: str) -> str:
        return str((await self.chassis.get_run(metadata=bearer(token))).run.agent_id)

    async def refusal_of(self, token: str) -> Failure:
        return await failed(self.chassis.get_run(metadata=bearer(token)))

    def token(self, key: SigningKey = OLD, **claims: object) -> str:
        return key.token(self.clock.claims(**claims))


@asynccontextmanager
async def place(**settings: object) -> AsyncIterator[Place]:
    clock = Clock()
    async with jwks_server(OLD) as jwks:
        provider = provider_of(settings_of(jwks, **settings), clock)
        async with running(providers=[provider]) as chassis:
            yield Place(chassis, provider, jwks, clock)
        await provider.close()


def is_undecided(failure: Failure) -> bool:
    retry = failure.details.get("RetryInfo")
    has_time = isinstance(retry, error_details_pb2.RetryInfo) and retry.retry_delay.seconds > 0
    return (failure.code, failure.reason) == (CODE.UNAVAILABLE, "AUTH_UNAVAILABLE") and has_time


def is_refused(failure: Failure) -> bool:
    return (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_a_new_key_is_found_after_half_a_minute_and_an_old_one_is_gone_after_ten() -> None:
    async with place() as at:
        assert await at.user_of(at.token()) == "okta:ann"
        at.jwks.publish(NEW)
        assert is_refused(await at.refusal_of(at.token(NEW)))
        assert at.jwks.asked == 1
        at.clock.passed_s += 31
        assert await at.user_of(at.token(NEW)) == "okta:ann"
        assert is_refused(await at.refusal_of(at.token(OLD)))
        assert at.jwks.asked == 2


async def test_a_key_that_is_withdrawn_is_no_good_ten_minutes_later_though_all_know_its_name() -> None:
    async with place() as at:
        kept = at.token(exp=int(START_S + HOUR))
        assert await at.user_of(kept) == "okta:ann"
        at.jwks.publish(NEW)
        at.clock.passed_s += 9 * MINUTE
        assert await at.user_of(kept) == "okta:ann"
        at.clock.passed_s += 2 * MINUTE
        assert is_refused(await at.refusal_of(kept))


async def test_a_hangup_fetches_the_keys_anew_and_forgets_who_was_let_in() -> None:
    async with place() as at:
        kept = at.token()
        assert await at.user_of(kept) == "okta:ann"
        at.jwks.publish(NEW)
        at.chassis.auth.forget_all()
        assert is_refused(await at.refusal_of(kept))


async def test_what_was_being_fetched_at_a_hangup_is_fetched_again_and_lets_nobody_in_for_long() -> None:
    async with place() as at:
        kept = at.token()
        at.jwks.gate.clear()
        entering = asyncio.create_task(at.user_of(kept))
        await at.jwks.was_asked.wait()
        at.chassis.auth.forget_all()
        at.jwks.gate.set()
        assert await entering == "okta:ann"
        at.jwks.publish(NEW)
        assert is_refused(await at.refusal_of(kept))


async def test_who_is_erased_again_and_again_has_no_issuer_asked_for_its_keys() -> None:
    async with place() as at:
        kept = at.token()
        for _ in range(3):
            assert await at.user_of(kept) == "okta:ann"
            at.chassis.auth.forget_user("okta:ann")
        assert is_refused(await at.refusal_of(at.token(NEW)))
        assert at.jwks.asked == 1


async def test_an_issuer_that_is_down_for_an_hour_keeps_nobody_out_whose_key_is_known() -> None:
    async with place() as at:
        assert await at.user_of(at.token()) == "okta:ann"
        at.jwks.status = 503
        for _ in range(60):
            at.clock.passed_s += MINUTE
            assert await at.user_of(at.token()) == "okta:ann"
        assert is_undecided(await at.refusal_of(at.token(NEW)))
        assert at.jwks.asked <= 1 + 60
        at.clock.passed_s += 23 * HOUR
        assert is_undecided(await at.refusal_of(at.token()))
        at.jwks.publish(OLD)
        at.clock.passed_s += 31
        assert await at.user_of(at.token()) == "okta:ann"


async def test_an_issuer_that_was_never_there_is_waited_for_and_nobody_else_is_asked() -> None:
    async with place() as at:
        at.jwks.status = 503
        assert is_undecided(await at.refusal_of(at.token()))
        at.jwks.publish(OLD)
        assert is_undecided(await at.refusal_of(at.token()))
        assert at.jwks.asked == 1
        at.clock.passed_s += 6
        assert await at.user_of(at.token()) == "okta:ann"


async def test_an_issuer_that_hangs_keeps_callers_waiting_no_longer_than_their_budget() -> None:
    async with place() as at:
        at.jwks.gate.clear()
        async with asyncio.timeout(30):
            assert is_undecided(await at.refusal_of(at.token()))
        at.jwks.gate.set()


SKEWS = {"10 minutes behind": -600, "31 s behind": -31, "29 s behind": -29, "29 s before": 29, "10 minutes before": 600}


@pytest.mark.parametrize("skew_s", SKEWS.values(), ids=SKEWS.keys())
async def test_an_issuers_clock_may_be_half_a_minute_off(skew_s: int) -> None:
    async with place() as at:
        beginning, ending = at.token(iat=START_S + skew_s), at.token(iat=START_S - 1800, exp=START_S + skew_s)
        for token, is_good in ((beginning, skew_s <= 30), (ending, skew_s > -30)):
            if is_good:
                assert await at.user_of(token) == "okta:ann"
            else:
                assert is_refused(await at.refusal_of(token))


async def test_a_token_is_good_until_it_ends_also_where_it_is_remembered() -> None:
    async with place(leeway_s=0) as at:
        short = at.token(exp=START_S + 30)
        assert await at.user_of(short) == "okta:ann"
        at.clock.passed_s = 29.9
        assert await at.user_of(short) == "okta:ann"
        at.clock.passed_s = 30.0
        assert is_refused(await at.refusal_of(short))


BAD_ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "elsewhere": (302, b"", {"Location": "/jwks?good"}),
    "no JSON": (200, b"<html>", {}),
    "a list": (200, b"[]", {}),
    "no keys": (200, b'{"keys": {}}', {}),
    "over 64 KiB": (200, b'{"keys": []}' + b" " * 65_536, {}),
    "a name twice": (200, b'{"keys": [], "keys": []}', {}),
    "compressed": (200, b"\x1f\x8b" + bytes(20), {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize(("status", "body", "headers"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_what_is_no_jwks_lets_nobody_in_and_takes_no_key_away(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    async with place() as at:
        at.jwks.status, at.jwks.body, at.jwks.headers = status, body, headers
        assert is_undecided(await at.refusal_of(at.token()))
        asked = at.jwks.asked
        assert asked == 1
        at.jwks.publish(OLD)
        at.clock.passed_s += 6
        assert await at.user_of(at.token()) == "okta:ann"
        at.jwks.status, at.jwks.body, at.jwks.headers = status, body, headers
        at.clock.passed_s += 11 * MINUTE
        assert await at.user_of(at.token()) == "okta:ann"
        assert at.jwks.asked == asked + 2


def presenting(token: str) -> Credentials:
    return Credentials(f"Bearer {token}", lambda: "ipv4:127.0.0.1:1")


async def test_ten_thousand_unknown_keys_a_second_make_one_fetch_in_half_a_minute() -> None:
    async with place() as at:
        stranger = SigningKey.make("unknown")
        claims = at.clock.claims()
        assert isinstance(await at.provider.authenticate(presenting(at.token())), Principal)
        at.clock.passed_s += 31
        signature = stranger.token(claims).rpartition(".")[2]
        body = stranger.token(claims).split(".")[1]
        for number in range(10_000):
            header = SigningKey(f"k{number}", "ES256", stranger.private).token(b"{}").split(".")[0]
            with pytest.raises(CredentialsInvalidError):
                await at.provider.authenticate(presenting(f"{header}.{body}.{signature}"))
            at.clock.passed_s += 1e-4
        assert at.jwks.asked == 2


async def test_many_who_need_the_keys_at_once_make_one_fetch_and_who_leaves_takes_nothing_along() -> None:
    async with place() as at:
        at.jwks.gate.clear()
        calls = [asyncio.create_task(at.provider.authenticate(presenting(at.token(sub=f"u{n}")))) for n in range(200)]
        await at.jwks.was_asked.wait()
        calls[0].cancel()
        at.jwks.gate.set()
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert [each.subject for each in others if isinstance(each, Principal)] == [f"okta:u{n}" for n in range(1, 200)]
        assert at.jwks.asked == 1


async def test_a_provider_that_ends_ends_its_fetch() -> None:
    async with place() as at:
        at.jwks.gate.clear()
        call = asyncio.create_task(at.provider.authenticate(presenting(at.token())))
        await at.jwks.was_asked.wait()
        await at.provider.close()
        with pytest.raises(AuthUnavailableError):
            await call
