"""A server whose tools ask before they are called, tell how far they are, or never end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.offline_model import offline_model
from server_process import ServerProcess, running_server

_TOOLS = '''
import asyncio
from pathlib import Path

from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

class Mail(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: str
    body: str = ""

class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Word(BaseModel):
    word: str

@tool(effect=ToolEffect.WRITE, approval=ApprovalRule.ALWAYS)
async def send_mail(context: ToolContext, arguments: Mail) -> Word:
    """Send a mail."""
    return Word(word=f"sent to {arguments.to}")

@tool(effect=ToolEffect.READ)
async def count_stars(context: ToolContext, arguments: Nothing) -> Word:
    """Count the stars."""
    context.progress("half of the sky", 0.5)
    while not Path("enough").exists():
        await asyncio.sleep(0.02)
    return Word(word="many")

@tool(effect=ToolEffect.READ)
async def recite(context: ToolContext, arguments: Nothing) -> Word:
    """Recite a long poem."""
    return Word(word="größer " * 200_000)

@tool(effect=ToolEffect.WRITE, timeout_s=600)
async def launch(context: ToolContext, arguments: Nothing) -> Word:
    """Launch the rocket."""
    await asyncio.sleep(600)
    return Word(word="launched")
'''
_SCRIPT = r"""
rules:
  - {after_tool: '*', text: 'That was all.'}
  - when: '^mail (?P<who>\w+)'
    tool_calls: [{name: send_mail, arguments: {to: '{who}', body: "\e[2J\u202Eevil"}}]
  - {when: '^stars', tool_calls: [{name: count_stars}]}
  - {when: '^recite', tool_calls: [{name: recite}]}
  - {when: '^launch', tool_calls: [{name: launch}]}
"""


@contextmanager
def asking_server(folder: Path) -> Iterator[ServerProcess]:
    """Run the server for a block.

    `mail NAME`, `stars`, `recite` and `launch` make its model call a tool; `stars` ends when there is a file `enough`
    in the data directory.
    """
    # A server finds modules in the directory that it runs in, which is cheaper here than PYTHONPATH (see `nursery`).
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "asking_tools.py").write_text(_TOOLS, encoding="utf-8")
    with offline_model(folder, _SCRIPT) as base_url:
        environment = {
            "PARLEY_TOOLS__MODULES": "asking_tools",
            "PARLEY_MODEL__BASE_URL": base_url,
            "PARLEY_MODEL__NAME": "scripted",
        }
        with running_server(data_dir, environment=environment) as running:
            yield running
