"""An agent with tools, played through one run against a scripted model."""

from collections.abc import Sequence
from datetime import UTC, datetime

from parley_server.agents.base import AgentDescription, Turn
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.domain.content import TextPart
from parley_server.domain.message import Message, UserItem
from parley_server.domain.run import Limits, ModelOptions, RunEnd, RunState, StopReason
from parley_server.tools.builtin.calculator import calculator
from parley_server.tools.builtin.current_time import current_time_tool
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool
from unit.agents.scripted_model import ScriptedModel, Step
from unit.tools.run_sink import RunSink
from unit.tools.user_context import NOW, context_of

ANSWERED = RunEnd(RunState.SUCCEEDED, StopReason.ANSWERED)
PRODUCT = ("calculator", '{"expression":"17 * 23"}')
BUILTIN: Sequence[Tool] = (calculator, current_time_tool(lambda: NOW))


def an_agent(model: ScriptedModel, tools: Sequence[Tool] = BUILTIN) -> ToolLoopAgent:
    registry = ToolRegistry(tools)
    description = AgentDescription("assistant", "Assistant", "Helps.", "default-model", registry.names)
    return ToolLoopAgent(description, "Be kind.", model=model, tools=registry, tool_calls=ToolCallManager(registry))


def a_turn(
    sink: RunSink,
    *,
    limits: Limits = Limits(),
    options: ModelOptions = ModelOptions(),
    allowed_tools: tuple[str, ...] = (),
    disable_tools: bool = False,
) -> Turn:
    said = UserItem((TextPart("17 * 23?"),))
    history = (Message("item_0", "conv_1", "run_1", datetime(2026, 11, 22, tzinfo=UTC), said),)
    return Turn(
        "run_1",
        "conv_1",
        history,
        sink,
        limits,
        model_options=options,
        allowed_tools=allowed_tools,
        disable_tools=disable_tools,
    )


async def run(*steps: Step, limits: Limits = Limits()) -> tuple[RunEnd, RunSink, ScriptedModel]:
    model, sink = ScriptedModel(*steps), RunSink()
    turn = await an_agent(model).run(context_of(), a_turn(sink, limits=limits))
    await sink.emit_all(turn.events)
    sink.check_calls()
    sink.check_text()
    assert model.open_streams == 0
    assert (turn.end.error is not None) == (turn.end.state is RunState.FAILED)
    return turn.end, sink, model
