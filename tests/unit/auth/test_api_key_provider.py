"""The provider `api_key`: whom it lets in, how often it asks, and when it forgets."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from parley_server.auth import api_key_provider
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.api_key_provider import ApiKeyProvider
from parley_server.auth.factory import AuthChain
from parley_server.auth.provider import NOT_MINE, Credentials, NotMine
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
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

    def rotate(self, presented: PresentedKey, overlap: timedelta) -> PresentedKey:
        renewed = PresentedKey.with_new_secret(presented.key_id)
        rotation = Rotation(datetime.now(UTC), overlap)
        self.stored[renewed.key_id] = self.stored[renewed.key_id].rotated(renewed.hash(HASH_KEY), rotation)
        return renewed

    def issue(
        self, *, expire_time: datetime | None = None, revoke_time: datetime | None = None, service: str = "bot"
    ) -> PresentedKey:
        presented = PresentedKey.mint()
        key = ApiKey(
            presented.key_id,
            PrincipalKind.SERVICE,
            service,
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


async def principal_of(provider: ApiKeyProvider, text: str) -> Principal | NotMine:
    """Ask as the chain does."""
    sent = credentials(f"Bearer {text}")
    return provider.recall(sent) or await provider.authenticate(sent)


async def admitted(provider: ApiKeyProvider, text: str) -> bool:
    try:
        return await principal_of(provider, text) is not NOT_MINE
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


async def test_forgetting_a_user_has_all_his_keys_looked_up_again_and_no_other() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    issued = [keys.issue(service=name) for name in ("ann", "ann", "bob")]
    for key in issued:
        assert await admitted(provider, key.text)
    AuthChain([provider]).forget_user("service:ann")
    for key in issued:
        assert await admitted(provider, key.text)
    assert [keys.lookups.count(key.key_id) for key in issued] == [2, 2, 1]


async def test_forgetting_all_keys_has_every_one_looked_up_again_and_still_known() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    one, other = keys.issue(), keys.issue()
    for key in (one, other):
        assert await admitted(provider, key.text)
    AuthChain([provider]).forget_all()
    keys.stored.pop(other.key_id)
    assert provider.knows(credentials(f"Bearer {one.text}"))
    assert await admitted(provider, one.text)
    assert not await admitted(provider, other.text)


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
    assert len(provider._remembered._verified) <= 1024


async def test_both_secrets_of_a_rotated_key_are_good_and_prove_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key_provider, "CACHE_S", 0.0)
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    first = keys.issue()
    second = keys.rotate(first, timedelta(hours=1))
    assert await principal_of(provider, first.text) == await principal_of(provider, second.text)
    third = keys.rotate(second, timedelta(hours=1))
    assert [await admitted(provider, key.text) for key in (first, second, third)] == [False, True, True]
    fourth = keys.rotate(third, timedelta())
    assert [await admitted(provider, key.text) for key in (second, third, fourth)] == [False, False, True]


async def test_an_old_secret_ends_with_its_overlap_whatever_is_remembered() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    old = keys.issue()
    new = keys.rotate(old, timedelta(seconds=0.1))
    assert await admitted(provider, old.text)
    await asyncio.sleep(0.11)
    assert not await admitted(provider, old.text)
    assert await admitted(provider, new.text)


async def test_an_old_secret_ends_with_its_key() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    old = keys.issue(expire_time=NOW + timedelta(seconds=0.3))
    new = keys.rotate(old, timedelta(hours=1))
    stored = keys.stored[old.key_id]
    revoked = keys.issue()
    renewed = keys.rotate(revoked, timedelta(hours=1))
    keys.stored[revoked.key_id] = replace(
        keys.stored[revoked.key_id], key=replace(keys.stored[revoked.key_id].key, revoke_time=NOW)
    )
    assert stored.key.previous_secret_expire_time == stored.key.expire_time
    assert not await admitted(provider, revoked.text)
    assert not await admitted(provider, renewed.text)
    await asyncio.sleep(max(0.0, (NOW + timedelta(seconds=0.31) - datetime.now(UTC)).total_seconds()))
    assert not await admitted(provider, old.text)
    assert not await admitted(provider, new.text)


async def test_a_use_is_told_when_the_key_is_looked_up_and_not_with_every_call() -> None:
    keys, used = Keys(), list[str]()
    provider = ApiKeyProvider(keys, HASH_KEY, on_use=lambda key_id, _: used.append(key_id))
    good, bad = keys.issue(), PresentedKey.mint()
    for _ in range(3):
        assert await admitted(provider, good.text)
        assert not await admitted(provider, bad.text)
    assert used == [good.key_id]


async def test_a_key_is_known_from_its_first_good_use_to_its_first_bad_one() -> None:
    keys = Keys()
    provider = ApiKeyProvider(keys, HASH_KEY)
    key = keys.issue()
    sent = credentials(f"Bearer {key.text}")
    assert not provider.knows(sent)
    assert await admitted(provider, key.text)
    provider.forget(key.key_id)
    assert provider.knows(sent)
    assert provider.recall(sent) is None
    assert not provider.knows(credentials(f"Bearer {PresentedKey(key.key_id, 'x' * 43).text}"))
    assert not provider.knows(credentials(f"Basic {key.text}"))
    keys.stored.clear()
    assert not await admitted(provider, key.text)
    assert not provider.knows(sent)
