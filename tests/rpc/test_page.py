"""Pages: sizes, and lists that are in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.errors import PageTokenInvalidError
from parley_server.rpc.mapping.page import MAX_PAGE_BYTES, page_of, read_page
from parley_server.storage.page import PageRequest


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (200, 200), (201, 200), (2**31 - 1, 200)])
def test_a_size_is_the_default_or_at_most_the_maximum(asked: int, given_: int) -> None:
    assert read_page(asked, "t") == PageRequest(given_, "t")


@given(st.dictionaries(st.text(min_size=1), st.integers()), st.integers(1, 5))
def test_the_pages_are_the_whole_list_in_order(items: dict[str, int], size: int) -> None:
    pages, token = [], ""
    while True:
        page = page_of(items, PageRequest(size, token))
        pages.append(page.items)
        token = page.next_token
        if not token:
            break
    assert [item for page in pages for item in page] == [items[key] for key in sorted(items)]
    assert all(len(page) == size for page in pages[:-1])


@pytest.mark.parametrize(
    ("sizes", "pages"),
    [
        ([MAX_PAGE_BYTES, 1], [1, 1]),
        ([1, MAX_PAGE_BYTES], [1, 1]),
        ([MAX_PAGE_BYTES + 1, MAX_PAGE_BYTES * 2], [1, 1]),
        ([MAX_PAGE_BYTES // 2] * 4, [2, 2]),
    ],
)
def test_a_page_ends_before_it_is_too_large_and_is_never_empty(sizes: list[int], pages: list[int]) -> None:
    items = {f"key {place}": size for place, size in enumerate(sizes)}
    counted: list[int] = []
    token = ""
    while not counted or token:
        page = page_of(items, PageRequest(10, token), int)
        counted.append(len(page.items))
        token = page.next_token
    assert counted == pages


@given(st.text(min_size=1))
def test_any_other_token_is_refused_or_names_a_place(token: str) -> None:
    try:
        page = page_of({"a": 1}, PageRequest(1, token))
    except PageTokenInvalidError:
        return
    assert page.items in ((), (1,))
