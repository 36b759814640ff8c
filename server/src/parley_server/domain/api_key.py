"""API keys: `parley_<12 id>_<43 secret>_<6 crc>`, fixed widths, stored as the id and a keyed hash of the secret."""

from dataclasses import dataclass
from datetime import datetime

from parley_server.domain.principal import PrincipalKind


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are UTC; `expire_time` None never expires."""

    key_id: str
    kind: PrincipalKind
    subject: str
    scopes: frozenset[str]
    act_as: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether the key may be used at `now`."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)
