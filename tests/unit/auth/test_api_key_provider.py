"""The provider `api_key`: whom it lets in, how often it asks, and when it forgets."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from parley_server.auth import api_key_provider
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.api_key_provider import ApiKeyProvider, StoredKey
from parley_server.auth.provider import NOT_MINE, Credentials
from parley_server.domain.api_key import ApiKey
from parley_server.domain.errors import CredentialsInvalidError
from parley_server.domain.principal import Principal, PrincipalKind

HASH_KEY = b"k" * 32
NOW = datetime.now(UTC)


class Keys:
    """Keys in memory, and how often each was asked for."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredKey] = {}
        self.lookups: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, key_id: str) -> StoredKey | None:
        self.lookups.append(key_id)
        found = self.stored.get(key_id)
        await self.gate.wait()
        return found

    def issue(self, *, expire_time: datetime | None = None, revoke_time: datetime | None = None) -> PresentedKey:
        presented = PresentedKey.mint()
        key = ApiKey(
            presented.key_id,
            PrincipalKind.SERVICE,
            "bot",
            frozenset({"runs:read"}),
            ("telegram:*",),
            NOW,
            expire_time=expire_time,
            revoke_time=revoke_time,
        )
        self.stored[key.key_id] = StoredKey(key, presented.hash(HASH_KEY))
        return presented


def credentials(authorization: str | None) -> Credentials:
    return Credentials(authorization, lambda: "ipv4:127.0.0.1:1")


async def admitted(provider: ApiKeyProvider, text: str) -> bool:
    try:
        return isinstance(await provider.authenticate(credentials(f"Bearer {text}")), Principal)
    except CredentialsInvalidError:
        return False


async def test_a_key_proves_its_owner() -> None:
    keys = Keys()
    key = keys.issue()
    principal = await ApiKeyProvider(keys, HASH_KEY).authenticate(credentials(f"bearer {key.text}"))
    assert principal == Principal(
        kind=PrincipalKind.SERVICE,
        subject="bot",
        scopes=frozenset({"runs:read"}),
        act_as=("telegram:*",),
        method="api_key",
        credential_id=key.key_id,
    )


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer eyJhbGciOi.x.y", "Basic parley_x"])
async def test_other_kinds_of_credential_are_not_its_own(authorization: str | None) -> None:
    assert await ApiKeyProvider(Keys(), HASH_KEY).authenticate(credentials(authorization)) is NOT_MINE


async def test_what_no_store_needs_to_be_asked_for_is_refused_without_asking() -> None:
    keys = Keys()
    assert not await admitted(ApiKeyProvider(keys, HASH_KEY), keys.issue().text[:-1] + "!")
    assert keys.lookups == []


async def test_only_the_whole_key_in_force_under_this_hash_key_is_good() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    good = keys.issue()
    assert await admitted(provider, good.text)
    assert not await admitted(ApiKeyProvider(keys, b"x" * 32), good.text)
    assert not await admitted(provider, PresentedKey(good.key_id, PresentedKey.mint().secret).text)
    assert not await admitted(provider, PresentedKey.mint().text)
    assert not await admitted(provider, keys.issue(expire_time=NOW - timedelta(seconds=1)).text)
    assert not await admitted(provider, keys.issue(revoke_time=NOW).text)


async def test_a_good_key_is_remembered_for_a_while_and_a_bad_one_is_not() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    good, bad = keys.issue(), PresentedKey.mint()
    for _ in range(3):
        assert await admitted(provider, good.text)
        assert not await admitted(provider, bad.text)
    assert keys.lookups.count(good.key_id) == 1
    assert keys.lookups.count(bad.key_id) == 3


async def test_a_remembered_key_does_not_let_another_secret_in() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    good = keys.issue()
    assert await admitted(provider, good.text)
    assert not await admitted(provider, PresentedKey(good.key_id, "x" * 43).text)


async def test_a_revocation_elsewhere_works_once_the_memory_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_provider, "CACHE_S", 0.05)
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    key = keys.issue()
    assert await admitted(provider, key.text)
    keys.stored.clear()
    assert await admitted(provider, key.text)
    await asyncio.sleep(0.06)
    assert not await admitted(provider, key.text)


async def test_an_expiry_is_not_outlived_by_the_memory() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    key = keys.issue(expire_time=datetime.now(UTC) + timedelta(seconds=0.1))
    assert await admitted(provider, key.text)
    await asyncio.sleep(0.11)
    assert not await admitted(provider, key.text)


async def test_a_revocation_here_works_at_once_also_when_it_meets_a_look_up() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    key = keys.issue()
    keys.gate.clear()
    looking = asyncio.ensure_future(admitted(provider, key.text))
    await asyncio.sleep(0)
    keys.stored.clear()
    provider.forget(key.key_id)
    keys.gate.set()
    await looking
    assert not await admitted(provider, key.text)


async def test_forgetting_one_key_leaves_the_others_remembered() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    one, other = keys.issue(), keys.issue()
    for key in (one, other):
        assert await admitted(provider, key.text)
    provider.forget(one.key_id)
    for key in (one, other):
        assert await admitted(provider, key.text)
    assert (keys.lookups.count(one.key_id), keys.lookups.count(other.key_id)) == (2, 1)


async def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    keys = Keys()
    keys.gate.clear()
    with pytest.raises(TimeoutError):
        await ApiKeyProvider(keys, HASH_KEY, budget_s=0.01).authenticate(credentials(f"Bearer {keys.issue().text}"))


async def test_the_memory_is_bounded() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    for _ in range(1100):
        assert await admitted(provider, keys.issue().text)
    assert len(provider._verified) <= 1024
