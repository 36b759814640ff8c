"""Pages of lists."""

import base64
import binascii
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TypeVar

from parley_server.domain.errors import PageTokenInvalidError
from parley_server.storage.page import Page, PageRequest

T = TypeVar("T")

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200
MAX_PAGE_BYTES = 2 * 1024 * 1024


def read_page(page_size: int, page_token: str) -> PageRequest:
    """Return the page a request asks for; a size of 0 means the default, one above the maximum the maximum."""
    return PageRequest(min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE), page_token)


def _no_size(_item: object) -> int:
    return 0


def _write_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _read_token(token: str) -> str:
    try:
        key = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenInvalidError from None
    # Base64 reads more than one text as the same bytes.
    if token != _write_token(key):
        raise PageTokenInvalidError
    return key


def page_of(
    items: Mapping[str, T],
    page: PageRequest,
    size_of: Callable[[T], int] = _no_size,
    *,
    read: Callable[[str], str] = _read_token,
    write: Callable[[str], str] = _write_token,
) -> Page[T]:
    """Return a page of what is in memory, ordered by key.

    `size_of` tells what an item takes in bytes on the wire, where that may be much: a page ends before MAX_PAGE_BYTES.
    `write` makes a token of a key, and `read` a key of a token, an empty one of an empty one; those that are given bind
    the tokens of a list to its caller. Without them a list has to be the same for everybody.

    Raises:
        PageTokenInvalidError: the token is not one of this list's.
    """
    after = read(page.token)
    keys = sorted(key for key in items if key > after)
    sizes = accumulate(size_of(items[key]) for key in keys[: page.size])
    shown = keys[: max(1, sum(size <= MAX_PAGE_BYTES for size in sizes))]
    next_token = write(shown[-1]) if len(keys) > len(shown) else ""
    return Page(tuple(items[key] for key in shown), next_token)
