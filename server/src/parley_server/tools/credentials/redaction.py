"""Takes secrets that a tool was given out of what it says: a model, a user and a log have no use for them."""

from collections.abc import Collection

from pydantic import SecretStr

REDACTED = "[secret]"
# A shorter one may stand in any text by chance.
MIN_CHARS = 6


def redacted(text: str, secrets: Collection[SecretStr]) -> str:
    """Return a text without these secrets."""
    for secret in secrets:
        value = secret.get_secret_value()
        if len(value) >= MIN_CHARS:
            text = text.replace(value, REDACTED)
    return text
