"""Arguments are untrusted: what is shown of them is harmless and hides nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_console.visible_text import argument_lines, visible


@given(st.text())
def test_what_is_visible_is_printable_and_plain_text_stays(text: str) -> None:
    shown = visible(text)
    assert not shown or shown.isprintable()
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größer 数 🙂", "größer 数 🙂"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u202eb\u200b\u2028", r"a\u202eb\u200b\u2028"),
        ("\u00a0\U000e0041", r"\xa0\U000e0041"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_arguments_have_a_line_each_and_nested_ones_more() -> None:
    arguments = {"to": "ann", "body": "one\ntwo", "options": {"copies": 2, "to": ["a"]}}
    assert argument_lines(json.dumps(arguments)) == [
        'to: "ann"',
        r'body: "one\ntwo"',
        "options: {",
        '  "copies": 2,',
        '  "to": [',
        '    "a"',
        "  ]",
        "}",
    ]


def test_a_name_cannot_look_like_more_than_one() -> None:
    assert argument_lines(json.dumps({'to: "ann"\nbody': 1})) == [r'"to: \"ann\"\nbody": 1']


@pytest.mark.parametrize(
    "text",
    ["", "no json\x1b", "[1]", "[" * 100_000, '{"a": ' * 5_000, "1" * 5_000, '{"a": ' + "[" * 980 + "]" * 980 + "}"],
)
def test_what_is_no_object_is_shown_as_it_is(text: str) -> None:
    assert argument_lines(text) == [visible(text)]


@given(st.text(), st.text())
def test_no_argument_has_a_character_that_does_not_show(name: str, value: str) -> None:
    lines = argument_lines(json.dumps({name: value, "nested": {name: [value]}}, ensure_ascii=False))
    assert all(line.isprintable() for line in lines)
