"""The rows of the live area."""

from hypothesis import given
from hypothesis import strategies as st
from parley_console.reflow import reflows
from parley_console.word_wrap import last_rows, wrap_line
from prompt_toolkit.utils import get_cwidth


def test_rows_end_between_words_and_only_long_words_are_cut() -> None:
    assert list(wrap_line("one two three", 8)) == ["one two", "three"]
    assert list(wrap_line("incomprehensible", 8)) == ["incompre", "hensible"]
    assert list(wrap_line("漢字漢字", 5)) == ["漢字", "漢字"]
    assert list(wrap_line("", 5)) == [""]


def test_only_the_last_rows_are_wanted() -> None:
    assert last_rows("a\nb\n\tc\n", 10, 2) == ["b", "    c"]
    assert last_rows("a\n", 10, 0) == []
    assert last_rows("", 10, 3) == []


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]) | st.just(" ")), st.integers(2, 30))
def test_no_row_is_too_wide_and_no_word_is_lost(line: str, columns: int) -> None:
    rows = list(wrap_line(line, columns))
    assert all(get_cwidth(row) <= columns for row in rows)
    assert "".join("".join(rows).split()) == "".join(line.split())


def test_terminals_wrap_anew_but_for_a_few_old_ones() -> None:
    assert reflows({"TERM": "xterm-256color"})
    assert not reflows({"TERM": "xterm", "XTERM_VERSION": "XTerm(379)"})
    assert not reflows({"TERM": "screen", "STY": "1.pts-0"})
    assert not reflows({"TERM": "rxvt-unicode"})
