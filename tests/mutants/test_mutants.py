"""Mutated tokens, none of which is anybody: some thousands in every run, a million by `make mutants`."""

import os
import time
from collections import Counter

import pytest
from mutants.token_mutations import CLOCK, KEYS, Mutator, good_tokens
from parley_server.auth import jwt_provider
from parley_server.auth.jwt_provider import JwtProvider
from parley_server.auth.provider import NOT_MINE, Credentials, NotMine
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.principal import Principal
from structlog.testing import capture_logs
from token_issuer import jwks_server, provider_of, settings_of

COUNT = int(os.environ.get("PARLEY_MUTANTS", "3000"))
SEED = int(os.environ.get("PARLEY_MUTANTS_SEED", "7"))


async def answer(provider: JwtProvider, text: str) -> Principal | NotMine:
    """Return whom a token proves; NOT_MINE where it is refused, too."""
    credentials = Credentials(f"Bearer {text}", lambda: "ipv4:127.0.0.1:1")
    if (remembered := provider.recall(credentials)) is not None:
        return remembered
    try:
        return await provider.authenticate(credentials)
    except CredentialsInvalidError:
        return NOT_MINE


async def accepted_of(count: int) -> tuple[list[str], Counter[str]]:
    """Try so many mutants on one provider; return the kinds of those it took, and of all there were."""
    good = good_tokens()
    mutator = Mutator(good, SEED)
    tried: Counter[str] = Counter()
    accepted: list[str] = []
    async with jwks_server(*KEYS) as jwks:
        provider = provider_of(settings_of(jwks), CLOCK)
        with capture_logs() as logs:
            for number in range(count):
                if number % 1000 == 0:
                    assert [type(await answer(provider, each.text)) for each in good] == [Principal] * len(good)
                    assert all(each.text not in str(logs) for each in good)
                    logs.clear()
                kind, text = mutator.mutant()
                tried[kind] += 1
                if await answer(provider, text) is not NOT_MINE:
                    accepted.append(kind)
        assert jwks.asked == 1
        await provider.close()
    return accepted, tried


@pytest.mark.mutants
@pytest.mark.timeout(0)
async def test_no_mutated_token_is_anybody() -> None:
    began = time.monotonic()
    accepted, tried = await accepted_of(COUNT)
    took_s = time.monotonic() - began
    print(f"\n{COUNT} mutants, {COUNT / took_s:.0f} a second, {len(accepted)} accepted: {dict(tried)}")  # noqa: T201  # the figure
    assert accepted == []


async def test_a_provider_that_does_not_look_at_signatures_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_provider, "_check_signature", lambda *_: None)
    accepted, _ = await accepted_of(500)
    assert {"bit_of_the_content", "claims_under_the_signature", "signature_of_a_stranger"} <= set(accepted)
