"""Whether a call that failed is made again before the model hears of it, and after how long."""

import random

from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.tools.errors import ToolError, ToolFailedError
from parley_server.tools.limits import MAX_RETRIES

FIRST_CEILING_S = 0.2

_jitter = random.Random()  # noqa: S311  # no secret


def retries_of(tool: ToolSpec) -> int:
    """Return how often a call of this tool may be made again: a WRITE never, whatever its author has written."""
    return 0 if tool.effect is ToolEffect.WRITE else min(tool.max_retries, MAX_RETRIES)


def delay_s(error: ToolError, done: int) -> float | None:
    """Return the seconds to wait before the next try, `done` of which were made; None where none could help.

    Full jitter: those who failed together do not come back together.
    """
    if not (error.retryable or isinstance(error, ToolFailedError)):
        return None
    return _jitter.uniform(0, FIRST_CEILING_S * 2**done)
