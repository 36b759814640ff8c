"""What the guide shows works: its tools, and the tests of them."""

import inspect
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "tools.md"


def snippet(heading: str) -> str:
    """Return the first Python under a heading."""
    _, _, section = GUIDE.read_text(encoding="utf-8").partition(f"{heading}\n")
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize("headings", [("# Writing a tool", "## Testing a tool"), ("## Credentials",)])
async def test_the_tools_of_the_guide_pass_the_tests_of_the_guide(headings: tuple[str, ...]) -> None:
    names: dict[str, object] = {"__name__": "guide"}
    for heading in headings:
        exec(compile(snippet(heading), GUIDE, "exec"), names)  # noqa: S102  # our own document
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        assert inspect.iscoroutinefunction(test)
        await test()


async def test_the_tool_with_a_credential_passes_its_tests() -> None:
    names: dict[str, object] = {"__name__": "guide"}
    exec(compile(snippet("## Credentials"), GUIDE, "exec"), names)  # noqa: S102  # our own document
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        assert inspect.iscoroutinefunction(test)
        await test()
