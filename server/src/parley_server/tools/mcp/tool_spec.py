"""What an MCP server's tool is here: its name, its effect and the rules its calls follow."""

import hashlib
import re

from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec
from parley_server.tools.mcp.listed_tool import ListedTool, schema_text
from parley_server.tools.mcp.mcp_settings import McpServerSettings

MAX_NAME_CHARS = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_DIGEST_CHARS = 8


def prefix_of(server: str, settings: McpServerSettings) -> str:
    """Return what the names of a server's tools begin with."""
    return f"{server}_" if settings.prefix is None else settings.prefix


def spec_of(server: str, settings: McpServerSettings, tool: ListedTool) -> ToolSpec:
    """Describe a tool by the rules of its server's table."""
    effect = effect_of(settings, tool)
    return ToolSpec(
        name=_name(prefix_of(server, settings) + tool.name),
        description=tool.description,
        input_schema_json=schema_text(tool.input_schema),
        output_schema_json=schema_text(tool.output_schema),
        effect=effect,
        timeout_s=settings.timeout_s,
        approval=settings.approval or (ApprovalRule.ALWAYS if effect is ToolEffect.WRITE else ApprovalRule.POLICY),
        credential_slots=settings.slots,
        source=f"mcp:{server}",
    )


def effect_of(settings: McpServerSettings, tool: ListedTool) -> ToolEffect:
    """Tell what a call does to the world: as the operator says, else as a trusted server says, else the default."""
    if tool.name in settings.effects:
        return settings.effects[tool.name]
    if settings.trust_hints and tool.is_read_only:
        return ToolEffect.READ
    if settings.trust_hints and tool.is_idempotent:
        return ToolEffect.IDEMPOTENT
    return settings.effect


def _name(name: str) -> str:
    """Write a name as a model may: one that is too long keeps its beginning and gets a digest."""
    allowed = _NOT_IN_NAMES.sub("_", name)
    if len(allowed) <= MAX_NAME_CHARS:
        return allowed
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{allowed[: MAX_NAME_CHARS - _DIGEST_CHARS - 1]}_{digest}"
