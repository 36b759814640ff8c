"""Accounts in the store on every engine, and that no table with a user is left out of an export."""

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.full_user import fill
from parley_server.domain.account import CHANGEABLE, Account, AccountChanges, AccountDefaults, QuietHours
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import EtagMismatchError
from parley_server.storage.sql.account_rows import TOLD_AS_ROWS, user_column
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import metadata

# How a table may say whose its rows are. Whoever has another word adds it.
USER_COLUMNS = {"user_id", "subject"}
# What the listings of conversations, runs, approvals and calls tell.
TOLD_BY_LISTINGS = frozenset(
    {
        "accounts",
        "approvals",
        "conversations",
        "messages",
        "runs",
        "tool_call_resolutions",
        "tool_calls",
        "tool_results",
    }
)
# Words of what is told, for the search; that somebody is erased, of whom nothing is told any more; and what calls of
# models take of limits for a while, of which the usage is told.
NOT_TOLD = frozenset({"search_texts", "erasures", "quota_holds"})
# What outlives a user: who did what, without what he wrote, and the limits that administrators set.
KEPT = {"audit_log", "budgets"}


def test_every_table_with_a_user_is_exported_or_said_not_to_be() -> None:
    with_user = {name for name, table in metadata.tables.items() if USER_COLUMNS & set(table.c.keys())}
    as_rows = {table.name for table in TOLD_AS_ROWS}
    assert with_user == as_rows | TOLD_BY_LISTINGS | NOT_TOLD
    assert not as_rows & TOLD_BY_LISTINGS
    assert not NOT_TOLD & (as_rows | TOLD_BY_LISTINGS)
    assert all(user_column(metadata.tables[name]) is not None for name in with_user)


def test_every_table_that_hangs_on_a_run_or_a_conversation_goes_with_it() -> None:
    """What has no user is reached by what it belongs to, which deletion names; nothing else may be without one."""
    without = {name for name, table in metadata.tables.items() if not USER_COLUMNS & set(table.c.keys())}
    assert without - KEPT == {"run_archive", "run_journal", "run_labels", "steers", "tool_result_contents"}


async def test_an_account_is_kept_and_changed_field_by_field(
    open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    hours = QuietHours(1320, 420)
    async with open_same_store() as store:
        account = store.for_user(ann).account
        assert await account.get() == Account("ann")
        made = await account.update(AccountChanges(CHANGEABLE, "Ann", "Asia/Tokyo", "ja-JP", hours), "0")
        assert (made.display_name, made.time_zone, made.locale, made.quiet_hours) == (
            "Ann",
            "Asia/Tokyo",
            "ja-JP",
            hours,
        )
    async with open_same_store() as store:
        account = store.for_user(ann).account
        assert await account.get() == made
        assert await store.accounts.defaults_of("ann") == AccountDefaults("Asia/Tokyo", "ja-JP")
        assert await store.accounts.defaults_of("bob") == AccountDefaults()
        changed = await account.update(AccountChanges(frozenset({"locale", "quiet_hours"})), made.etag)
        assert (changed.time_zone, changed.locale, changed.quiet_hours) == ("Asia/Tokyo", "", None)
        with pytest.raises(EtagMismatchError):
            await account.update(AccountChanges(frozenset({"locale"})), made.etag)
        assert await store.for_user(bob).account.get() == Account("bob")


async def test_rows_are_told_table_by_table_without_secrets_and_all_of_them(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    made = await fill(store, ann, "hers", conversations=2)
    await fill(store, bob, "his", conversations=1)
    user = store.for_user(ann)
    assert [each async for each in user.account.conversation_ids()] == sorted(
        [each async for each in user.account.conversation_ids()]
    )
    assert set(made) < {each async for each in user.account.conversation_ids()}
    for number in range(250):
        await user.notes.add(f"more {number}")
    rows = [each async for each in user.account.rows()]
    kinds = [row.kind for row in rows]
    assert list(dict.fromkeys(kinds)) == ["notes", "apiKeys", "usageDays", "requestIds"]
    assert (kinds.count("notes"), kinds.count("apiKeys"), kinds.count("requestIds")) == (290, 1, 42)
    assert not any("his" in str(row.columns.values()).split("'") for row in rows)
    [key] = [row.columns for row in rows if row.kind == "apiKeys"]
    assert key["scopes"] == []
    assert not any("Hash" in name for name in key)
    note = rows[0].columns
    assert set(note) == {"noteId", "userId", "text", "createTime"}
    assert str(note["createTime"]).endswith("Z")
