"""`/account` and `parley account`: what the user has told of himself, all that the server has of him, and its end."""

import re
from collections.abc import Mapping
from typing import Final

from parley_client import Account, NotAuthenticatedError, ParleyClient, QuietHours

from parley_console.lines import Lines
from parley_console.screen import Style
from parley_console.visible_text import visible

_FIELDS: Final = {"name": "display_name", "zone": "time_zone", "locale": "locale"}
_QUIET: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)")


def quiet_hours_of(text: str) -> QuietHours:
    """Read `22:00-7:00`. Raises ValueError for anything else."""
    found = _QUIET.fullmatch(text.strip())
    if found is None:
        raise ValueError("write quiet hours as 22:00-7:00")
    start_hour, start, end_hour, end = map(int, found.groups())
    return QuietHours(start_minute=60 * start_hour + start, end_minute=60 * end_hour + end)


class AccountCommands:
    """Shows and changes the account. Every method raises ParleyError."""

    def __init__(self, client: ParleyClient, lines: Lines) -> None:
        self._client = client
        self._lines = lines

    async def obey(self, argument: str) -> None:
        """Do what was typed after `/account`."""
        verb, _, value = argument.partition(" ")
        value = value.strip()
        if not verb:
            await self.show()
        elif verb in _FIELDS:
            await self.set({_FIELDS[verb]: value})
        elif verb == "quiet" and (not value or _QUIET.fullmatch(value)):
            await self.set({}, quiet_hours_of(value) if value else None, no_quiet_hours=not value)
        else:
            self._lines.line("/account [name NAME | zone ZONE | locale TAG | quiet HH:MM-HH:MM]", Style.DIM)

    async def show(self) -> None:
        """Write the account, a line for each field."""
        self._tell(await self._client.account.get())

    async def set(
        self, texts: Mapping[str, str], quiet_hours: QuietHours | None = None, *, no_quiet_hours: bool = False
    ) -> None:
        """Change fields by their names in the contract, and write the account as it is then."""
        changed = await self._client.account.update(
            display_name=texts.get("display_name"),
            time_zone=texts.get("time_zone"),
            locale=texts.get("locale"),
            quiet_hours=quiet_hours,
            no_quiet_hours=no_quiet_hours,
        )
        self._tell(changed)

    async def export(self) -> None:
        """Write all that the server has of the user, as lines of JSON."""
        async for line in self._client.account.export():
            self._lines.line(line)

    async def user_id(self) -> str:
        """Return who the server takes the user for."""
        return (await self._client.account.get()).user_id

    async def erase(self, user_id: str, confirmation: str) -> None:
        """Erase all that the server has of a user, and wait until nothing is left."""
        is_over = await self._client.account.erase(user_id, confirmation=confirmation)
        try:
            while not is_over:
                self._lines.line("it goes on; you need not wait", Style.DIM)
                is_over = await self._client.account.erase(user_id, confirmation=confirmation)
        except NotAuthenticatedError:
            # The key that this was asked with went with the rest.
            pass
        self._lines.line(f"nothing is left of {visible(user_id)}")

    def _tell(self, account: Account) -> None:
        told = {
            "user": account.user_id,
            "name": account.display_name or "-",
            "zone": account.time_zone or "UTC, unless the client says otherwise",
            "locale": account.locale or "en, unless the client says otherwise",
            "quiet": _hours(account.quiet_hours) if account.HasField("quiet_hours") else "-",
        }
        for name, value in told.items():
            self._lines.line(f"{name:<7} {visible(value)}")


def _hours(hours: QuietHours) -> str:
    return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (hours.start_minute, hours.end_minute))
