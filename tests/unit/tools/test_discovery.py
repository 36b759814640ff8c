"""Tools that are installed beside the server: those that are found, and what is said of those that cannot be."""

from pathlib import Path

import pytest
from parley_server.domain.errors import StartError
from parley_server.tools.builtin.calculator import calculator
from parley_server.tools.discovery import discover, register
from unit.installed_package import install
from unit.tools.made_tools import made_tool

TOOLS = '''
from parley_server.domain.tool import ToolEffect
from parley_server.tools.tool import FunctionTool, ToolContext, tool
from parley_server.tools.builtin.calculator import calculator
from pydantic import BaseModel, ConfigDict

class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")

@tool(effect=ToolEffect.READ)
async def first(context: ToolContext, arguments: Nothing) -> Nothing:
    """Be there."""
    return arguments

@tool(effect=ToolEffect.READ)
def second(context: ToolContext, arguments: Nothing) -> Nothing:
    """Be there too."""
    return arguments
'''


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory from which modules are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_tool_at_the_top_of_a_module_is_found(packages: Path) -> None:
    (packages / "all_the_tools.py").write_text(TOOLS)
    found = list(discover(["all_the_tools"]))
    assert [tool.spec.name for tool, _ in found] == ["calculator", "first", "second"]
    registry = register([calculator], found, disabled=["second"])
    assert registry.names == ("calculator", "first")
    assert registry.get("calculator") is calculator


@pytest.mark.parametrize(
    ("value", "names"),
    [("entered_tools", ["calculator", "first", "second"]), ("entered_tools:second", ["second"])],
)
def test_an_entry_point_names_a_module_or_one_tool(packages: Path, value: str, names: list[str]) -> None:
    install(packages, "entered_tools", TOOLS, "parley.tools", {"ours": value})
    assert [tool.spec.name for tool, _ in discover([])] == names


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "cannot be imported .ModuleNotFoundError: No module named 'broken_tools_0'"),
        ("1 / 0", "cannot be imported .ZeroDivisionError"),
        (TOOLS.replace('"""Be there."""', "pass"), "tool first: it needs a docstring"),
        ("from parley_server.tools.tool import FunctionTool, Tool", "has no tools"),
    ],
)
def test_a_module_that_gives_no_tools_keeps_the_server_from_starting(
    packages: Path, source: str | None, said: str, request: pytest.FixtureRequest
) -> None:
    # A module is imported once in a process, and each case needs its own.
    name = "broken_tools_0" if source is None else f"broken_tools_{abs(hash(request.node.name))}"
    if source is not None:
        (packages / f"{name}.py").write_text(source)
    with pytest.raises(StartError, match=said) as refused:
        list(discover([name]))
    assert str(refused.value).startswith(f"[tools] modules, {name}: ")


def test_two_tools_of_one_name_are_refused_with_both_places() -> None:
    twins = [(made_tool("twin"), "[tools] modules, here"), (made_tool("twin"), "[tools] modules, there")]
    with pytest.raises(StartError, match=r"two tools are named twin: of .*here and of .*there"):
        register([], twins, [])
    with pytest.raises(StartError, match="calculator: of this server and of"):
        register([calculator], [(made_tool("calculator"), "x")], [])
    assert register([calculator], twins, ["twin"]).names == ("calculator",)


def test_a_disabled_tool_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(StartError, match="no tool is named calculater; there are calculator"):
        register([calculator], [], ["calculater"])
