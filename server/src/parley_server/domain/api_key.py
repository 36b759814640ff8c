"""API keys: `parley_<12 id>_<43 secret>_<6 crc>`, fixed widths, stored as the id and keyed hashes of its secrets."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from parley_server.domain.principal import PrincipalKind


@dataclass(frozen=True, slots=True)
class Rotation:
    """A change of a key's secret at `time`: the old one works for `overlap` more.

    The key itself works for `lifetime` from then on; None leaves its end as it was.
    """

    time: datetime
    overlap: timedelta = timedelta()
    lifetime: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secrets. Times are UTC; `expire_time` None never expires.

    `previous_secret_expire_time` is when the secret before the last rotation ends or ended; None if it ended at once.
    """

    key_id: str
    kind: PrincipalKind
    subject: str
    scopes: frozenset[str]
    act_as: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    previous_secret_expire_time: datetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether the key may be used at `now`."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)

    def previous_secret_end(self, now: datetime) -> datetime | None:
        """Return when the previous secret stops working; None if it does not work at `now`."""
        end = self.previous_secret_expire_time
        return end if end is not None and now < end and self.is_valid_at(now) else None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept: what is known of it and the keyed hashes of its secrets, the previous one if it has one."""

    key: ApiKey
    secret_hash: bytes
    previous_secret_hash: bytes | None = None

    def rotated(self, secret_hash: bytes, rotation: Rotation) -> "StoredKey":
        """Return the key with a new secret. The old one outlives neither the overlap nor the key."""
        expire_time = self.key.expire_time if rotation.lifetime is None else rotation.time + rotation.lifetime
        if not rotation.overlap:
            key = replace(self.key, expire_time=expire_time, previous_secret_expire_time=None)
            return StoredKey(key, secret_hash)
        overlap_end = rotation.time + rotation.overlap
        previous_end = overlap_end if expire_time is None else min(overlap_end, expire_time)
        key = replace(self.key, expire_time=expire_time, previous_secret_expire_time=previous_end)
        return StoredKey(key, secret_hash, self.secret_hash)
