"""The agents of this server, by id."""

from collections.abc import Iterable

from parley_server.agents.base import BaseAgent
from parley_server.domain.errors import NotFoundError

DEFAULT_AGENT_ID = "assistant"


class AgentRegistry:
    """All agents there are. Raises ValueError when two have the same id or the default one is missing."""

    def __init__(self, agents: Iterable[BaseAgent], *, default_agent_id: str = DEFAULT_AGENT_ID) -> None:
        self._agents: dict[str, BaseAgent] = {}
        for agent in agents:
            agent_id = agent.description.agent_id
            if agent_id in self._agents:
                raise ValueError(f"two agents have the id {agent_id}")
            self._agents[agent_id] = agent
        if default_agent_id not in self._agents:
            raise ValueError(f"there is no agent {default_agent_id}, the default")
        self._default_agent_id = default_agent_id

    def get(self, agent_id: str) -> BaseAgent:
        """Return one; an empty id means the default. Raises NotFoundError."""
        agent = self._agents.get(agent_id or self._default_agent_id)
        if agent is None:
            raise NotFoundError("agent")
        return agent

    def all(self) -> tuple[BaseAgent, ...]:
        """Return all, in the order they were given."""
        return tuple(self._agents.values())
