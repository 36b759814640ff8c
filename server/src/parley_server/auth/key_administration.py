"""Issuing, rotating and revoking API keys, for the command line and the ApiKeyService alike."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from parley_server.auth.api_key import PresentedKey
from parley_server.auth.grants import are_act_as, scopes_of, unknown_scopes
from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.errors import InvalidRequestError, Violation
from parley_server.domain.idempotency import RepeatableRequest
from parley_server.domain.principal import PrincipalKind

DEFAULT_LIFETIME = timedelta(days=90)
MAX_OVERLAP = timedelta(days=7)

PageRequestT_contra = TypeVar("PageRequestT_contra", contravariant=True)
PageT_co = TypeVar("PageT_co", covariant=True)


class KeyRepository(Protocol[PageRequestT_contra, PageT_co]):
    """Where keys are kept; how it pages its lists is its own affair."""

    async def create(self, stored: StoredKey, request: RepeatableRequest | None = None) -> tuple[ApiKey, bool]:
        """Store a new key and tell that, or what an equal request made before. Raises RequestIdReusedError."""
        ...

    async def list(self, page: PageRequestT_contra, /) -> PageT_co:
        """List, latest created first."""
        ...

    async def rotate(
        self, key_id: str, secret_hash: bytes, rotation: Rotation, request: RepeatableRequest | None = None
    ) -> tuple[ApiKey, bool]:
        """Give a key a new secret and tell that, or that an equal request did. Raises as `KeyAdministration.rotate`."""
        ...

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Mark a key revoked; again is no error. Raises NotFoundError."""
        ...


class KeyAdministration(Generic[PageRequestT_contra, PageT_co]):
    """Issues, lists, rotates and revokes keys. `on_change` is told the id of every key that was rotated or revoked."""

    def __init__(
        self,
        keys: KeyRepository[PageRequestT_contra, PageT_co],
        hash_key: bytes,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._keys = keys
        self._hash_key = hash_key
        self._on_change = on_change

    async def create(
        self,
        kind: PrincipalKind,
        subject: str,
        scopes: Iterable[str] = (),
        act_as: Sequence[str] = (),
        lifetime: timedelta | None = DEFAULT_LIFETIME,
        request: RepeatableRequest | None = None,
    ) -> tuple[ApiKey, str]:
        """Issue a key and return it with its text, which is nowhere kept.

        No scopes mean every scope but `admin` and those of tools, and for a service but `approvals:decide` and
        `account:erase`, since it would answer for users who were never asked; no lifetime, a key that never expires. An
        equal `request` gets the key that the first one made, with an empty text.

        Raises:
            InvalidRequestError: a name, scope or pattern is not one that a key may have.
            RequestIdReusedError: the request id was used for another request.
        """
        granted = scopes_of(scopes, kind)
        _check(kind, subject, granted, act_as)
        presented = PresentedKey.mint()
        now = datetime.now(UTC)
        key = ApiKey(
            key_id=presented.key_id,
            kind=kind,
            subject=subject,
            scopes=granted,
            act_as=tuple(sorted(set(act_as))),
            create_time=now,
            expire_time=None if lifetime is None else now + lifetime,
        )
        key, is_new = await self._keys.create(StoredKey(key, presented.hash(self._hash_key)), request)
        return key, presented.text if is_new else ""

    async def list(self, page: PageRequestT_contra) -> PageT_co:
        """List all keys, revoked and expired ones too, latest created first."""
        return await self._keys.list(page)

    async def rotate(
        self,
        key_id: str,
        overlap: timedelta = timedelta(),
        lifetime: timedelta | None = None,
        request: RepeatableRequest | None = None,
    ) -> tuple[ApiKey, str]:
        """Give a key a new secret and return it with its text, which is nowhere kept.

        The old secret works for `overlap` more, one still older no longer. The key works for `lifetime` from now on;
        None leaves its end as it was. An equal `request` gets the key with an empty text.

        Raises:
            InvalidRequestError: the overlap is negative or longer than MAX_OVERLAP.
            NotFoundError: there is no such key, or it is revoked or expired.
            RequestIdReusedError: the request id was used for another request.
        """
        if not timedelta() <= overlap <= MAX_OVERLAP:
            raise InvalidRequestError.of("overlap", f"is at most {MAX_OVERLAP.days} days")
        presented = PresentedKey.with_new_secret(key_id)
        rotation = Rotation(datetime.now(UTC), overlap, lifetime)
        key, is_new = await self._keys.rotate(key_id, presented.hash(self._hash_key), rotation, request)
        self._on_change(key_id)
        return key, presented.text if is_new else ""

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key; again is no error. Raises NotFoundError."""
        key = await self._keys.revoke(key_id, datetime.now(UTC))
        self._on_change(key_id)
        return key


def _check(kind: PrincipalKind, subject: str, scopes: frozenset[str], act_as: Sequence[str]) -> None:
    """Refuse what no key may have. Raises InvalidRequestError that names every fault."""
    faults = []
    if not kind.is_name(subject):
        faults.append(Violation("principal", "not a well-formed name"))
    if unknown := unknown_scopes(scopes):
        faults.append(Violation("scopes", f"no such scope: {', '.join(unknown)}"))
    if act_as and kind is PrincipalKind.USER:
        faults.append(Violation("act_as", "is for services only"))
    if not are_act_as(act_as):
        faults.append(Violation("act_as", "a pattern is a user id, or the beginning of one followed by *"))
    if faults:
        raise InvalidRequestError.of_all(faults)
