"""The functions an expression may call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from parley_server.tools.builtin.arithmetic.number import MAX_EXPONENT, square_root
from parley_server.tools.errors import ToolError


@dataclass(frozen=True, slots=True)
class _Function:
    """A function and how many numbers it takes."""

    least: int
    most: int | None
    compute: Callable[[Sequence[Fraction]], Fraction]


def apply(name: str, arguments: Sequence[Fraction]) -> Fraction:
    """Call a function by name. Raises ToolError."""
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ToolError("unknown_function", f"There is no function {name!r}.", hint=f"Known: {', '.join(_FUNCTIONS)}.")
    if len(arguments) < function.least or (function.most is not None and len(arguments) > function.most):
        raise ToolError("invalid_expression", f"{name} does not take {len(arguments)} numbers.")
    return function.compute(arguments)


def _round(arguments: Sequence[Fraction]) -> Fraction:
    digits = arguments[1] if len(arguments) > 1 else Fraction(0)
    if digits.denominator != 1 or abs(digits) > MAX_EXPONENT:
        raise ToolError("invalid_expression", "round takes a whole, small number of digits.")
    return Fraction(round(arguments[0], digits.numerator))


_FUNCTIONS: Mapping[str, _Function] = MappingProxyType(
    {
        "sqrt": _Function(1, 1, lambda numbers: square_root(numbers[0])),
        "abs": _Function(1, 1, lambda numbers: abs(numbers[0])),
        "round": _Function(1, 2, _round),
        "min": _Function(1, None, min),
        "max": _Function(1, None, max),
    }
)
