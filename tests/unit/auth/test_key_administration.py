"""Issuing and revoking keys."""

from datetime import UTC, datetime, timedelta

import pytest
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.key_administration import KeyAdministration
from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.errors import InvalidRequestError, NotFoundError
from parley_server.domain.idempotency import RepeatableRequest
from parley_server.domain.principal import ALL_SCOPES, USER_SCOPES, PrincipalKind

HASH_KEY = b"k" * 32


class Repository:
    """Keys in memory; a page is a slice."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredKey] = {}

    async def create(self, stored: StoredKey, request: RepeatableRequest | None = None) -> tuple[ApiKey, bool]:
        self.stored[stored.key.key_id] = stored
        return stored.key, request is None

    async def list(self, page: slice) -> list[ApiKey]:
        return [stored.key for stored in self.stored.values()][page]

    async def rotate(
        self, key_id: str, secret_hash: bytes, rotation: Rotation, request: RepeatableRequest | None = None
    ) -> tuple[ApiKey, bool]:
        if key_id not in self.stored:
            raise NotFoundError("api_key")
        self.stored[key_id] = self.stored[key_id].rotated(secret_hash, rotation)
        return self.stored[key_id].key, request is None

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        if key_id not in self.stored:
            raise NotFoundError("api_key")
        assert now.tzinfo is UTC
        return self.stored[key_id].key


async def test_a_key_is_stored_by_its_hash_and_shown_once() -> None:
    repository = Repository()
    key, text = await KeyAdministration(repository, HASH_KEY).create(PrincipalKind.USER, "ann")
    presented = PresentedKey.parse(text)
    assert presented is not None
    assert repository.stored == {presented.key_id: StoredKey(key, presented.hash(HASH_KEY))}
    assert presented.secret not in repr(repository.stored)
    assert (key.kind, key.subject, key.scopes, key.act_as) == (PrincipalKind.USER, "ann", USER_SCOPES, ())
    assert key.expire_time == key.create_time + timedelta(days=90)


async def test_a_key_has_what_was_asked_for() -> None:
    administration = KeyAdministration(Repository(), HASH_KEY)
    key, _ = await administration.create(
        PrincipalKind.SERVICE, "bot", ["runs:read", "admin", "tool:refunds"], ["b", "a:*", "b"], timedelta(hours=1)
    )
    assert (key.scopes, key.act_as) == (frozenset({"runs:read", "admin", "tool:refunds"}), ("a:*", "b"))
    assert key.expire_time == key.create_time + timedelta(hours=1)
    everlasting, _ = await administration.create(PrincipalKind.USER, "ann", iter(ALL_SCOPES), lifetime=None)
    assert (everlasting.scopes, everlasting.expire_time) == (ALL_SCOPES, None)
    assert await administration.list(slice(1)) == [key]


@pytest.mark.parametrize(
    ("kind", "subject", "scopes", "act_as", "fields"),
    [
        (PrincipalKind.USER, "a b", [], [], ["principal"]),
        (PrincipalKind.USER, "", [], [], ["principal"]),
        (PrincipalKind.USER, "service:bot", [], [], ["principal"]),
        (PrincipalKind.SERVICE, "service:bot", [], [], ["principal"]),
        (PrincipalKind.SERVICE, "b" * 121, [], [], ["principal"]),
        (PrincipalKind.USER, "ann", ["runs:delete"], [], ["scopes"]),
        (PrincipalKind.USER, "ann", ["tool:*"], [], ["scopes"]),
        (PrincipalKind.USER, "ann", ["tool:a b"], [], ["scopes"]),
        (PrincipalKind.USER, "ann", [], ["bob"], ["act_as"]),
        (PrincipalKind.SERVICE, "bot", [], ["*x"], ["act_as"]),
        (PrincipalKind.SERVICE, "-", ["x"], ["a**"], ["principal", "scopes", "act_as"]),
    ],
)
async def test_what_no_key_may_have_is_named(
    kind: PrincipalKind, subject: str, scopes: list[str], act_as: list[str], fields: list[str]
) -> None:
    repository = Repository()
    with pytest.raises(InvalidRequestError) as error:
        await KeyAdministration(repository, HASH_KEY).create(kind, subject, scopes, act_as)
    assert [violation.field for violation in error.value.violations] == fields
    assert repository.stored == {}


async def test_a_revocation_is_told_and_one_that_fails_is_not() -> None:
    told: list[str] = []
    administration = KeyAdministration(Repository(), HASH_KEY, on_change=told.append)
    key, _ = await administration.create(PrincipalKind.USER, "ann")
    assert await administration.revoke(key.key_id) == key
    with pytest.raises(NotFoundError):
        await administration.revoke("nothing")
    assert told == [key.key_id]
