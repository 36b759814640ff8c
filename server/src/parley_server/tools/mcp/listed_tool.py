"""A tool as its MCP server lists it: untrusted, and so bounded before anything else looks at it."""

import asyncio
import hashlib
import json

from mcp_types import Tool as WireTool
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from parley_server.domain.content import storable_text
from parley_server.tools.described_schema import read_schema
from parley_server.tools.json_value import dump_json

MAX_DESCRIPTION_CHARS = 16 * 1024
MAX_SCHEMA_BYTES = 64 * 1024

_OBJECT = TypeAdapter(dict[str, JsonValue])


class UnusableToolError(ValueError):
    """The server lists something that cannot be a tool here; the message says why, in our words."""


class ListedTool(BaseModel):
    """A tool as the server describes it, in the form in which it is pinned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    input_schema: dict[str, JsonValue]
    output_schema: dict[str, JsonValue] | None = None
    is_read_only: bool | None = None
    is_idempotent: bool | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of all that the server says of it, in hexadecimal digits."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def read_tool(tool: WireTool) -> ListedTool:
    """Check a tool of a server's list. Raises UnusableToolError."""
    description = storable_text(tool.description or tool.title or "")
    if len(description) > MAX_DESCRIPTION_CHARS:
        raise UnusableToolError(f"its description is longer than {MAX_DESCRIPTION_CHARS} characters")
    if tool.execution is not None and tool.execution.task_support == "required":
        raise UnusableToolError("it can only be called as a task, which this client does not offer")
    hints = tool.annotations
    return ListedTool(
        name=storable_text(tool.name),
        description=description,
        input_schema=_schema(tool.input_schema),
        output_schema=None if tool.output_schema is None else _schema(tool.output_schema, of_object=False),
        is_read_only=None if hints is None else hints.read_only_hint,
        is_idempotent=None if hints is None else hints.idempotent_hint,
    )


async def read_tool_aside(tool: WireTool) -> ListedTool:
    """Do as `read_tool` does in a thread: to check large schemas takes seconds."""
    return await asyncio.to_thread(read_tool, tool)


def _schema(schema: object, *, of_object: bool = True) -> dict[str, JsonValue]:
    try:
        return _OBJECT.validate_json(read_schema(json.dumps(schema), MAX_SCHEMA_BYTES, of_object=of_object))
    except (ValueError, RecursionError) as error:
        raise UnusableToolError(str(error)) from error


def schema_text(schema: dict[str, JsonValue] | None) -> str:
    """Write a schema as the model is told it; empty for none."""
    return "" if schema is None else dump_json(schema)
