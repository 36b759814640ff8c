"""What reaches a terminal is harmless; what reaches a pipe is exact."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_console.screen import Nowhere, Screen, Style, printable
from unit.console.fake_terminal import TerminalStream, pipe, plain_terminal

OBEYED = [chr(code) for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"]


@given(st.text(alphabet=st.one_of(st.sampled_from(OBEYED), st.characters(codec="utf-8"))))
def test_nothing_a_terminal_obeys_gets_through(text: str) -> None:
    screen, stream = plain_terminal()
    screen.write(text)
    assert not set(stream.getvalue()) & set(OBEYED)
    assert stream.getvalue() == "".join(character for character in text if character not in OBEYED)


def test_an_escape_sequence_loses_its_teeth() -> None:
    assert printable("\x1b]52;c;cm0gLXJm\x07red\x1b[31m\r\x9b2J\n\tend") == "]52;c;cm0gLXJmred[31m2J\n\tend"


def test_a_pipe_gets_every_character() -> None:
    screen, stream = pipe()
    screen.write("a\x1b[31m\r\x00b", Style.RED)
    assert stream.getvalue() == "a\x1b[31m\r\x00b"


@pytest.mark.parametrize(
    ("environment", "written"),
    [
        ({}, "\x1b[31mred\x1b[0m\n"),
        ({"NO_COLOR": ""}, "\x1b[31mred\x1b[0m\n"),
        ({"NO_COLOR": "1"}, "red\n"),
        ({"TERM": "dumb"}, "red\n"),
    ],
)
def test_colours_are_for_terminals_that_want_them(environment: dict[str, str], written: str) -> None:
    stream = TerminalStream()
    Screen(stream, environment).line("red", Style.RED)
    assert stream.getvalue() == written


def test_a_line_begins_on_a_line_of_its_own() -> None:
    screen, stream = plain_terminal()
    screen.write("half")
    screen.line("whole")
    screen.line("next")
    screen.end_line()
    assert stream.getvalue() == "half\nwhole\nnext\n"


def test_characters_the_terminal_lacks_become_question_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    Screen(stream, {}).write("⚙ größer → 391")
    assert raw.getvalue() == "? größer ? 391".encode("latin-1")


def test_nowhere_takes_everything() -> None:
    nowhere = Nowhere()
    nowhere.write("text")
    nowhere.line("line", Style.RED)
    assert nowhere.at_line_start
