"""Exports all that the server has of a user, a few things at a time, in the order that ExportAccount promises."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from parley_server.domain.errors import NotFoundError
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.account import write_account
from parley_server.rpc.mapping.approval import write_approval
from parley_server.rpc.mapping.export import Json, json_line
from parley_server.rpc.mapping.run import write_run
from parley_server.rpc.mapping.tool import write_tool_call
from parley_server.rpc.servicers.export import PAGE_SIZE, export_lines
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.repositories import ApprovalFilter, RunFilter, ToolCallFilter, UserStore

T = TypeVar("T")

Listing = Callable[[PageRequest], Awaitable[Page[T]]]


async def account_lines(user: UserStore, drain: Drain) -> AsyncGenerator[str]:
    """Yield the lines of a user.

    Raises:
        ServerDrainingError: the server is stopping, and so is the export.
    """
    yield json_line("account", _json(write_account(await user.account.get())))
    for part in (
        _conversations(user, drain),
        _listed("run", partial(user.runs.list, RunFilter()), write_run, drain),
        _listed("approval", partial(user.approvals.list, ApprovalFilter()), write_approval, drain),
        _listed("toolCall", partial(user.tool_calls.list, ToolCallFilter()), write_tool_call, drain),
        _rows(user, drain),
    ):
        async with aclosing(part) as lines:
            async for line in lines:
                yield line


async def _conversations(user: UserStore, drain: Drain) -> AsyncGenerator[str]:
    async with aclosing(user.account.conversation_ids()) as ids:
        async for conversation_id in ids:
            try:
                conversation = await user.conversations.get(conversation_id)
                async with aclosing(export_lines(user, conversation, drain)) as lines:
                    async for line in lines:
                        yield line
            except NotFoundError:
                # Deleted or expired meanwhile, or about to be.
                continue


async def _listed(kind: str, listing: Listing[T], write: Callable[[T], Message], drain: Drain) -> AsyncGenerator[str]:
    token = ""
    while True:
        page = await drain.bound(partial(listing, PageRequest(PAGE_SIZE, token)))
        for item in page.items:
            yield json_line(kind, _json(write(item)))
        token = page.next_token
        if not token:
            return


async def _rows(user: UserStore, drain: Drain) -> AsyncGenerator[str]:
    async with aclosing(user.account.rows()) as rows:
        while (row := await drain.bound(partial(anext, rows, None))) is not None:
            yield json_line(row.kind, row.columns)


def _json(message: Message) -> Json:
    told: Json = MessageToDict(message)
    return told
