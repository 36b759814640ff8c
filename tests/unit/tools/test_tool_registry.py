"""The registry of tools."""

import pytest
from parley_server.tools.registry import ToolRegistry
from unit.tools.made_tools import made_tool


async def test_names_and_specs_keep_their_order() -> None:
    registry = ToolRegistry([made_tool("b"), made_tool("a")])
    assert registry.names == ("b", "a")
    assert [spec.name for spec in registry.specs(["a", "b"])] == ["a", "b"]
    assert registry.get("c") is None


async def test_duplicate_names_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools are named a"):
        ToolRegistry([made_tool("a"), made_tool("a")])


async def test_specs_of_an_absent_tool_are_refused() -> None:
    with pytest.raises(ValueError, match="no tool is named z"):
        ToolRegistry([made_tool("a")]).specs(["z"])
