"""What an operator says of the credentials of users."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from parley_server.domain.name_list import Names
from parley_server.domain.optional_path import OptionalPath
from parley_server.tools.credentials.source import is_slot

DIRECTORY_NAME = "credentials"
_PLACE = re.compile(r"file:/.+|env:[A-Za-z_][A-Za-z0-9_]*")


def _paired(value: object) -> object:
    """Read what the environment writes as SLOT=PLACE with commas between them."""
    if not isinstance(value, str):
        return value
    return dict(pair.strip().partition("=")[::2] for pair in value.split(",") if pair.strip())


def _checked_places(places: dict[str, str]) -> dict[str, str]:
    for slot, place in places.items():
        if not is_slot(slot):
            raise ValueError(f"{slot!r} is no slot: write a-z, 0-9, _ and -, at most 64")
        if not _PLACE.fullmatch(place):
            raise ValueError(f"{slot}: write file:/PATH or env:NAME; the secret itself does not belong here")
    return places


_Places = Annotated[dict[str, str], BeforeValidator(_paired), AfterValidator(_checked_places), Field(max_length=64)]


class CredentialSettings(BaseModel):
    """`[credentials]`: where the secrets of users are that tools work with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dir: OptionalPath = None
    """A directory with a file for each secret, `DIR/USER/SLOT`; empty: `credentials` in the data directory.
    `parley-server credentials` writes there. It is read for every call, so that a change counts at once."""

    shared: _Places = {}
    """Secrets that all users have alike who have none of their own: `shared = { maps = "file:/run/secrets/maps" }` or
    `env:NAME`; in the environment `maps=env:NAME` with commas between them. Every user's tools act with them, so give
    only what every user may do."""

    sources: Annotated[Names, Field(max_length=16)] = ()
    """Other places to look, in this order, after the directory and before what is shared: the names of entry points in
    the group `parley.credentials` of packages that are installed where the server is."""

    def directory(self, data_dir: Path) -> Path:
        """Return where the files are."""
        return self.dir or data_dir / DIRECTORY_NAME
