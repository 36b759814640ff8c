"""The command line of the server. What a command needs is imported when it runs, so that `--help` is fast."""

# ruff: noqa: PLC0415  # see above

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parley_server.commands.audit import audit
from parley_server.commands.credentials import credentials
from parley_server.commands.db import db
from parley_server.commands.keys import keys
from parley_server.commands.mcp import mcp
from parley_server.commands.program import ConfigFailure, Program, load, run, with_config
from parley_server.domain.errors import StartError

if TYPE_CHECKING:
    from parley_server.settings import Settings


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="parley-server")
def cli() -> None:
    """Parley, a self-hosted agent service."""


cli.add_command(audit)
cli.add_command(credentials)
cli.add_command(db)
cli.add_command(keys)
cli.add_command(mcp)


@cli.command()
@click.option("--listen", help="HOST:PORT, with port 0 for any free one, or unix:PATH.")
@with_config
@click.pass_context
def serve(context: click.Context, listen: str | None, config: Path | None, data_dir: Path | None) -> None:
    """Serve until interrupted."""
    settings = load(config, data_dir, listen)
    from parley_server.logs import configure_logging

    dropped_log_lines = configure_logging(settings.log)
    from parley_server import app
    from parley_server.signals import ProcessSignals

    run(app.serve(settings, context.ensure_object(ProcessSignals), dropped_log_lines))


@cli.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("check")
@with_config
def check_config(config: Path | None, data_dir: Path | None) -> None:
    """Read the settings and say all that is wrong with them; exit code 78 if anything is."""
    settings = load(config, data_dir)
    problems = []
    for check in (_check_listener, _check_certificate, _check_issuers):
        try:
            check(settings)
        except StartError as error:
            problems.append(str(error))
    if problems:
        raise StartError("\n".join(problems))
    click.echo(f"ok: {settings.config_file or 'no configuration file'}, data in {settings.data_dir}")


def _check_listener(settings: "Settings") -> None:
    from parley_server.rpc.listener import Listener

    listener = Listener.parse(settings.server.listen)
    if not listener.path:  # a socket that is served is no fault of the settings
        has_tls = settings.tls.files is not None
        listener.check(has_tls=has_tls, allow_insecure=settings.server.allow_insecure_listen)


def _check_certificate(settings: "Settings") -> None:
    from parley_server.rpc.certificates import load_certificate

    if settings.tls.files is not None:
        load_certificate(settings.tls.files, datetime.now(UTC))


def _check_issuers(settings: "Settings") -> None:
    if settings.issuers:
        from parley_server.auth.jwt_provider import JwtProvider

        JwtProvider(settings.issuers, hash_key=bytes(32))


@config_group.command("show")
@click.option("--redacted/--with-secrets", default=True, help="Hide secrets (the default), or print them in the clear.")
@with_config
def show_config(redacted: bool, config: Path | None, data_dir: Path | None) -> None:
    """Print the settings in force as a configuration file."""
    settings = load(config, data_dir)
    from parley_server.settings_text import settings_text

    click.echo(settings_text(settings, with_secrets=not redacted))


@cli.group("models")
def models_group() -> None:
    """Look at the model servers."""


@models_group.command("check")
@click.argument("model", default="")
@with_config
@click.pass_context
def check_models(context: click.Context, model: str, config: Path | None, data_dir: Path | None) -> None:
    """Ask the model servers what they take, in small questions, for MODEL or for one model of each.

    Exit code 0: as Parley assumes; 1: not so, and the lines of the configuration that correct it are printed; 3: a
    server cannot be reached, refuses the key or does not answer.
    """
    settings = load(config, data_dir)
    from parley_server.llm.check.command import check_models

    context.exit(run(check_models(settings.model_settings(), settings.providers, model, click.echo)))


@cli.command("offline-model")
@click.option("--listen", default="127.0.0.1:8111", show_default=True, help="HOST:PORT.")
@click.option("--script", type=click.Path(path_type=Path), help="What to answer; default: the shipped script.")
@click.option("--record", metavar="BASE_URL", help="Pass requests on to this server and write a script of its answers.")
def offline_model(listen: str, script: Path | None, record: str | None) -> None:
    """Serve the scripted model that stands in for a real one."""
    if record and script is None:
        raise click.UsageError("--record needs --script, the file to write")
    from parley_server.llm.offline.command import run_offline_model, run_recorder
    from parley_server.llm.offline.script import ScriptError
    from parley_server.logs import configure_logging
    from parley_server.settings import LogSettings

    configure_logging(LogSettings())
    try:
        if record and script is not None:
            run_recorder(listen, record, script)
        else:
            run_offline_model(listen, script)
    except (ValueError, ScriptError, OSError) as error:
        raise ConfigFailure(str(error)) from error
