"""Text that no rule of the protos can hold to account."""

from collections.abc import Iterable, Mapping

from parley_server.domain.errors import InvalidRequestError, Violation


def refuse_nul(fields: Mapping[str, Iterable[str]]) -> None:
    """Refuse NUL, which not every store takes; texts by the path of their field. Raises InvalidRequestError."""
    faults = [
        Violation(field, "must not contain NUL")
        for field, texts in fields.items()
        if any("\0" in text for text in texts)
    ]
    if faults:
        raise InvalidRequestError.of_all(faults)


def texts_of(pairs: Mapping[str, str]) -> Iterable[str]:
    """Return the keys and the values of a map."""
    return (*pairs.keys(), *pairs.values())
