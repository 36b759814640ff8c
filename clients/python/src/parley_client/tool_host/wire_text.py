"""Text of tools as a message can carry it: some of a name that is no UTF-8, as Python reads it, would break it."""


def wire_text(text: str, max_chars: int) -> str:
    """Return at most so many characters, with U+FFFD for every half of a pair that has lost the other."""
    return text[:max_chars].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
