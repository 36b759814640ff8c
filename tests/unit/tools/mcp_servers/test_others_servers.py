"""MCP servers that others have written, from PyPI and npm, as they are published."""

import sys
from pathlib import Path

from clients.node_tools import NODE_MODULES, require_node
from parley_server.domain.tool import ToolEffect
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from unit.tools.mcp_servers.mcp_world import open_world

EVERYTHING, FILESYSTEM = "@modelcontextprotocol/server-everything", "@modelcontextprotocol/server-filesystem"


def of_npm(package: str, *args: str, **more: object) -> McpServerSettings:
    program = str(NODE_MODULES / package / "dist" / "index.js")
    return McpServerSettings.model_validate({"command": "node", "args": (program, *args), "shared": True, **more})


async def test_the_time_server_of_pypi_answers_in_the_newest_protocol(tmp_path: Path) -> None:
    command = {"command": sys.executable, "args": ("-m", "mcp_server_time", "--local-timezone", "UTC")}
    settings = McpServerSettings.model_validate({**command, "shared": True, "trust_hints": True})
    async with open_world(tmp_path, settings) as world:
        asked = {"source_timezone": "Europe/Berlin", "time": "09:00", "target_timezone": "Asia/Tokyo"}
        converted = (await world.call("convert_time", {**asked}))["structured"]
        assert isinstance(converted, dict)
        # An hour more or less, as the year goes.
        assert converted["time_difference"] in {"+7.0h", "+8.0h"}
        assert "Invalid timezone" in (await world.error("get_current_time", {"timezone": "Nowhere"})).message
        effects = {spec.effect for spec in world.registry.specs(world.registry.names)}
        assert effects == {ToolEffect.READ}


async def test_the_everything_server_of_npm_shows_all_kinds_of_answers(tmp_path: Path) -> None:
    require_node(EVERYTHING)
    async with open_world(tmp_path, of_npm(EVERYTHING, "stdio")) as world:
        assert await world.call("echo", {"message": "hi"}) == {"text": "Echo: hi"}
        assert await world.call("get-structured-content", {"location": "Chicago"}) == {
            "structured": {"conditions": "Light rain / drizzle", "humidity": 82, "temperature": 36}
        }
        image = (await world.call("get-tiny-image"))["parts"]
        assert image == [{"type": "image", "media_type": "image/png", "size_bytes": 4033, "omitted": True}]
        links = (await world.call("get-resource-links", {"count": 1}))["parts"]
        assert isinstance(links, list)
        assert [link["uri"] for link in links if isinstance(link, dict)] == ["demo://resource/dynamic/blob/1"]
        answered = await world.call("trigger-elicitation-request")
        assert "declined" in str(answered["text"])
        assert answered["declined_questions"] == ["Please provide inputs for the following fields:"]
        environment = str(await world.call("get-env"))
        assert "PATH" in environment
        assert "PYTEST" not in environment


async def test_the_filesystem_server_of_npm_stays_in_its_folder(tmp_path: Path) -> None:
    require_node(FILESYSTEM)
    folder = tmp_path / "files"
    folder.mkdir()
    async with open_world(tmp_path, of_npm(FILESYSTEM, str(folder), trust_hints=True)) as world:
        effects = {spec.name.removeprefix("raw_"): spec.effect for spec in world.registry.specs(world.registry.names)}
        assert (effects["read_text_file"], effects["move_file"]) == (ToolEffect.READ, ToolEffect.WRITE)
        await world.call("write_file", {"path": f"{folder}/a.txt", "content": "hello"})
        assert (folder / "a.txt").read_text() == "hello"
        assert (await world.call("read_text_file", {"path": f"{folder}/a.txt"}))["structured"] == {"content": "hello"}
        assert "Access denied" in (await world.error("read_text_file", {"path": "/etc/passwd"})).message
