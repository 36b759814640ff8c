"""The registry of tools."""

import pytest
import structlog
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


async def test_absent_tools_have_no_specs_and_may_be_required() -> None:
    registry = ToolRegistry([made_tool("a")])
    assert [spec.name for spec in registry.specs(["z", "a"])] == ["a"]
    registry.require(["a"])
    with pytest.raises(ValueError, match="no tool is named z"):
        registry.require(["a", "z"])


async def test_what_a_source_publishes_takes_the_place_of_what_it_had() -> None:
    registry = ToolRegistry([made_tool("own")], disabled=["h_off"])
    registry.publish("host:z", [made_tool("z_a")])
    registry.publish("host:h", [made_tool("h_b"), made_tool("h_off"), made_tool("h_a")])
    assert list(registry.names) == ["own", "h_b", "h_a", "z_a"]
    registry.publish("host:h", [made_tool("h_c")])
    assert list(registry.names) == ["own", "h_c", "z_a"]
    assert registry.get("h_b") is None
    registry.publish("host:h", [])
    assert list(registry.names) == ["own", "z_a"]


async def test_a_source_takes_no_name_that_is_taken() -> None:
    own, first, second = made_tool("own"), made_tool("both"), made_tool("both")
    registry = ToolRegistry([own])
    with structlog.testing.capture_logs() as logs:
        registry.publish("host:b", [made_tool("own"), second])
        registry.publish("host:a", [first])
    assert registry.get("own") is own
    assert registry.get("both") is first
    assert {(line["event"], line["tool"], line["source"]) for line in logs} == {
        ("tool_name_taken", "own", "host:b"),
        ("tool_name_taken", "both", "host:b"),
    }
