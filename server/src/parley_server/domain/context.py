"""The RequestContext: for whom a call is made, by whom, and in which zone and language.

The interceptor makes one per call; it is handed on explicitly, as the first argument, everywhere.
"""

import re
import zoneinfo
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

from parley_server.domain.access_errors import ClockSkewError, UserMismatchError
from parley_server.domain.identifiers import new_id
from parley_server.domain.principal import ADMIN_SCOPE, Principal, UserId, missing_scopes

MAX_CONTEXT_BYTES = 4096
MAX_METADATA_PAIRS = 16
MAX_CLOCK_SKEW = timedelta(minutes=5)
# What a service keeps to itself when it acts for a user.
_OWN_ALONE = frozenset({ADMIN_SCOPE})

# Read now: when the process is short of file descriptors it can be read no more.
_UTC = zoneinfo.ZoneInfo("UTC")
_LOCALE = re.compile(r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*\Z")


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _known_zone(name: str) -> str:
    if name and not is_time_zone(name):
        raise ValueError("not an IANA time zone")
    return name


def _known_locale(tag: str) -> str:
    if tag and not is_locale(tag):
        raise ValueError("not a BCP 47 language tag")
    return tag


def is_time_zone(name: str) -> bool:
    """Tell whether this is an IANA time zone that the server knows."""
    return name in _zone_names()


def is_locale(tag: str) -> bool:
    """Tell whether this is a BCP 47 language tag."""
    return _LOCALE.match(tag) is not None


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("must carry its offset from UTC")
    return moment.astimezone(UTC)


_Printable = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
MetadataValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00]*\Z")]
Metadata = Annotated[
    Mapping[MetadataKey, MetadataValue],
    Field(max_length=MAX_METADATA_PAIRS),
    AfterValidator(lambda pairs: MappingProxyType(dict(pairs))),
    PlainSerializer(dict),
]
TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_zone)]
Locale = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_locale)]


class ClientInfo(BaseModel):
    """The program that calls; empty where it does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid", regex_engine="python-re")

    name: _Printable = ""
    version: _Printable = ""
    channel: _Printable = ""


class ContextClaim(BaseModel):
    """What a caller says of itself in the call's metadata. A claim: nothing here is trusted before it is checked.

    Raises pydantic's ValidationError when a field breaks the contract's grammar or limits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", regex_engine="python-re")

    user_id: UserId | Annotated[str, StringConstraints(max_length=0)] = ""
    metadata: Metadata = Field(default_factory=lambda: MappingProxyType({}))
    timestamp: Annotated[datetime, AfterValidator(_aware)] | None = None
    time_zone: TimeZone = ""
    locale: Locale = ""
    client: ClientInfo = ClientInfo()

    def at(self, timestamp: datetime | None) -> Self:
        """Return the same claim, made at `timestamp`, which is in UTC."""
        return self.model_copy(update={"timestamp": timestamp})


class RequestContext(BaseModel):
    """The checked context of one call, or of work done later in a user's name.

    `user_id` is the effective user: every row that is read or written is his. `principal` is the caller.
    `timestamp` is the server's clock at acceptance, in UTC. It is stored with background work as JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", regex_engine="python-re")

    user_id: UserId
    principal: Principal
    request_id: str
    timestamp: Annotated[datetime, AfterValidator(_aware)]
    metadata: Metadata = Field(default_factory=lambda: MappingProxyType({}))
    time_zone: TimeZone = "UTC"
    locale: Locale = "en"
    client: ClientInfo = ClientInfo()

    @classmethod
    def from_claim(
        cls, claim: ContextClaim, principal: Principal, *, request_id: str = "", now: datetime | None = None
    ) -> Self:
        """Bind a claim to the caller who was authenticated.

        Raises:
            ClockSkewError: the claim's timestamp is more than five minutes off `now`.
            UserMismatchError: the caller may not speak for the user the claim names.
        """
        now = datetime.now(UTC) if now is None else now.astimezone(UTC)
        if claim.timestamp is not None and abs(claim.timestamp - now) > MAX_CLOCK_SKEW:
            raise ClockSkewError(
                "the context's timestamp is more than 5 minutes off the server's clock",
                metadata={"server_time": now.isoformat(timespec="seconds").replace("+00:00", "Z")},
            )
        user_id = claim.user_id or principal.own_user_id
        if not principal.may_act_as(user_id):
            raise UserMismatchError("the context's user_id is not one this credential may speak for")
        # Without validating again: every part was when it was made, and this runs for every call.
        return cls.model_construct(
            user_id=user_id,
            principal=principal,
            request_id=request_id or new_id("req"),
            timestamp=now,
            metadata=claim.metadata,
            time_zone=claim.time_zone or "UTC",
            locale=claim.locale or "en",
            client=claim.client,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Raises pydantic's ValidationError on anything else."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Write the whole context as JSON, for work that outlives the call."""
        return self.model_dump_json()

    def get(self, key: str, default: str = "") -> str:
        """Return one metadata value."""
        return self.metadata.get(key, default)

    def with_metadata(self, **pairs: str) -> Self:
        """Return a copy with `pairs` added or replaced. Raises ValidationError over the limits."""
        merged = {**self.model_dump(), "metadata": {**self.metadata, **pairs}}
        return type(self).model_validate(merged)

    def with_defaults(self, *, time_zone: str, locale: str) -> Self:
        """Return a copy with a zone and a language that were checked before; an empty one leaves what is there."""
        # Both were checked when they were made, and this runs for every call: model_copy takes four times as long.
        copied = self.__copy__()
        copied.__dict__.update(time_zone=time_zone or self.time_zone, locale=locale or self.locale)
        return copied

    @property
    def scopes(self) -> frozenset[str]:
        """What may be done: what the credential allows, and for another user nothing that no user could do."""
        held = self.principal.scopes
        return held if self.user_id == self.principal.own_user_id else held - _OWN_ALONE

    def lacks(self, scopes: Iterable[str]) -> frozenset[str]:
        """Return those of these scopes that the call does not have."""
        return missing_scopes(scopes, self.scopes)

    @property
    def actors(self) -> tuple[str, ...]:
        """Who acts for the user, at most MAX_ACTORS: the one at work first, behind him who let him act, and so on.

        Empty when nobody does: the user is there himself, or a service in its own name.
        """
        principal = self.principal
        return principal.actors if self.user_id == principal.own_user_id else (principal.name, *principal.actors)

    @property
    def actor(self) -> str:
        """Who is at work: the first of the actors, or the caller himself."""
        return (*self.actors, self.principal.name)[0]

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The user's time zone."""
        return _UTC if self.time_zone == _UTC.key else zoneinfo.ZoneInfo(self.time_zone)
