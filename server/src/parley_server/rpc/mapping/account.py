"""Accounts on the wire."""

from parley.v1 import account_pb2 as pb
from parley.v1 import account_service_pb2 as service_pb

from parley_server.domain.account import CHANGEABLE, Account, AccountChanges, QuietHours
from parley_server.domain.context import is_locale, is_time_zone
from parley_server.domain.errors import InvalidRequestError, Violation
from parley_server.rpc.mapping.text import refuse_nul
from parley_server.rpc.mapping.timestamps import optional_timestamp


def write_account(account: Account) -> pb.Account:
    """Return an account as it stands."""
    hours = account.quiet_hours
    return pb.Account(
        user_id=account.user_id,
        display_name=account.display_name,
        time_zone=account.time_zone,
        locale=account.locale,
        quiet_hours=None
        if hours is None
        else pb.QuietHours(start_minute=hours.start_minute, end_minute=hours.end_minute),
        create_time=optional_timestamp(account.create_time),
        update_time=optional_timestamp(account.update_time),
        etag=account.etag,
    )


def read_account_changes(request: service_pb.UpdateAccountRequest) -> AccountChanges:
    """Return what the mask names. Raises InvalidRequestError for another path, and for a value that is none."""
    named, given = frozenset(request.update_mask.paths), request.account
    # The rule on the mask lets what is inside of these pass.
    if not named <= CHANGEABLE:
        raise InvalidRequestError.of("update_mask", f"must name only {', '.join(sorted(CHANGEABLE))}")
    refuse_nul({"account.display_name": [given.display_name if "display_name" in named else ""]})
    if faults := list(_faults(named, given)):
        raise InvalidRequestError.of_all(faults)
    hours = given.quiet_hours
    return AccountChanges(
        named,
        given.display_name,
        given.time_zone,
        given.locale,
        QuietHours(hours.start_minute, hours.end_minute) if given.HasField("quiet_hours") else None,
    )


def _faults(named: frozenset[str], given: pb.Account) -> list[Violation]:
    """Return what is wrong with the values that the mask names."""
    hours = given.quiet_hours
    wrong = {
        "time_zone": (given.time_zone and not is_time_zone(given.time_zone), "is not an IANA time zone"),
        "locale": (given.locale and not is_locale(given.locale), "is not a BCP 47 language tag"),
        "quiet_hours": (
            given.HasField("quiet_hours") and hours.start_minute == hours.end_minute,
            "must not begin and end at the same minute",
        ),
    }
    return [
        Violation(f"account.{name}", fault) for name, (is_wrong, fault) in wrong.items() if name in named and is_wrong
    ]
