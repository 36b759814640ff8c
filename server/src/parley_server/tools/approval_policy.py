"""Which calls the user is asked about, as the operator says: the `[approvals]` and `[approval_rules.NAME]` tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from parley_server.domain.name_list import Patterns, fits, listed
from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec

Ask = Literal["never", "always"]


class ApprovalSettings(BaseModel):
    """`[approvals]`: which tool calls wait until the user has said yes.

    A tool may say itself that its calls always or never wait. These are for all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    read: Ask = "never"
    """Whether the user is asked before a tool that changes nothing is called."""

    idempotent: Ask = "never"
    """The same for a tool that changes something, where twice is the same as once."""

    write: Ask = "never"
    """The same for a tool that changes something each time."""

    expiry_s: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """How long the user has to answer, in seconds. Then the call is refused, and the run goes on. A run's own deadline,
    10 minutes unless its client asks for more, may end it before."""


class ApprovalRuleSettings(BaseModel):
    """`[approval_rules.NAME]`: an exception from `[approvals]`, under any name.

    It is for the calls that fit all of its lists; one that is empty or not set fits every call. Where several rules are
    for a call, one that lists users goes before one that lists none, then the same for agents, tools, sources and
    effects; among equals one that says `always` wins. Entries may end in `*`, which stands for any end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: Ask
    """Whether the user is asked."""

    users: Patterns = ()
    """Users, by their ids."""

    agents: Patterns = ()
    """Agents, by their ids."""

    tools: Patterns = ()
    """Tools, by their names."""

    sources: Patterns = ()
    """Where tools run: `server`, `host:NAME`, `mcp:NAME`."""

    effects: Annotated[tuple[ToolEffect, ...], BeforeValidator(listed), Field(max_length=3)] = ()
    """What tools do to the world: `read`, `idempotent`, `write`."""

    def fits(self, spec: ToolSpec, agent_id: str, user_id: str) -> bool:
        """Tell whether the rule is for the calls of a tool."""
        return (
            _fits(self.users, user_id)
            and _fits(self.agents, agent_id)
            and _fits(self.tools, spec.name)
            and _fits(self.sources, spec.source)
            and (not self.effects or spec.effect in self.effects)
        )

    @property
    def weight(self) -> tuple[bool, ...]:
        """What the rule is compared with others by: the greater goes before."""
        lists = (self.users, self.agents, self.tools, self.sources, self.effects)
        return (*map(bool, lists), self.ask == "always")


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Tells which calls the user is asked about."""

    settings: ApprovalSettings = field(default_factory=ApprovalSettings)
    rules: Sequence[ApprovalRuleSettings] = ()

    def asks(self, spec: ToolSpec, agent_id: str, user_id: str) -> bool:
        """Tell whether the user is asked before an agent's call of a tool is dispatched."""
        if spec.approval is not ApprovalRule.POLICY:
            return spec.approval is ApprovalRule.ALWAYS
        fitting = [rule for rule in self.rules if rule.fits(spec, agent_id, user_id)]
        ask = max(fitting, key=lambda rule: rule.weight).ask if fitting else self._default(spec.effect)
        return ask == "always"

    def _default(self, effect: ToolEffect) -> Ask:
        match effect:
            case ToolEffect.READ:
                return self.settings.read
            case ToolEffect.IDEMPOTENT:
                return self.settings.idempotent
            case ToolEffect.WRITE:
                return self.settings.write


DEFAULT_POLICY = ApprovalPolicy()


def _fits(patterns: Sequence[str], name: str) -> bool:
    return not patterns or fits(patterns, name)
