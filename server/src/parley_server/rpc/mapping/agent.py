"""Agents."""

from parley.v1 import agent_pb2 as pb

from parley_server.agents.base import AgentDescription


def write_agent(description: AgentDescription) -> pb.Agent:
    """Return what callers may know of an agent."""
    return pb.Agent(
        agent_id=description.agent_id,
        display_name=description.display_name,
        description=description.description,
        tool_names=sorted(description.tool_names),
        default_model=description.default_model,
        prompt_name=description.prompt_name,
    )
