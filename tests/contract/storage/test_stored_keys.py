"""Keys on every engine: two secrets, requests that are repeated, and when a key was last used."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, RequestIdReusedError
from parley_server.domain.idempotency import Idempotency, RepeatableRequest
from parley_server.domain.principal import PrincipalKind
from parley_server.storage.page import PageRequest
from parley_server.storage.sql.store import SqlStore

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def new_key(key_id: str = "key000000001", *, expire_time: datetime | None = None) -> StoredKey:
    key = ApiKey(key_id, PrincipalKind.SERVICE, "bot", frozenset({"runs:read"}), ("tg:*",), NOW, expire_time)
    return StoredKey(key, b"hash 1")


def request(context: RequestContext, request_id: str = "once", fingerprint: bytes = b"same") -> RepeatableRequest:
    return RepeatableRequest(context, Idempotency(request_id, "create_api_key", fingerprint))


async def test_a_rotation_keeps_the_key_and_the_secret_before(store: SqlStore) -> None:
    keys, stored = store.api_keys, new_key(expire_time=NOW + 90 * DAY)
    assert await keys.create(stored) == (stored.key, True)
    rotated, is_new = await keys.rotate("key000000001", b"hash 2", Rotation(NOW + DAY, HOUR))
    assert is_new
    assert rotated == replace(stored.key, previous_secret_expire_time=NOW + DAY + HOUR)
    assert await keys.find("key000000001") == StoredKey(rotated, b"hash 2", b"hash 1")
    assert (await keys.list(PageRequest(1))).items == (rotated,)


async def test_at_most_two_secrets_are_kept(store: SqlStore) -> None:
    keys = store.api_keys
    await keys.create(new_key())
    for number in (2, 3):
        await keys.rotate("key000000001", f"hash {number}".encode(), Rotation(NOW, DAY))
    found = await keys.find("key000000001")
    assert found is not None
    assert (found.secret_hash, found.previous_secret_hash) == (b"hash 3", b"hash 2")
    await keys.rotate("key000000001", b"hash 4", Rotation(NOW))
    found = await keys.find("key000000001")
    assert found is not None
    assert (found.secret_hash, found.previous_secret_hash) == (b"hash 4", None)
    assert found.key.previous_secret_expire_time is None


async def test_the_old_secret_does_not_outlive_the_key(store: SqlStore) -> None:
    await store.api_keys.create(new_key(expire_time=NOW + HOUR))
    rotated, _ = await store.api_keys.rotate("key000000001", b"hash 2", Rotation(NOW, DAY))
    assert rotated.previous_secret_expire_time == rotated.expire_time == NOW + HOUR
    rotated, _ = await store.api_keys.rotate("key000000001", b"hash 3", Rotation(NOW, DAY, lifetime=30 * DAY))
    assert (rotated.expire_time, rotated.previous_secret_expire_time) == (NOW + 30 * DAY, NOW + DAY)


async def test_what_is_absent_revoked_or_expired_is_not_rotated(store: SqlStore) -> None:
    keys = store.api_keys
    await keys.create(new_key("key00revoked"))
    await keys.revoke("key00revoked", NOW)
    await keys.create(new_key("key00expired", expire_time=NOW))
    for key_id in ("key00revoked", "key00expired", "key000absent"):
        with pytest.raises(NotFoundError):
            await keys.rotate(key_id, b"hash 2", Rotation(NOW, DAY, lifetime=DAY))
    for key_id in ("key00revoked", "key00expired"):
        found = await keys.find(key_id)
        assert found is not None
        assert (found.secret_hash, found.previous_secret_hash) == (b"hash 1", None)


async def test_an_equal_create_gives_the_key_as_it_is_now(open_same_store: OpenStore, ann: RequestContext) -> None:
    async with open_same_store() as store:
        made, is_new = await store.api_keys.create(new_key(), request(ann))
        assert is_new
        await store.api_keys.revoke(made.key_id, NOW)
    async with open_same_store() as store:
        again, is_new = await store.api_keys.create(new_key("key000000002"), request(ann))
        assert (again, is_new) == (replace(made, revoke_time=NOW), False)
        assert await store.api_keys.find("key000000002") is None


async def test_another_request_of_the_same_id_is_refused_and_stores_nothing(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    await store.api_keys.create(new_key(), request(ann))
    with pytest.raises(RequestIdReusedError):
        await store.api_keys.create(new_key("key000000002"), request(ann, fingerprint=b"other"))
    assert await store.api_keys.find("key000000002") is None
    _, is_new = await store.api_keys.create(new_key("key000000003"), request(bob))
    assert is_new


async def test_equal_creates_at_the_same_time_give_one_key(store: SqlStore, ann: RequestContext) -> None:
    made = await asyncio.gather(
        *(store.api_keys.create(new_key(f"key{number:09}"), request(ann)) for number in range(20))
    )
    assert len({key.key_id for key, _ in made}) == 1
    assert [is_new for _, is_new in made].count(True) == 1
    assert len((await store.api_keys.list(PageRequest(50))).items) == 1


async def test_an_equal_rotation_changes_nothing_and_one_refused_is_not_remembered(
    store: SqlStore, ann: RequestContext
) -> None:
    with pytest.raises(NotFoundError):
        await store.api_keys.rotate("key000000001", b"hash 2", Rotation(NOW, DAY), request(ann))
    await store.api_keys.create(new_key())
    first = await store.api_keys.rotate("key000000001", b"hash 2", Rotation(NOW, DAY), request(ann))
    again = await store.api_keys.rotate("key000000001", b"hash 3", Rotation(NOW, HOUR), request(ann))
    assert again == (first[0], False)
    found = await store.api_keys.find("key000000001")
    assert found is not None
    assert (found.secret_hash, found.previous_secret_hash) == (b"hash 2", b"hash 1")


async def test_uses_are_recorded_together_and_never_backwards(store: SqlStore, engine: Engine) -> None:
    keys = store.api_keys
    for number in range(3):
        await keys.create(new_key(f"key{number:09}"))
    await keys.record_uses({"key000000000": NOW, "key000000001": NOW, "key000absent": NOW})
    await keys.record_uses({"key000000000": NOW - HOUR, "key000000001": NOW + HOUR})
    await keys.record_uses({})
    uses = {key.key_id: key.last_use_time for key in (await keys.list(PageRequest(3))).items}
    assert uses == {"key000000000": NOW, "key000000001": NOW + HOUR, "key000000002": None}
    assert await engine.rows("SELECT count(*) FROM api_keys") == [(3,)]
