"""The registry of agents, and the default one."""

import pytest
from parley_server.agents.assistant import build_assistant
from parley_server.agents.registry import AgentRegistry
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.domain.errors import NotFoundError
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from unit.agents.scripted_model import ScriptedModel, say
from unit.tools.made_tools import made_tool
from unit.tools.user_context import context_of


def an_assistant() -> ToolLoopAgent:
    tools = ToolRegistry([made_tool("a"), made_tool("b")])
    return build_assistant(
        model=ScriptedModel(say("hi")), model_name="some-model", tools=tools, tool_calls=ToolCallManager(tools)
    )


def test_the_default_agent_is_the_assistant() -> None:
    assistant = an_assistant()
    registry = AgentRegistry([assistant])
    assert registry.get("") is registry.get("assistant") is assistant
    assert registry.all() == (assistant,)


@pytest.mark.parametrize("agent_id", ["nobody", "Assistant", " "])
def test_an_unknown_agent_is_not_found(agent_id: str) -> None:
    with pytest.raises(NotFoundError, match="agent not found"):
        AgentRegistry([an_assistant()]).get(agent_id)


def test_two_of_one_id_and_a_missing_default_are_refused() -> None:
    with pytest.raises(ValueError, match="two agents"):
        AgentRegistry([an_assistant(), an_assistant()])
    with pytest.raises(ValueError, match="there is no agent assistant"):
        AgentRegistry([])


def test_the_assistant_may_use_every_tool_and_knows_its_user() -> None:
    assistant = an_assistant()
    assert assistant.tool_names == ("a", "b")
    assert assistant.description.default_model == "some-model"
    prompt = assistant.system_prompt(context_of())
    assert prompt.startswith("You are Parley's assistant.")
    assert prompt.endswith("The user's locale is de-DE.")
