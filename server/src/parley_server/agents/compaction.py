"""Conversations that outgrow the model's window: a summary takes the place of their oldest turns.

The rule is in docs/guides/long-conversations.md.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import structlog

from parley_server.agents.base import Turn
from parley_server.agents.history import model_messages, shown
from parley_server.agents.model_step import ModelStep
from parley_server.agents.request_size import TokenCount, size_of, size_of_request
from parley_server.agents.summary import MAX_SUMMARY_BYTES, Unheard, cut, question, without_summary
from parley_server.agents.turn_end import output_cap
from parley_server.domain.errors import Reason
from parley_server.domain.identifiers import new_id
from parley_server.domain.message import Message, SummaryItem, UserItem
from parley_server.domain.run import Limits, ModelOptions
from parley_server.domain.run_event import EventSink, HistoryCompacted, UsageUpdated
from parley_server.domain.usage import ModelUse, Usage
from parley_server.llm.model_catalog import Profiles
from parley_server.llm.model_service import ModelError, ModelRequest
from parley_server.llm.provider_profiles import ProviderProfile

_LIMIT = 0.8
_TARGET = 0.5
_SUMMARY = 0.125
# Of a window, whatever is kept free for the answer.
_LEAST_ROOM = 0.25
_BYTES_PER_WORD = 7
# Of the tokens a run may still say.
_SUMMARY_OF_OUTPUT = 0.25

Ask = Callable[[ModelRequest, EventSink], Awaitable[ModelStep]]
Consumed = Callable[[ModelStep, ModelRequest], Usage]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a request may come to, in tokens: above `limit` it is brought down to `target`, of which a `summary` is."""

    limit: float
    target: float
    summary: float

    @classmethod
    def of(cls, window: int, max_output_tokens: int | None = None) -> "Budget":
        """Divide a window, of which the answer needs its part."""
        room = max(window - (max_output_tokens or 0), window * _LEAST_ROOM)
        return cls(room * _LIMIT, room * _TARGET, room * _SUMMARY)


@dataclass(frozen=True, slots=True)
class Past:
    """What of a conversation may be left out: the summary there is, and the whole turns behind it, oldest first.

    A turn is what a user said with all that followed, up to what a user said next.
    """

    summary: SummaryItem | None
    turns: tuple[tuple[Message, ...], ...]

    @classmethod
    def of(cls, messages: Iterable[Message], input_id: str) -> "Past":
        """Return what comes before the message that began the run."""
        turns: list[list[Message]] = []
        summary = None
        for message in takewhile(lambda each: each.message_id != input_id, shown(messages)):
            if isinstance(message.item, SummaryItem):
                summary = message.item
            elif isinstance(message.item, UserItem) or not turns:
                turns.append([message])
            else:
                turns[-1].append(message)
        return cls(summary, tuple(map(tuple, turns)))

    @property
    def earlier(self) -> str:
        """The text of the summary there is, empty for none."""
        return self.summary.text if self.summary else ""

    def compacted(self, count: int, text: str) -> HistoryCompacted:
        """Return what puts a text in the place of the summary and of so many of the oldest turns."""
        first = self.summary.first_message_id if self.summary else self.turns[0][0].message_id
        return HistoryCompacted(text, first, self.turns[count - 1][-1].message_id)


def oldest(sizes: Sequence[int], excess: int) -> int:
    """Return how many of the oldest turns, given by their sizes, are as large as the excess; all where none are."""
    gone = 0
    for count, size in enumerate(sizes):
        if gone >= excess:
            return count
        gone += size
    return len(sizes)


class Compactor:
    """Asks the model for one turn, and compacts the conversation where it is too long for it.

    Without `profiles` it is left as it is.
    """

    def __init__(self, turn: Turn, profiles: Profiles | None, ask: Ask, consumed: Consumed) -> None:
        self._turn = turn
        self._profiles = profiles
        self._ask = ask
        self._consumed = consumed
        self._count = TokenCount()
        self._was_refused = False

    async def ask(self, request: ModelRequest, usage: Usage) -> ModelStep | Usage:
        """Return the model's answer; or, the conversation being compacted now, the run's usage, to be asked anew.

        Raises:
            ModelError: as `ModelService.stream`; that the request is too long once nothing more can be left out, or
                where that has been of no use before.
        """
        profile = None if self._profiles is None else self._profiles(request.model)
        if profile is None:
            return await self._ask(request, self._turn.sink)
        size = 0
        if profile.context_window is not None:
            size = size_of_request(request, profile)
            budget = Budget.of(profile.context_window, request.options.max_output_tokens)
            if self._count.tokens_of(size) > budget.limit:
                compacted = await self._compact(request, profile, budget, usage)
                if compacted is not None:
                    return compacted
        try:
            step = await self._ask(request, self._turn.sink)
        except ModelError as error:
            compacted = await self._after(error, request, profile, usage)
            if compacted is None:
                raise
            return compacted
        self._count.observe(size, step.finish.usage.input_tokens)
        return step

    async def _after(
        self, error: ModelError, request: ModelRequest, profile: ProviderProfile, usage: Usage
    ) -> Usage | None:
        """Compact, once, what its server finds too long: to half of it, for how much would do is not known."""
        if error.reason is not Reason.MODEL_CONTEXT_TOO_LONG or self._was_refused:
            return None
        self._was_refused = True
        refused = self._count.tokens_of(size_of_request(request, profile))
        return await self._compact(request, profile, Budget.of(min(refused, profile.context_window or refused)), usage)

    async def _compact(
        self, request: ModelRequest, profile: ProviderProfile, budget: Budget, usage: Usage
    ) -> Usage | None:
        """Put a summary in the place of the oldest turns, durably; None where there are none."""
        turn = self._turn
        past = Past.of((*turn.history, *turn.said()), turn.history[-1].message_id)
        max_summary = min(self._count.bytes_of(budget.summary), MAX_SUMMARY_BYTES)
        target = self._count.bytes_of(budget.target)
        excess = size_of_request(request, profile) - len(past.earlier.encode()) + max_summary - target
        count = oldest([size_of(model_messages(each), profile) for each in past.turns], excess)
        if not count:
            return None
        left_out = [message for each in past.turns[:count] for message in each]
        asked = replace(
            request,
            messages=question(past.earlier, left_out, target, max_words=max_summary // _BYTES_PER_WORD),
            tools=(),
            options=ModelOptions(request.model, max_output_tokens=_summary_cap(usage, turn.limits)),
            output_schema=None,
        )
        text, use = await self._summary(asked, usage)
        text = cut(text, max_summary) or cut(without_summary(past.earlier), MAX_SUMMARY_BYTES)
        usage += use.usage
        body = past.compacted(count, text)
        await turn.sink.emit_all([(body, new_id("item")), (UsageUpdated(usage, use), "")])
        # What the model is told from now on is in the log before it is told.
        await turn.sink.flush()
        _log.info("history_compacted", run_id=turn.run_id, turns=count, by_model=bool(use.usage.model_calls))
        return usage

    async def _summary(self, request: ModelRequest, usage: Usage) -> tuple[str, ModelUse]:
        """Ask for a summary; empty where it fails, or would take the run's last step."""
        if usage.model_calls + 2 > self._turn.limits.max_steps:
            return "", ModelUse(request.model, Usage())
        try:
            step = await self._ask(request, Unheard())
        except ModelError as error:
            _log.warning("summary_failed", run_id=self._turn.run_id, reason=error.reason)
            return "", ModelUse(request.model, Usage())
        return step.text.strip(), ModelUse(step.answered_by(request), self._consumed(step, request))


def _summary_cap(usage: Usage, limits: Limits) -> int | None:
    left = output_cap(None, usage, limits)
    return None if left is None else max(int(left * _SUMMARY_OF_OUTPUT), 1)
