"""A user who has something in every table, with a word of his own in everything that he can write."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from contract.storage.test_repositories import ANSWERED, spec
from parley_server.domain.account import CHANGEABLE, AccountChanges, QuietHours
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.approval import Approval, ApprovalAnswer, Remember
from parley_server.domain.context import RequestContext
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.identifiers import new_id
from parley_server.domain.message import AssistantItem, ToolCallItem
from parley_server.domain.principal import PrincipalKind
from parley_server.domain.resolution import CallOutcome
from parley_server.domain.run import Run
from parley_server.domain.run_event import MessageCompleted, RunStarted, TextDelta, ToolCallFinished, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import FinishedItem, RunConclusion
from parley_server.storage.sql.store import SqlStore


async def fill(store: SqlStore, context: RequestContext, word: str, conversations: int = 12) -> list[str]:
    """Give a user something of everything; returns the ids of his conversations."""
    context = context.with_metadata(device=word)
    user = store.for_user(context)
    await user.account.update(AccountChanges(CHANGEABLE, word, "Asia/Tokyo", "ja-JP", QuietHours(1320, 420)))
    await store.api_keys.create(_key(context.user_id))
    for number in range(40):
        await user.notes.add(f"{word} note {number}", Idempotency(f"{word}-{number}", "notes", b"f"))
    made = [await _converse(store, context, word) for _ in range(conversations)]
    forked = await user.conversations.fork(made[0], title=f"{word} again")
    await user.conversations.create(f"{word} empty", {word: word})
    return [*made, forked.conversation_id]


async def wait_for_approval(store: SqlStore, context: RequestContext, word: str) -> Run:
    """Have a run wait for its user; the one question is answered for the whole conversation, the other is not."""
    user = store.for_user(context)
    run = (await user.runs.accept(spec(f"book {word}"), None)).run
    asked = [_approval(run, context, word) for _ in range(2)]
    pen = store.worker.appender(run.run_id)
    await pen.begin(RunStarted("m"))
    await pen.suspend(asked, [])
    await user.approvals.decide(asked[0].approval_id, ApprovalAnswer(True, f"yes {word}", Remember.CONVERSATION))
    return run


async def erase(store: SqlStore, user_id: str) -> None:
    """Do what the eraser does, but for the runs."""
    await store.erasures.begin(user_id)
    while await store.erasures.erase_some(user_id):
        pass
    await scrub(store)
    assert await store.erasures.finish(user_id)


async def scrub(store: SqlStore) -> None:
    """Have everything that was deleted leave the files."""
    while await store.erasures.scrub_some():
        pass
    await store.erasures.scrub()


async def _converse(store: SqlStore, context: RequestContext, word: str) -> str:
    """Play a run with many deltas, an answer, and a call of unknown outcome with a result too large to be told."""
    user = store.for_user(context)
    asked = spec(f"asks {word}", labels={word: word})
    run = (await user.runs.accept(asked, Idempotency(new_id(word), "run", b"f"))).run
    pen = store.worker.appender(run.run_id)
    await pen.begin(RunStarted("m"))
    for number in range(20):
        await pen.append(TextDelta(f"{word} {number} "), f"text_{run.run_id}")
        await pen.flush()
    await pen.append(MessageCompleted(f"{word} " * 20), f"text_{run.run_id}")
    call_id, item_id, result_id = f"call_{run.run_id}", f"item_{run.run_id}", f"result_{run.run_id}"
    record = CallRecord(call_id, item_id, "much", ToolEffect.WRITE, CallState.DISPATCHED)
    await pen.append_all([(ToolCallStarted(call_id, "much", f'{{"{word}":1}}', ToolEffect.WRITE), item_id)], [record])
    unknown = ToolCallStatus.UNKNOWN_OUTCOME
    whole = f'"{word} {random.Random(1).randbytes(20_000).hex()} {word}"'  # to be no shorter when packed
    await pen.append(
        ToolCallFinished(call_id, "much", unknown, "{}", True, result_id=result_id, whole_json=whole), item_id
    )
    items = (
        FinishedItem(f"text_{run.run_id}", AssistantItem(f"{word} " * 20)),
        FinishedItem(
            item_id, ToolCallItem(call_id, "much", f'{{"{word}":1}}', ToolEffect.WRITE, unknown, "{}", True, result_id)
        ),
    )
    await pen.finish(RunConclusion(ANSWERED, Usage(), items, items[0].message_id, f"{word} " * 20))
    await user.tool_calls.resolve(run.run_id, call_id, CallOutcome.HAPPENED, f"note {word}")
    return run.conversation_id


def _approval(run: Run, context: RequestContext, word: str) -> Approval:
    now = datetime.now(UTC)
    return Approval(
        approval_id=new_id("apr"),
        user_id=context.user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        call_id=new_id("call"),
        tool_name="book",
        tool_description=f"Books {word}.",
        effect=ToolEffect.WRITE,
        arguments_json=f'{{"what":"{word}"}}',
        fingerprint="f" * 64,
        spec_hash="s" * 64,
        create_time=now,
        expire_time=now + timedelta(hours=1),
    )


def _key(user_id: str) -> StoredKey:
    key = ApiKey(
        key_id=new_id("key"),
        kind=PrincipalKind.USER,
        subject=user_id,
        scopes=frozenset(),
        act_as=(),
        create_time=datetime.now(UTC),
    )
    return StoredKey(key, b"h" * 32)


def service_key(subject: str) -> StoredKey:
    """Return a key of a service that has a user's name."""
    stored = _key(subject)
    return replace(stored, key=replace(stored.key, kind=PrincipalKind.SERVICE))
