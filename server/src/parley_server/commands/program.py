"""What every command shares: its errors as sentences, where the settings are, the loop it runs on."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import click

from parley_server.domain.errors import ParleyError, StartError

if TYPE_CHECKING:
    from parley_server.settings import Settings

T = TypeVar("T")
CommandT = TypeVar("CommandT", bound=Callable[..., None])


class Refusal(click.ClickException):
    """Ends the program with one sentence: what was asked for cannot be done."""

    def show(self, file: IO[str] | None = None) -> None:
        """Write the sentence to standard error, or the sentences, one a line."""
        for sentence in self.message.splitlines():
            click.echo(f"parley-server: {sentence}", file=file, err=True)


class ConfigFailure(Refusal):
    """Ends the program with one sentence: something has to be set right first."""

    exit_code = 78


class Program(click.Group):
    """Turns the server's own errors into sentences."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            raise ConfigFailure(str(error)) from error
        except ParleyError as error:
            raise Refusal(error.message) from error


def with_config(command: CommandT) -> CommandT:
    """Add the options that say where the settings are."""
    config = click.option("--config", type=click.Path(path_type=Path), help="The settings; default: parley.toml.")
    data_dir = click.option("--data-dir", type=click.Path(path_type=Path), help="Where the server keeps its data.")
    return config(data_dir(command))


def load(config: Path | None, data_dir: Path | None, listen: str | None = None) -> "Settings":
    """Read the settings. Raises StartError."""
    from parley_server.settings import load_settings

    flags = {} if listen is None else {("server", "listen"): listen}
    return load_settings(config=config, data_dir=data_dir and data_dir.expanduser().absolute(), flags=flags)


def run(work: Coroutine[object, object, T]) -> T:
    """Run on uvloop, which spends a fifth less on every call, where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
