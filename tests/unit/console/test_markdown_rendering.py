"""How a finished block looks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_console.markdown_rendering import render_block
from prompt_toolkit.utils import get_cwidth


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("## Two\n", "Two"),
        ("**bold** and `code`\n", "bold and code"),
        ("one two three four\n", "one two three\nfour"),
        ("- a\n- b\n", " • a\n • b"),
        ("```python\nif x:\n    y\n```\n", "if x:\n    y"),
        ("    indented\n", "indented"),
        ("[a](http://x)\n", "a (http://x)"),
        ("<b>html</b>\n", "<b>html</b>"),
        ("[a]: http://x\n", "[a]: http://x"),
        ("![a](http://x)\n", "!a (http://x)"),
        ("[bold]no markup[/] :smile:\n", "[bold]no\nmarkup[/]\n:smile:"),
    ],
)
def test_blocks_lose_their_marks_and_nothing_else(source: str, shown: str) -> None:
    assert render_block(source, 15, colours=False) == shown


def test_colours_are_codes_that_end() -> None:
    assert render_block("**bold**\n", 20, colours=True) == "\x1b[1mbold\x1b[0m"
    assert not re.search(r" (\x1b\[0m)?$", render_block("> quote\n", 20, colours=True), re.MULTILINE)


@given(st.lists(st.text(alphabet="abcßé漢", min_size=1, max_size=9), min_size=1), st.integers(20, 60))
def test_words_are_kept_whole_and_in_order(words: list[str], columns: int) -> None:
    shown = render_block(" ".join(words), columns, colours=False)
    assert shown.split() == words
    assert all(get_cwidth(row) <= columns for row in shown.split("\n"))
