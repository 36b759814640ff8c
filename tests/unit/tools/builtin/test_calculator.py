"""The calculator: exact, bounded, and nothing but arithmetic."""

import re
import time
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from parley_server.tools.builtin.arithmetic.number import MAX_BITS, SIGNIFICANT_DIGITS, written
from parley_server.tools.builtin.arithmetic.parser import MAX_EXPRESSION_CHARS, evaluate
from parley_server.tools.builtin.calculator import calculator
from parley_server.tools.errors import InvalidArgumentsError, ToolError
from parley_server.tools.tool import ToolContext
from unit.tools.user_context import context_of

CONTEXT = ToolContext(context_of(), run_id="run_1", call_id="call_1", idempotency_key="key", deadline=0.0)


async def test_the_tool_answers_with_expression_and_value() -> None:
    assert await calculator.call(CONTEXT, {"expression": "17 * 23"}) == {"expression": "17 * 23", "value": "391"}


async def test_an_overlong_expression_does_not_fit() -> None:
    with pytest.raises(InvalidArgumentsError):
        await calculator.call(CONTEXT, {"expression": "1" * (MAX_EXPRESSION_CHARS + 1)})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1+0.2", "0.3"),
        ("17 \N{MULTIPLICATION SIGN} 23", "391"),
        ("17x23 X 2", "782"),
        ("7 \N{DIVISION SIGN} 2", "3.5"),
        ("5 \N{MINUS SIGN} 7", "-2"),
        ("2^10", "1024"),
        ("2**3**2", "512"),
        ("-2**2", "-4"),
        ("2**-2", "0.25"),
        ("--3", "3"),
        ("10 - 3 - 2", "5"),
        ("2 + 3 * (4 - 1)", "11"),
        ("7 // -2", "-4"),
        ("-7 % 3", "2"),
        (".5 + 12.", "12.5"),
        ("1.5e3", "1500"),
        ("1/3", "0." + "3" * 30),
        ("2/3", "0." + "6" * 29 + "7"),
        ("sqrt(16/9)", "1." + "3" * 29),
        ("sqrt(144)", "12"),
        ("sqrt(2)", "1.41421356237309504880168872421"),
        ("sqrt(2)**2", "2"),
        ("27 ** (1/3)", "3"),
        ("round(2.5)", "2"),
        ("round(3.14159, 2)", "3.14"),
        ("round(1234, -2)", "1200"),
        ("ABS(-3) + max(1, 2, 3) - min(4, 5)", "2"),
        ("1e-300", "1E-300"),
        ("10 ** 40", "1" + "0" * 40),
        ("1 ** (10 ** 1000)", "1"),
        ("0 ** 0", "1"),
        ("\t1\n+ 1 ", "2"),
    ],
)
def test_values(expression: str, value: str) -> None:
    assert written(evaluate(expression)) == value


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("9**9**9", "number_too_large"),
        ("-9**9**9", "number_too_large"),
        ("9**9**-9**9", "number_too_large"),
        ("1e999999999", "number_too_large"),
        ("1e-999999999", "number_too_large"),
        ("9.5**99999.5", "number_too_large"),
        ("0.5**99999.5", "number_too_large"),
        ("1.0000001**(10**300+0.5)", "number_too_large"),
        ("9**999 * 9**999", "number_too_large"),
        ("round(1, 10**9)", "invalid_expression"),
        ("round(1, 0.5)", "invalid_expression"),
        ("1/0", "division_by_zero"),
        ("1//0", "division_by_zero"),
        ("1%(2-2)", "division_by_zero"),
        ("0**-1", "division_by_zero"),
        ("sqrt(-1)", "not_a_real_number"),
        ("(-8)**(1/3)", "not_a_real_number"),
        ("", "invalid_expression"),
        ("   ", "invalid_expression"),
        ("1 2", "invalid_expression"),
        ("1,000", "invalid_expression"),
        ("1_000", "invalid_expression"),
        ("0x10", "invalid_expression"),
        ("2 +", "invalid_expression"),
        ("(1", "invalid_expression"),
        ("1)", "invalid_expression"),
        ("sqrt 2", "invalid_expression"),
        ("sqrt()", "invalid_expression"),
        ("sqrt(1,2)", "invalid_expression"),
        ("1..2", "invalid_expression"),
        ("\u0663 + 1", "invalid_expression"),
        ("(" * 60 + "1" + ")" * 60, "invalid_expression"),
        ("2" + "**1" * 300, "invalid_expression"),
        ("1" * (MAX_EXPRESSION_CHARS + 1), "invalid_expression"),
        ("open('/etc/passwd')", "invalid_expression"),
        ("exit(1)", "unknown_function"),
        ("__import__('os').system('true')", "invalid_expression"),
        ("(lambda: 1)()", "invalid_expression"),
    ],
)
def test_errors_come_at_once(expression: str, code: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ToolError) as caught:
        evaluate(expression)
    assert caught.value.code == code
    assert time.perf_counter() - before < 0.5


NUMBERS = st.integers(0, 10**6).map(str) | st.decimals(0, 1000, allow_nan=False, places=3).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(inner, st.integers(-3, 3)).map(lambda pair: f"({pair[0]}) ** {pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, abs({pair[1]}))"),
    ),
    max_leaves=8,
)


def by_python(expression: str) -> Fraction:
    """Let Python evaluate the expression, every literal made a fraction."""
    literals = re.sub(r"\d+(\.\d+)?(?![\d.])", lambda match: f"F('{match.group()}')", expression)
    value: object = eval(literals, {"F": Fraction, "max": max, "abs": abs})  # noqa: S307  # our own generated text
    assert isinstance(value, Fraction | int)
    return Fraction(value)


@given(EXPRESSIONS)
def test_it_agrees_with_pythons_fractions(expression: str) -> None:
    assume(len(expression) <= MAX_EXPRESSION_CHARS)
    try:
        expected = by_python(expression)
    except ZeroDivisionError:
        with pytest.raises(ToolError):
            evaluate(expression)
        return
    assume(max(expected.numerator.bit_length(), expected.denominator.bit_length()) <= MAX_BITS)
    assert evaluate(expression) == expected


@given(st.fractions(max_denominator=10**9))
def test_what_is_written_is_exact_or_right_to_thirty_digits(number: Fraction) -> None:
    shown = Fraction(Decimal(written(number)))
    assert abs(shown - number) <= abs(number) / 10 ** (SIGNIFICANT_DIGITS - 1)
    if number * 10**20 == int(number * 10**20):
        assert shown == number


@given(st.text(alphabet="0123456789.+-*/%^()e, xsqrtmaxround", max_size=60))
def test_any_text_brings_a_value_or_a_tool_error(text: str) -> None:
    with suppress(ToolError):
        Decimal(written(evaluate(text)))
