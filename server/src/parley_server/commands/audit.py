"""`parley-server audit`: verify the audit log, print its head, hand its entries on; also beside a running server."""

# ruff: noqa: PLC0415  # what a command needs is imported when it runs, so that `--help` is fast

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parley_server.commands.program import Refusal, load, run, with_config

if TYPE_CHECKING:
    from parley_server.domain.audit import AuditHead, AuditReport
    from parley_server.storage.sql.audit_verification import AuditReader


def _head(_: click.Context, __: click.Parameter, text: str | None) -> "AuditHead | None":
    from parley_server.domain.audit import AuditHead

    try:
        return None if text is None else AuditHead.parse(text)
    except ValueError:
        raise click.BadParameter("write what `parley-server audit head` printed") from None


@click.group()
def audit() -> None:
    """Look at who did what."""


@audit.command("verify")
@click.option("--from", "start", type=click.IntRange(1), default=1, help="The first position; default: all.")
@click.option("--expect-head", "expected", callback=_head, help="What `audit head` printed before.")
@with_config
def verify_audit(start: int, expected: "AuditHead | None", **where: Path | None) -> None:
    """Prove that no entry was changed, moved, put in or taken away; exit code 1 names the first that is wrong.

    That the newest entries were cut off only a head shows that was kept elsewhere.
    """

    async def verify() -> "AuditReport":
        async with _reader(where) as reader:
            return await reader.verify(start, expected)

    report = run(verify())
    if report.problem is not None:
        wrong = f"entry {report.problem.position} {report.problem.description}"
        raise Refusal(f"{wrong}; as written before it: {_told(report)}")
    click.echo(f"ok: {_told(report)}" + (f", head {report.head}" if report.head else ""))


@audit.command("head")
@with_config
def print_head(**where: Path | None) -> None:
    """Print the newest entry's position and MAC, to be kept where who has the database does not get."""

    async def head() -> "AuditHead | None":
        async with _reader(where) as reader:
            return await reader.head()

    found = run(head())
    if found is None:
        raise Refusal("the audit log has no entry")
    click.echo(str(found))


@audit.command("export")
@click.option("--after", type=click.IntRange(0), default=0, help="The position of the last entry that one has.")
@with_config
def export_audit(after: int, **where: Path | None) -> None:
    """Write all entries as JSON lines, the oldest first."""
    from parley_server.rpc.mapping.audit_event import audit_json
    from parley_server.storage.sql.audit_rows import UnreadableEntryError

    async def export() -> None:
        async with _reader(where) as reader:
            async for recorded in reader.entries(after):
                click.echo(audit_json(recorded))

    try:
        run(export())
    except UnreadableEntryError as error:
        raise Refusal("the next entry cannot be read; `parley-server audit verify` says more") from error


def _reader(where: dict[str, Path | None]) -> "AbstractAsyncContextManager[AuditReader]":
    from parley_server.composition import auditing

    return auditing.audit_reader(load(where["config"], where["data_dir"]))


def _told(report: "AuditReport") -> str:
    if report.first_time is None or report.last_time is None:
        return "0 entries"
    return (
        f"{report.count} entries from {report.first_time:%Y-%m-%dT%H:%M:%SZ} to {report.last_time:%Y-%m-%dT%H:%M:%SZ}"
    )
