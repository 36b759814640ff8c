"""The arguments of a call as models write them, well and badly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.tools.arguments import MAX_ARGUMENTS_BYTES, parse_arguments


@pytest.mark.parametrize("text", ['{"a":1}', ' { "a" : 1.10 }\n', "{}", '{"ä":"😀"}'])
def test_good_arguments_keep_the_models_own_characters(text: str) -> None:
    arguments = parse_arguments(text)
    assert arguments.text == text
    assert arguments.value == json.loads(text)
    assert arguments.problem == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not valid JSON"),
        ('{"a":', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('"a"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "Infinity"),
        ('{"a":1e999}', "NaN and infinity"),
        ('{"a":' + "[" * 100_000, "not valid JSON"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested deeper"),
        ('{"a":"\x00"}', "not valid JSON"),
        ('{"a":' + "1" * 5000 + "}", "not valid JSON"),
        ('{"a":"' + "x" * MAX_ARGUMENTS_BYTES + '"}', "longer than"),
        ('{"a":"' + "ä" * (MAX_ARGUMENTS_BYTES - 100) + '"}', "longer than"),
    ],
)
def test_bad_arguments_become_an_empty_object_with_a_problem(text: str, problem: str) -> None:
    arguments = parse_arguments(text)
    assert (arguments.value, arguments.text) == ({}, "{}")
    assert problem in arguments.problem


def test_characters_that_nothing_stores_are_replaced() -> None:
    arguments = parse_arguments('{"a\\u0000":["\\ud800","b"]}')
    assert arguments.value == {"a\ufffd": ["\ufffd", "b"]}
    assert json.loads(arguments.text) == arguments.value


@given(st.text())
def test_whatever_the_model_writes_an_object_is_told(text: str) -> None:
    arguments = parse_arguments(text)
    assert json.loads(arguments.text) == arguments.value
    assert isinstance(arguments.value, dict)
    arguments.text.encode()
