"""The account: what a user has told of himself once, for all his clients."""

from dataclasses import dataclass
from datetime import datetime

from parley_server.domain.access_errors import ScopeMissingError
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError
from parley_server.domain.principal import ADMIN_SCOPE


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When the user wants no notifications, in minutes after midnight of his zone; over midnight where end < start."""

    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it stands; without times when nothing was ever set in it.

    An empty `time_zone` is UTC, an empty `locale` is `en`.
    """

    user_id: str
    display_name: str = ""
    time_zone: str = ""
    locale: str = ""
    quiet_hours: QuietHours | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = "0"


CHANGEABLE = frozenset({"display_name", "locale", "quiet_hours", "time_zone"})


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """The new values of the fields in `named`, which are some of CHANGEABLE; the others stay as they are."""

    named: frozenset[str]
    display_name: str = ""
    time_zone: str = ""
    locale: str = ""
    quiet_hours: QuietHours | None = None


@dataclass(frozen=True, slots=True)
class AccountDefaults:
    """What calls get that do not say otherwise: the account's zone and language, empty where it has none."""

    time_zone: str = ""
    locale: str = ""


def erasable_user(context: RequestContext, user_id: str, confirmation: str) -> str:
    """Return the user whose account the caller may erase, which is `user_id`.

    Raises:
        InvalidRequestError: the confirmation is not that user.
        ScopeMissingError: it is not the effective user, and the caller is no administrator.
    """
    if confirmation != user_id:
        raise InvalidRequestError.of("confirmation", "is not user_id once more")
    if user_id != context.user_id and ADMIN_SCOPE not in context.scopes:
        raise ScopeMissingError(
            f"to erase another user's account the credential lacks the scope {ADMIN_SCOPE}",
            metadata={"scope": ADMIN_SCOPE},
        )
    return user_id
