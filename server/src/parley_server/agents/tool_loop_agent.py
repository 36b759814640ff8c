"""The agent that asks a model, runs the tools it calls and asks again: the only such loop there is."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from parley_server.agents.base import AgentDescription, BaseAgent, Turn, TurnEnd
from parley_server.agents.compaction import Compactor
from parley_server.agents.history import model_messages, step_messages
from parley_server.agents.history_repair import repaired
from parley_server.agents.model_step import ModelStep, read_step
from parley_server.agents.request_size import estimate_of
from parley_server.agents.structured_output import DemandedOutput, objection, with_output
from parley_server.agents.system_prompt import with_user_facts
from parley_server.agents.turn_end import (
    calls_to_run,
    end_of_answer,
    limit_reached,
    loop_detected,
    output_cap,
    output_invalid,
)
from parley_server.domain.context import RequestContext
from parley_server.domain.identifiers import new_id
from parley_server.domain.run import RunEnd, RunState, StopReason
from parley_server.domain.run_event import (
    HISTORY_REPAIRED,
    OUTPUT_INVALID,
    USAGE_UNKNOWN,
    EventSink,
    ItemEvent,
    UsageUpdated,
    Warned,
)
from parley_server.domain.tool import ToolSpec
from parley_server.domain.usage import ModelUse, Usage
from parley_server.llm.model_catalog import Profiles
from parley_server.llm.model_service import ModelError, ModelMessage, ModelRequest, ModelService, SystemMessage
from parley_server.llm.prices import NO_PRICES, Prices
from parley_server.llm.provider_profiles import ProviderProfile
from parley_server.tools.approval_gate import Asking
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.so_far import SoFar

_USAGE_UNKNOWN_MESSAGE = (
    "the model's server does not say how many tokens it used; they are counted as none, and a limit on them cannot hold"
)
_HISTORY_REPAIRED_MESSAGE = (
    "the conversation held tool calls without results, or results without calls; the model is sent it mended"
)


class ToolLoopAgent(BaseAgent):
    """An agent made of a prompt, a model and tools. Raises ValueError when one of its tools does not exist.

    With `has_every_tool` its tools are all that the registry has at the moment, whatever the description names. With
    `profiles` a conversation that outgrows the model's window is compacted; without, its run fails.
    """

    def __init__(  # noqa: PLR0913  # all that an agent is made of
        self,
        description: AgentDescription,
        prompt: str,
        *,
        model: ModelService,
        tools: ToolRegistry,
        tool_calls: ToolCallManager,
        prices: Prices = NO_PRICES,
        profiles: Profiles | None = None,
        has_every_tool: bool = False,
    ) -> None:
        tools.require(description.tool_names)
        self._description = description
        self._has_every_tool = has_every_tool
        self._prompt = prompt
        self._model = model
        self._tools = tools
        self._tool_calls = tool_calls
        self._prices = prices
        self._profiles = profiles

    @property
    def description(self) -> AgentDescription:
        """What callers may know of this agent now; remote tools come and go."""
        if not self._has_every_tool:
            return self._description
        return replace(self._description, tool_names=self._tools.names)

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The tools this agent may use."""
        return self.description.tool_names

    def system_prompt(self, context: RequestContext) -> str:
        """Return the agent's prompt with the user's date, time zone and locale."""
        return with_user_facts(self._prompt, context)

    async def run(self, context: RequestContext, turn: Turn) -> TurnEnd:
        """Answer the user's message; see `BaseAgent.run`."""
        allowed = self._allowed(turn)
        so_far = self._tool_calls.so_far(turn.calls_made)
        asking = self._asking(turn)
        await self._tool_calls.resume(context, turn.run_id, turn.unanswered, turn.sink, so_far, asking)
        demanded = await DemandedOutput.read(turn.output_schema_json)
        messages = self._messages_so_far(context, turn, demanded)
        usage = turn.usage
        compactor = Compactor(turn, self._profiles, partial(self._ask, context, turn), self._consumed)
        while (end := _end_reached(usage, turn, so_far)) is None:
            if await turn.steering.apply():
                so_far.repetition.forget()
                messages = self._messages_so_far(context, turn, demanded)
            messages = await _repaired(messages, turn)
            request = self._request(turn, messages, self._tool_calls.offered(context, allowed), usage, demanded)
            step = await compactor.ask(request, usage)
            if isinstance(step, Usage):
                usage, messages = step, self._messages_so_far(context, turn, demanded)
                continue
            calls = tuple(replace(call, call_id=new_id("call")) for call in step.finish.tool_calls)
            used = replace(self._consumed(step, request), tool_calls=len(calls))
            usage += used
            told = UsageUpdated(usage, ModelUse(step.answered_by(request), used))
            said: tuple[ItemEvent, ...] = (*step.events, (told, ""), *_usage_warning(step, turn))
            if calls:
                max_calls = calls_to_run(step.finish, usage, turn.limits)
                plan = self._tool_calls.plan(context, turn.run_id, calls, allowed, max_calls, so_far)
                results = await self._tool_calls.run(context, plan, turn.sink, said, asking)
                messages += step_messages(step.text, calls, results, step.reasoning)
                continue
            ended = await _ended(turn, end_of_answer(step.finish, usage, turn.limits), said, step.text, demanded)
            if ended is not None:
                return ended
            messages = self._messages_so_far(context, turn, demanded)
        return TurnEnd(end)

    def _messages_so_far(
        self, context: RequestContext, turn: Turn, demanded: DemandedOutput | None
    ) -> list[ModelMessage]:
        prompt = self.system_prompt(context) + ("" if demanded is None else demanded.instruction)
        return [SystemMessage(prompt), *model_messages((*turn.history, *turn.said()))]

    def _asking(self, turn: Turn) -> Asking:
        agent_id = self.description.agent_id
        return Asking(agent_id, turn.conversation_id, turn.unattended_policy, turn.approvals)

    def _allowed(self, turn: Turn) -> tuple[str, ...]:
        if turn.disable_tools:
            return ()
        return tuple(name for name in self.tool_names if not turn.allowed_tools or name in turn.allowed_tools)

    def _request(
        self,
        turn: Turn,
        messages: Sequence[ModelMessage],
        tools: tuple[ToolSpec, ...],
        usage: Usage,
        demanded: DemandedOutput | None,
    ) -> ModelRequest:
        options = turn.model_options
        cap = output_cap(options.max_output_tokens, usage, turn.limits)
        return ModelRequest(
            model=options.model or self.description.default_model,
            messages=tuple(messages),
            tools=tools,
            options=replace(options, max_output_tokens=cap),
            deadline_time=turn.deadline_time,
            output_schema=None if demanded is None else demanded.schema,
        )

    async def _ask(self, context: RequestContext, turn: Turn, request: ModelRequest, sink: EventSink) -> ModelStep:
        reserve = partial(self._reserve, turn, request)
        await reserve(request.model)
        try:
            async with aclosing(self._model.stream(context, replace(request, permit=reserve))) as chunks:
                return await read_step(chunks, sink)
        except ModelError:
            turn.allowance.release()
            raise

    async def _reserve(self, turn: Turn, request: ModelRequest, model: str) -> None:
        """Hold what this model may come to, and no more what one did that was asked before it and did not answer."""
        turn.allowance.release()
        await turn.allowance.reserve(model, partial(self._estimate, replace(request, model=model)))

    def _estimate(self, request: ModelRequest) -> Usage:
        """Return what one call of the model may come to, before it is made."""
        profile = ProviderProfile() if self._profiles is None else self._profiles(request.model)
        return self._prices.priced(request.model, estimate_of(request, profile))

    def _consumed(self, step: ModelStep, request: ModelRequest) -> Usage:
        """Return what one call of the model consumed; what nobody knows has no cost."""
        usage = replace(step.finish.usage, model_calls=1)
        return self._prices.priced(step.answered_by(request), usage) if step.finish.is_usage_known else usage


def _end_reached(usage: Usage, turn: Turn, so_far: SoFar) -> RunEnd | None:
    """Return the end of a run that may not ask its model again; None when it may."""
    return loop_detected() if so_far.repetition.is_loop else limit_reached(usage, turn.limits)


async def _repaired(messages: list[ModelMessage], turn: Turn) -> list[ModelMessage]:
    """Return what a model can be sent, and tell once that it is not what the conversation holds."""
    mended, was_broken = repaired(messages)
    if was_broken and HISTORY_REPAIRED not in turn.warned():
        await turn.sink.emit(Warned(HISTORY_REPAIRED, _HISTORY_REPAIRED_MESSAGE))
    return mended


async def _ended(
    turn: Turn, end: RunEnd, said: tuple[ItemEvent, ...], text: str, demanded: DemandedOutput | None
) -> TurnEnd | None:
    """End the turn with an answer; None, with all of it told, when another one is to be asked for.

    An answer that does not fit what was demanded gets one chance to be mended; one that was cut or refused gets none.
    """
    if demanded is not None and end.stop_reason is StopReason.ANSWERED:
        output = await demanded.of(text)
        if output.json:
            said = with_output(said, output.json)
        elif OUTPUT_INVALID not in turn.warned():
            await turn.sink.emit_all((*said, objection(said, output.problem)))
            # So that after a crash, too, there is one chance and no more.
            await turn.sink.flush()
            return None
        else:
            end = output_invalid(output.problem)
    if end.state is not RunState.SUCCEEDED or await turn.steering.close():
        return TurnEnd(end, said)
    # The user went on meanwhile, so this is not the last answer.
    await turn.sink.emit_all(said)
    return None


def _usage_warning(step: ModelStep, turn: Turn) -> tuple[ItemEvent, ...]:
    if step.finish.is_usage_known or USAGE_UNKNOWN in turn.warned():
        return ()
    return ((Warned(USAGE_UNKNOWN, _USAGE_UNKNOWN_MESSAGE), ""),)
