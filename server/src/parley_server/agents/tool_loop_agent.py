"""The agent that asks a model, runs the tools it calls and asks again: the only such loop there is."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from parley_server.agents.base import AgentDescription, BaseAgent, Turn, TurnEnd
from parley_server.agents.history import model_messages, step_messages
from parley_server.agents.model_step import ModelStep, read_step
from parley_server.agents.system_prompt import with_user_facts
from parley_server.agents.turn_end import calls_to_run, end_of_answer, limit_reached, output_cap
from parley_server.domain.context import RequestContext
from parley_server.domain.identifiers import new_id
from parley_server.domain.run import RunState
from parley_server.domain.run_event import EventSink, ItemEvent, UsageUpdated
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import ModelMessage, ModelRequest, ModelService, SystemMessage
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry


class ToolLoopAgent(BaseAgent):
    """An agent made of a prompt, a model and tools. Raises ValueError when one of its tools does not exist."""

    def __init__(
        self,
        description: AgentDescription,
        prompt: str,
        *,
        model: ModelService,
        tools: ToolRegistry,
        tool_calls: ToolCallManager,
    ) -> None:
        tools.specs(description.tool_names)
        self.description = description
        self._prompt = prompt
        self._model = model
        self._tools = tools
        self._tool_calls = tool_calls

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
        await self._tool_calls.resume(context, turn.run_id, turn.unanswered, turn.sink)
        messages = self._messages_so_far(context, turn)
        usage = turn.usage
        while (end := limit_reached(usage, turn.limits)) is None:
            if await turn.steering.apply():
                messages = self._messages_so_far(context, turn)
            step = await self._ask(context, self._request(turn, messages, allowed, usage), turn.sink)
            calls = tuple(replace(call, call_id=new_id("call")) for call in step.finish.tool_calls)
            usage += replace(step.finish.usage, model_calls=1, tool_calls=len(calls))
            said: tuple[ItemEvent, ...] = (*step.events, (UsageUpdated(usage), ""))
            if not calls:
                answered = end_of_answer(step.finish, usage, turn.limits)
                if answered.state is not RunState.SUCCEEDED or await turn.steering.close():
                    return TurnEnd(answered, said)
                # The user went on meanwhile, so this is not the last answer.
                await turn.sink.emit_all(said)
                continue
            plan = self._tool_calls.plan(turn.run_id, calls, allowed, calls_to_run(step.finish, usage, turn.limits))
            results = await self._tool_calls.run(context, plan, turn.sink, said)
            messages += step_messages(step.text, calls, results)
        return TurnEnd(end)

    def _messages_so_far(self, context: RequestContext, turn: Turn) -> list[ModelMessage]:
        return [SystemMessage(self.system_prompt(context)), *model_messages((*turn.history, *turn.said()))]

    def _allowed(self, turn: Turn) -> tuple[str, ...]:
        if turn.disable_tools:
            return ()
        return tuple(name for name in self.tool_names if not turn.allowed_tools or name in turn.allowed_tools)

    def _request(
        self, turn: Turn, messages: Sequence[ModelMessage], allowed: Sequence[str], usage: Usage
    ) -> ModelRequest:
        options = turn.model_options
        cap = output_cap(options.max_output_tokens, usage, turn.limits)
        return ModelRequest(
            model=options.model or self.description.default_model,
            messages=tuple(messages),
            tools=self._tools.specs(allowed),
            options=replace(options, max_output_tokens=cap),
        )

    async def _ask(self, context: RequestContext, request: ModelRequest, sink: EventSink) -> ModelStep:
        async with aclosing(self._model.stream(context, request)) as chunks:
            return await read_step(chunks, sink)
