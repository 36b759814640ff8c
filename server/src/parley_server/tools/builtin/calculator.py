"""The tool `calculator`: exact arithmetic."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.tool import ToolEffect
from parley_server.tools.builtin.arithmetic.number import written
from parley_server.tools.builtin.arithmetic.parser import MAX_EXPRESSION_CHARS, evaluate
from parley_server.tools.tool import ToolContext, tool


class CalculatorArguments(BaseModel):
    """What to calculate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expression: Annotated[
        str,
        Field(min_length=1, max_length=MAX_EXPRESSION_CHARS, description="For example: (17 * 23) / 4 or sqrt(2) ** 3"),
    ]


class CalculatorResult(BaseModel):
    """The expression and its value in decimal digits."""

    expression: str
    value: str


@tool(effect=ToolEffect.READ, timeout_s=5.0)
async def calculator(context: ToolContext, arguments: CalculatorArguments) -> CalculatorResult:  # noqa: ARG001
    """Calculate an arithmetic expression exactly.

    Knows + - * / // % ** and parentheses, and the functions sqrt(x), abs(x), round(x), round(x, digits),
    min(...) and max(...). round takes a half to the even neighbour. A value whose digits do not end is given
    to 30 significant digits.
    """
    return CalculatorResult(expression=arguments.expression, value=written(evaluate(arguments.expression)))
