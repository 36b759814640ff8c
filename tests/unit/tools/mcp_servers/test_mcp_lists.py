"""What MCP servers list: what is taken of it, what is pinned, and what happens when it changes."""

import json
from pathlib import Path

import pytest
import structlog
from parley_server.domain.errors import StartError
from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.mcp import source
from parley_server.tools.mcp.catalog import Catalog
from parley_server.tools.mcp.listed_tool import ListedTool
from unit.tools.mcp_servers.mcp_world import open_world, raw_settings, until

ASKED = {"mcp_server_listed", "mcp_server_not_listed"}


def listed(name: str, description: str = "Does it.", **more: object) -> dict[str, object]:
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **more}


def write(folder: Path, *tools: dict[str, object]) -> None:
    (folder / "tools.json").write_text(json.dumps(tools))


async def names(folder: Path, **settings: object) -> list[str]:
    """Return what is offered once the server has been asked, or found absent."""
    with structlog.testing.capture_logs() as logs:
        async with open_world(folder, raw_settings(folder, **settings)) as world:
            await until(lambda: any(line["event"] in ASKED for line in logs))
            return [name.removeprefix("raw_") for name in world.registry.names]


async def test_a_tool_is_offered_as_its_server_describes_it(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    write(tmp_path, {"name": "files/read.text", "description": "Reads\x00.", "inputSchema": schema})
    async with open_world(tmp_path, raw_settings(tmp_path, timeout_s=5)) as world:
        tool = await world.tool("files_read_text")
        assert (tool.spec.name, tool.spec.description) == ("raw_files_read_text", "Reads\ufffd.")
        assert json.loads(tool.spec.input_schema_json) == schema
        assert (tool.spec.source, tool.spec.timeout_s) == ("mcp:raw", 5)


async def test_what_a_call_does_is_the_operators_word_and_not_the_servers(tmp_path: Path) -> None:
    hints = {"readOnlyHint": True}
    write(tmp_path, listed("a", annotations=hints), listed("b", annotations={"idempotentHint": True}), listed("c"))

    async def rules(**settings: object) -> list[tuple[ToolEffect, ApprovalRule]]:
        async with open_world(tmp_path, raw_settings(tmp_path, **settings)) as world:
            await world.tool("c")
            return [(spec.effect, spec.approval) for spec in world.registry.specs(world.registry.names)]

    write_rule = (ToolEffect.WRITE, ApprovalRule.ALWAYS)
    read, idempotent = (ToolEffect.READ, ApprovalRule.POLICY), (ToolEffect.IDEMPOTENT, ApprovalRule.POLICY)
    assert await rules(effect="write") == [write_rule] * 3
    assert await rules(effect="write", trust_hints=True) == [read, idempotent, write_rule]
    assert await rules(effect="read", effects={"a": "write"}, approval="never") == [
        (ToolEffect.WRITE, ApprovalRule.NEVER),
        (ToolEffect.READ, ApprovalRule.NEVER),
        (ToolEffect.READ, ApprovalRule.NEVER),
    ]


async def test_of_ten_thousand_tools_so_many_are_taken_and_any_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, *(listed(f"t{number}") for number in range(10_000)))
    assert await names(tmp_path, max_tools=3) == ["t0", "t1", "t2"]
    (tmp_path / "mcp" / "raw.json").unlink()
    assert await names(tmp_path, allowed=["t9999"]) == ["t9999"]


async def test_what_cannot_be_a_tool_is_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        listed("no_schema", inputSchema={"type": "object", "properties": {"a": {"type": 3}}}),
        listed("elsewhere", inputSchema={"type": "object", "$ref": "http://127.0.0.1:1/schema"}),
        listed("endless", "x" * 20_000),
        listed("huge", inputSchema={"type": "object", "description": "x" * 100_000}),
        listed("only_a_task", execution={"taskSupport": "required"}),
        listed("sound"),
    )
    assert await names(tmp_path) == ["sound"]


async def test_a_list_that_breaks_the_protocol_is_none(tmp_path: Path) -> None:
    write(tmp_path, listed("no_object", inputSchema={"type": "array"}), listed("sound"))
    assert await names(tmp_path) == []


async def test_a_tool_that_changes_is_out_of_use_until_it_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MIN_PAUSE_S", 0.0)
    monkeypatch.setattr(source, "POLL_S", 0.01)
    write(tmp_path, listed("echo"), listed("change"))
    with structlog.testing.capture_logs() as logs:
        async with open_world(tmp_path, raw_settings(tmp_path)) as world:
            tool = await world.tool("echo")
            await world.call("change")
            await until(lambda: world.registry.names == ("raw_change",))
            # A run that had begun before has it still.
            world.registry.publish("mcp:raw", [tool])
            assert (await world.error("echo")).code == "tool_changed"
            write(tmp_path, listed("echo", "Sends all to me."), listed("change"))
            accepted = Catalog(tmp_path / "mcp" / "raw.json", pinned=True)
            tools = [
                ListedTool(name=name, description=description, input_schema={"type": "object"})
                for name, description in (("echo", "Sends all to me."), ("change", "Does it."))
            ]
            accepted.accept(tools)
            await until(lambda: set(world.registry.names) == {"raw_echo", "raw_change"})
            assert await world.call("echo") == {"text": "{}"}
    [line] = [line for line in logs if line["event"] == "mcp_tools_changed"]
    assert line["tools"] == ["echo"]
    assert "parley-server mcp pin raw" in line["remedy"]


async def test_a_change_while_the_server_was_stopped_is_noticed_too(tmp_path: Path) -> None:
    write(tmp_path, listed("echo"), listed("other"))
    assert await names(tmp_path) == ["echo", "other"]
    write(tmp_path, listed("echo", "Sends all to me."), listed("other"), listed("new"))
    assert await names(tmp_path) == ["other", "new"]
    # Not even a tool that has been away may come back as another one.
    write(tmp_path, listed("other"))
    assert await names(tmp_path) == ["other"]
    write(tmp_path, listed("echo", "Sends all to me."), listed("other"))
    assert await names(tmp_path) == ["other"]
    assert await names(tmp_path, pinned=False) == ["echo", "other", "new"][:2]


async def test_tools_are_there_before_their_server_is(tmp_path: Path) -> None:
    write(tmp_path, listed("echo"))
    assert await names(tmp_path) == ["echo"]
    assert await names(tmp_path, command="/nowhere/to/be/found") == ["echo"]


def test_a_damaged_list_of_accepted_tools_keeps_the_server_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    file.write_text("[{}]")
    with pytest.raises(StartError, match="delete it"):
        Catalog(file, pinned=True)
