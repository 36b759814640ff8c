"""Ids of credentials that are no API keys. They are chosen elsewhere, and none may be taken for a key's."""

import hashlib

MAX_CHARS = 128


def credential_id(scheme: str, name: str) -> str:
    """Return `scheme:name`, which no id of a key is; what stands for it where it is longer than MAX_CHARS."""
    full = f"{scheme}:{name}"
    return full if len(full) <= MAX_CHARS else f"sha256:{hashlib.sha256(full.encode()).hexdigest()}"
