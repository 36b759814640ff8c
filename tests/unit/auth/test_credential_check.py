"""Whether what a run was begun with still holds: each kind of credential, and a store that cannot be asked."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.credential_check import CredentialCheck
from parley_server.auth.key_standing import KeyStanding
from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.api_key import Rotation
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.principal import Principal, PrincipalKind
from rpc.chassis import HASH_KEY, Keys

PAST, FUTURE = [datetime.now(UTC) + timedelta(days=days) for days in (-1, 1)]


def by(method: str, credential_id: str = "", expires_at: datetime | None = None) -> Principal:
    return Principal(
        kind=PrincipalKind.USER, subject="ann", method=method, credential_id=credential_id, expires_at=expires_at
    )


async def ended(check: CredentialCheck, principal: Principal) -> bool:
    try:
        await check.require(principal)
    except CredentialsInvalidError:
        return True
    return False


@pytest.mark.parametrize("method", ["jwt", "mtls", "delegation", "of somebody's package"])
async def test_a_credential_with_an_end_ends_then(method: str) -> None:
    check = CredentialCheck(KeyStanding(Keys()))
    assert await ended(check, by(method, expires_at=PAST))
    assert not await ended(check, by(method, expires_at=FUTURE))
    assert not await ended(check, by(method))


async def test_who_is_here_needs_nothing() -> None:
    assert not await ended(CredentialCheck(KeyStanding(Keys())), by("local"))


async def test_what_all_rests_on_is_asked_for_again_where_that_is_wanted() -> None:
    keys = Keys()
    check = CredentialCheck(KeyStanding(keys))
    key_id = keys.issue("ann").split("_")[1]
    principal = by("delegation", key_id, FUTURE)
    assert not await ended(check, principal)
    del keys.stored[key_id]
    assert not await ended(check, principal)
    check.forget_all()
    assert await ended(check, principal)


@pytest.mark.parametrize("method", ["api_key", "delegation"])
async def test_what_rests_on_a_key_ends_with_it(method: str) -> None:
    keys = Keys()
    standing = KeyStanding(keys)
    check = CredentialCheck(standing)
    key_id = keys.issue("ann").split("_")[1]
    principal = by(method, key_id, FUTURE)
    for _ in range(100):
        assert not await ended(check, principal)
    assert keys.lookups == [key_id]
    del keys.stored[key_id]
    standing.forget(key_id)
    assert await ended(check, principal)
    assert await ended(check, by(method, "nobodys"))


async def test_a_key_that_was_given_more_time_has_it() -> None:
    keys = Keys()
    key_id = keys.issue("ann", expire_time=datetime.now(UTC)).split("_")[1]
    check = CredentialCheck(KeyStanding(keys))
    principal = by("api_key", key_id, PAST)
    assert await ended(check, principal)
    new_hash = PresentedKey.with_new_secret(key_id).hash(HASH_KEY)
    more = Rotation(datetime.now(UTC), lifetime=timedelta(days=1))
    keys.stored[key_id] = keys.stored[key_id].rotated(new_hash, more)
    assert not await ended(check, principal)


async def test_a_key_is_not_remembered_beyond_its_end() -> None:
    keys = Keys()
    key_id = keys.issue("ann", expire_time=datetime.now(UTC) + timedelta(seconds=0.2)).split("_")[1]
    check = CredentialCheck(KeyStanding(keys))
    assert not await ended(check, by("api_key", key_id))
    await asyncio.sleep(0.25)
    assert await ended(check, by("api_key", key_id))


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_a_store_that_does_not_answer_lets_nothing_pass(trouble: str) -> None:
    keys = Keys()
    key_id = keys.issue("ann").split("_")[1]
    check = CredentialCheck(KeyStanding(keys, budget_s=0.05))
    if trouble == "fails":
        keys.fault = StorageUnavailableError()
    else:
        keys.delay_s = 60.0
    with pytest.raises(AuthUnavailableError):
        await check.require(by("api_key", key_id))
    keys.fault, keys.delay_s = None, 0.0
    assert not await ended(check, by("api_key", key_id))


async def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered_as_good() -> None:
    keys = Keys()
    standing = KeyStanding(keys)
    key_id = keys.issue("ann").split("_")[1]
    keys.delay_s = 0.05
    looking = asyncio.create_task(standing.is_good(key_id))
    await asyncio.sleep(0.01)
    standing.forget(key_id)
    await looking
    del keys.stored[key_id]
    assert not await standing.is_good(key_id)
