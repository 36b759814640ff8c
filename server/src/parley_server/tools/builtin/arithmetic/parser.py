"""Reads and evaluates an arithmetic expression: a small precedence climber that knows numbers and nothing else."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from parley_server.tools.builtin.arithmetic import number
from parley_server.tools.builtin.arithmetic.functions import apply
from parley_server.tools.errors import ToolError

MAX_EXPRESSION_CHARS = 1000
MAX_NESTING = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z]+)|(?P<sign>\*\*|//|[-+*/%^(),]))",
    re.ASCII,
)
# `x` means times, so this would be read as zero times something.
_BASED_LITERAL = re.compile(r"(?<![\d.])0[xX][0-9A-Fa-f]")
_SPELLINGS = MappingProxyType(
    {
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{MIDDLE DOT}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{MINUS SIGN}": "-",
        "x": "*",
        "X": "*",
        "^": "**",
    }
)


@dataclass(frozen=True, slots=True)
class _Operator:
    """A sign between two numbers; the tighter one binds first."""

    tightness: int
    compute: Callable[[Fraction, Fraction], Fraction]


_OPERATORS: Mapping[str, _Operator] = MappingProxyType(
    {
        "+": _Operator(1, lambda left, right: left + right),
        "-": _Operator(1, lambda left, right: left - right),
        "*": _Operator(2, lambda left, right: left * right),
        "/": _Operator(2, number.quotient),
        "//": _Operator(2, number.floor_quotient),
        "%": _Operator(2, number.remainder),
    }
)
_LOOSEST = 1


def evaluate(expression: str) -> Fraction:
    """Return the exact value of an expression (roots and fractional powers: to 60 digits).

    Bounded in length, nesting and digits, so it answers at once whatever it is given. Raises ToolError.
    """
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise _invalid(f"The expression is longer than {MAX_EXPRESSION_CHARS} characters.")
    parser = _Parser(_tokens(expression))
    value = parser.binary(_LOOSEST, 0)
    parser.expect_end()
    return value


def _invalid(message: str) -> ToolError:
    hint = "Use numbers, + - * / // % **, parentheses, and sqrt, abs, round, min, max."
    return ToolError("invalid_expression", message, hint=hint)


def _tokens(expression: str) -> list[str]:
    text = "".join(_SPELLINGS.get(char, char) if not char.isascii() else char for char in expression).rstrip()
    if _BASED_LITERAL.search(text):
        raise _invalid("Numbers are decimal.")
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _invalid(f"There is something unreadable at {text[position : position + 10].strip()!r}.")
        token = match.group(match.lastgroup or 0)
        tokens.append(_SPELLINGS.get(token, token))
        position = match.end()
    return tokens


class _Parser:
    """The tokens and how far they are read."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0

    def expect_end(self) -> None:
        if self._position < len(self._tokens):
            raise _invalid(f"{self._peek()!r} is out of place.")

    def binary(self, tightness: int, depth: int) -> Fraction:
        """Read a chain of operators that bind at least this tightly."""
        if depth > MAX_NESTING:
            raise _invalid("The expression is nested too deep.")
        left = self._unary(depth)
        while (operator := _OPERATORS.get(self._peek())) is not None and operator.tightness >= tightness:
            self._take()
            right = self.binary(operator.tightness + 1, depth + 1)
            left = number.bounded(operator.compute(left, right))
        return left

    def _unary(self, depth: int) -> Fraction:
        negative = False
        while self._peek() in {"+", "-"}:
            negative ^= self._take() == "-"
        value = self._power(depth)
        return -value if negative else value

    def _power(self, depth: int) -> Fraction:
        """Read `a ** b`: right to left, tighter than a sign before it, looser than one after it."""
        base = self._atom(depth)
        if self._peek() != "**":
            return base
        self._take()
        if depth > MAX_NESTING:
            raise _invalid("The expression is nested too deep.")
        return number.bounded(number.power(base, self._unary(depth + 1)))

    def _atom(self, depth: int) -> Fraction:
        symbol = self._take()
        if symbol == "(":
            value = self.binary(_LOOSEST, depth + 1)
            self._expect(")")
            return value
        if symbol[:1].isdigit() or symbol.startswith("."):
            return number.literal(symbol)
        if symbol.isalpha():
            return self._call(symbol, depth)
        raise _invalid(f"A number is missing before {symbol!r}." if symbol else "The expression ends too early.")

    def _call(self, name: str, depth: int) -> Fraction:
        self._expect("(")
        arguments = [self.binary(_LOOSEST, depth + 1)]
        while self._peek() == ",":
            self._take()
            arguments.append(self.binary(_LOOSEST, depth + 1))
        self._expect(")")
        return number.bounded(apply(name.lower(), arguments))

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _invalid(f"A {token!r} is missing.")
