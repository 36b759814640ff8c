"""Exact numbers (fractions) of bounded size, and how they are written."""

import math
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow, Underflow
from fractions import Fraction

from parley_server.tools.errors import ToolError

MAX_BITS = 4096
MAX_EXPONENT = 1200
SIGNIFICANT_DIGITS = 30

# Roots and fractional powers have no exact value: these digits are right, and more than are ever shown.
_ROUGH = Context(
    prec=60,
    Emax=2 * MAX_EXPONENT,
    Emin=-2 * MAX_EXPONENT,
    traps=[DivisionByZero, InvalidOperation, Overflow, Underflow],
)
_SHOWN = Context(prec=SIGNIFICANT_DIGITS)
_EXACT = Context(prec=50)
_LEAST_PLAIN_EXPONENT = -20


def bounded(number: Fraction) -> Fraction:
    """Return a number that is not too large to go on with. Raises ToolError otherwise."""
    if number.numerator.bit_length() > MAX_BITS or number.denominator.bit_length() > MAX_BITS:
        raise too_large()
    return number


def too_large() -> ToolError:
    """Make the error for a number beyond about 1200 digits."""
    return ToolError("number_too_large", "A number in the calculation has more than about 1200 digits.")


def literal(digits: str) -> Fraction:
    """Read a number such as `12`, `0.5` or `1.5e3`. Raises ToolError."""
    _, _, exponent = digits.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise too_large()
    return bounded(Fraction(digits))


def quotient(left: Fraction, right: Fraction) -> Fraction:
    """Divide. Raises ToolError."""
    return left / _divisor(right)


def floor_quotient(left: Fraction, right: Fraction) -> Fraction:
    """Divide and round down. Raises ToolError."""
    return Fraction(left // _divisor(right))


def remainder(left: Fraction, right: Fraction) -> Fraction:
    """Return what floor division leaves; its sign is the divisor's. Raises ToolError."""
    return left % _divisor(right)


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """Raise to a power: exactly for a whole exponent, to 60 digits for a fractional one. Raises ToolError."""
    if base == 0 and exponent < 0:
        raise ToolError("division_by_zero", "Zero has no negative power.")
    if exponent.denominator != 1:
        return _rough_power(base, exponent)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if (bits - 1) * abs(exponent.numerator) > MAX_BITS:
        raise too_large()
    return base**exponent.numerator


def square_root(number: Fraction) -> Fraction:
    """Return the root, exactly where there is one, else to 60 digits. Raises ToolError."""
    if number < 0:
        raise ToolError("not_a_real_number", "A negative number has no real square root.")
    root = Fraction(math.isqrt(number.numerator), math.isqrt(number.denominator))
    if root * root == number:
        return root
    return Fraction(_decimal(number, _ROUGH).sqrt(_ROUGH))


def written(number: Fraction) -> str:
    """Write a number in decimal digits, exactly where they end early enough, else to 30 significant digits."""
    if number.denominator == 1:
        return str(number.numerator)
    exact = _decimal(number, _EXACT)
    if Fraction(exact) != number:
        return str(_decimal(number, _SHOWN).normalize(_SHOWN))
    return f"{exact:f}" if exact.adjusted() >= _LEAST_PLAIN_EXPONENT else str(exact)


def _rough_power(base: Fraction, exponent: Fraction) -> Fraction:
    if base < 0:
        raise ToolError("not_a_real_number", "A negative number has no real power with a fractional exponent.")
    try:
        value = _ROUGH.power(_decimal(base, _ROUGH), _decimal(exponent, _ROUGH))
    except DecimalException as error:
        raise too_large() from error
    return bounded(Fraction(value))


def _decimal(number: Fraction, context: Context) -> Decimal:
    return context.divide(Decimal(number.numerator), Decimal(number.denominator))


def _divisor(number: Fraction) -> Fraction:
    if number == 0:
        raise ToolError("division_by_zero", "The expression divides by zero.")
    return number
