"""Users' ids as names of directories: no two alike, also where a file system takes capitals for small letters."""

import hashlib
import re
from urllib.parse import unquote

# Percent-encoded in small letters, most ids fit; of others there is a hash, which no encoded id looks like.
MAX_NAME_CHARS = 200
_HASHED = "%sha256-"
_PLAIN = re.compile(r"[^a-z0-9._@+-]")


def directory_name(user_id: str) -> str:
    """Return the name of a user's directory."""
    name = _PLAIN.sub(lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), user_id)
    if name.endswith("."):
        name = f"{name[:-1]}%2e"
    if len(name) > MAX_NAME_CHARS:
        return _HASHED + hashlib.sha256(user_id.encode()).hexdigest()
    return name


def user_of(name: str) -> str | None:
    """Return whose directory has this name; None for one that is no user's, or whose user it does not tell."""
    user_id = unquote(name)
    return user_id if directory_name(user_id) == name else None
