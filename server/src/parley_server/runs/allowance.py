"""What one run may spend: held in the store before each call of its model, where a limit is on that."""

from collections.abc import Callable

from parley_server.domain.context import RequestContext
from parley_server.domain.usage import Usage
from parley_server.quotas.quotas import Quotas
from parley_server.storage.run_log import RunAppender


class RunAllowance:
    """Implements `Allowance`."""

    def __init__(self, quotas: Quotas, context: RequestContext, appender: RunAppender) -> None:
        self._quotas = quotas
        self._context = context
        self._appender = appender

    async def reserve(self, model: str, estimate: Callable[[], Usage]) -> None:
        """Hold what a call may come to; see `Allowance.reserve`."""
        if limits := self._quotas.spending_limits(self._context, model):
            await self._appender.hold(model, estimate(), limits)

    def release(self) -> None:
        """Give back what is held; see `Allowance.release`."""
        self._appender.release_hold()
