"""`parley-server db`: upgrade, compact, back up, check and restore the database, and the roles it needs."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parley_server.commands.program import Refusal, load, run, with_config

if TYPE_CHECKING:
    from parley_server.storage.sql.integrity import Report


@click.group()
def db() -> None:
    """Look after the database."""


@db.command("upgrade")
@with_config
def upgrade_database(config: Path | None, data_dir: Path | None) -> None:
    """Bring the database to this version's schema."""
    settings = load(config, data_dir)
    from parley_server.composition import installation

    run(installation.upgrade_database(settings))


@db.command("compact")
@with_config
def compact_database(config: Path | None, data_dir: Path | None) -> None:
    """Write the database anew, without anything that was deleted; SQLite's while no server runs."""
    settings = load(config, data_dir)
    from parley_server.composition import installation

    run(installation.compact_database(settings))


@db.command("roles")
@with_config
def print_roles(config: Path | None, data_dir: Path | None) -> None:
    """Print the SQL by which an administrator of PostgreSQL makes the roles that the database needs."""
    settings = load(config, data_dir)
    from parley_server.composition import installation

    click.echo(run(installation.roles_of_database(settings)))


@db.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@with_config
def back_up_database(file: Path, config: Path | None, data_dir: Path | None) -> None:
    """Write the database to FILE, also beside a running server; a FILE that is there is replaced."""
    settings = load(config, data_dir)
    from parley_server.composition import installation

    click.echo(f"ok: {file}: {_told(installation.back_up_database(settings, file))}")


@db.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@with_config
def check_database(file: Path | None, config: Path | None, data_dir: Path | None) -> None:
    """Look FILE over, a backup, or the database itself; exit code 1 if anything is wrong with it."""
    settings = load(config, data_dir)
    from parley_server.composition import installation

    report = installation.check_database(settings, file)
    if report.problems:
        raise Refusal("\n".join(report.problems))
    click.echo(f"ok: {_told(report)}")


@db.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@with_config
def restore_database(file: Path, config: Path | None, data_dir: Path | None) -> None:
    """Put the backup FILE in the database's place, while no server runs; the former database is kept beside it."""
    settings = load(config, data_dir)
    from parley_server.composition import auditing, installation

    report, former = installation.restore_database(settings, file)
    # Afterwards, for the log that goes on is the backup's.
    run(auditing.record_command(settings, auditing.operator_entry("db restore")))
    click.echo(f"ok: {_told(report)}" + (f"; the former database is {former}" if former else ""))


def _told(report: "Report") -> str:
    return ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
