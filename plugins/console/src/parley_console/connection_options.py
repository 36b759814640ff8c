"""The options that say which server, and as whom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from parley_console.connection import Connection

Command = TypeVar("Command", bound=Callable[..., Any])

READABLE_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep what an option says of the connection, before the command's name or after it; the latter wins."""
    if value and parameter.name:
        setattr(context.ensure_object(Connection), parameter.name, value)


def _file_option(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=READABLE_FILE, metavar="FILE", help=text, expose_value=False, callback=_remember)


def connection_options(command: Command) -> Command:
    """Add the options; they may stand before a command's name and after it."""
    for option in (
        _file_option("--client-key", "The key of that certificate, as PEM [PARLEY_CLIENT_KEY]."),
        _file_option(
            "--client-certificate", "Certificate to show to the server over TLS, as PEM [PARLEY_CLIENT_CERTIFICATE]."
        ),
        _file_option(
            "--root-certificates",
            "Roots to trust over TLS, as PEM [PARLEY_ROOT_CERTIFICATES, else the ones gRPC brings].",
        ),
        click.option(
            "--tls",
            is_flag=True,
            help="Use TLS. An API key crosses a network in no other way [PARLEY_TLS].",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "--api-key",
            metavar="KEY",
            help="API key. Others on this machine see it here; better set PARLEY_API_KEY.",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "--target",
            metavar="ADDRESS",
            help="Server, HOST:PORT or unix:PATH [PARLEY_TARGET, else 127.0.0.1:50051].",
            expose_value=False,
            callback=_remember,
        ),
    ):
        command = option(command)
    return command
