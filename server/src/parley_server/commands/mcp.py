"""The commands that look after MCP servers."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

from pathlib import Path

import click

from parley_server.commands.program import Refusal, load, run, with_config
from parley_server.domain.errors import StartError


@click.group()
def mcp() -> None:
    """Look after MCP servers."""


@mcp.command("pin")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Accept without a question.")
@with_config
def pin(name: str, yes: bool, config: Path | None, data_dir: Path | None) -> None:
    """Show what the server [mcp.NAME] lists other than was accepted, and accept it; also beside a running server."""
    settings = load(config, data_dir)
    from parley_server.tools.mcp.mcp_settings import PACKAGE_MISSING

    try:
        from parley_server.tools.mcp.command import review
    except ModuleNotFoundError as error:
        raise StartError(PACKAGE_MISSING) from error
    from parley_server.logs import configure_logging
    from parley_server.tools.credentials.opening import open_credentials

    configure_logging(settings.log)
    if name not in settings.mcp:
        raise Refusal(f"there is no [mcp.{name}]; there are {', '.join(sorted(settings.mcp)) or 'none'}")
    credentials = open_credentials(settings.credentials, settings.data_dir)
    found = run(review(name, settings.mcp[name], settings.data_dir, credentials))
    differences = list(found.differences())
    for line in differences:
        click.echo(line)
    if differences and not yes:
        click.confirm("Accept this?", abort=True)
    found.accept()
    click.echo(f"ok: what {name} lists is accepted; tools: {len(found.listed)}")
