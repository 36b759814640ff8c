"""Usage and holds behind every commit of a limited run: what its log tells is counted, once, and nothing stays held."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from contract.recovery.test_every_commit import SHAPES, crashes_of, durable_events, recover
from parley.v1 import run_event_pb2
from parley_server.domain.context import RequestContext
from parley_server.domain.quota import QuotaLimits, QuotaRule
from parley_server.domain.run import Limits
from parley_server.quotas.quotas import Quotas

ROOM = QuotaRule("room", QuotaLimits(concurrent_runs=1, tokens_per_minute=10**9), users=("*",))
USAGE = """SELECT coalesce(sum(input_tokens + output_tokens), 0), coalesce(sum(model_calls), 0),
    coalesce(sum(tool_calls), 0), coalesce(sum(runs), 0) FROM usage_days"""
HELD = "SELECT count(*) FROM quota_holds WHERE NOT is_settled"


def one(path: Path, query: str) -> tuple[int, ...]:
    """Read one row of a database nobody has open."""
    with closing(sqlite3.connect(path)) as connection:
        row: tuple[int, ...] = connection.execute(query).fetchone()
        return row


def told(events: Sequence[run_event_pb2.RunEvent]) -> tuple[int, ...]:
    """Return what a log tells was used, and whether it has ended."""
    usages = [event.usage_updated.usage for event in events if event.HasField("usage_updated")]
    ended = any(event.HasField("run_finished") for event in events)
    if not usages:
        return 0, 0, 0, int(ended)
    last = usages[-1]
    return last.input_tokens + last.output_tokens, last.model_calls, last.tool_calls, int(ended)


@pytest.mark.parametrize("shape", ["a turn of every effect", "steps without text"])
async def test_what_is_counted_is_what_the_log_tells(shape: str, tmp_path: Path, ann: RequestContext) -> None:
    steps, quotas = SHAPES[shape], Quotas([ROOM])
    run_id, crashes, whole = await crashes_of(tmp_path, ann, steps, Limits(), quotas)
    assert told(whole)[0] > 0
    held = 0
    for crash in crashes:
        if one(crash.path, "SELECT count(*) FROM runs WHERE finish_time IS NULL") == (1,):
            assert one(crash.path, USAGE) == told(durable_events(crash.path, run_id))
            held += one(crash.path, HELD)[0]
        events = await recover(crash, ann, run_id, steps, quotas)
        assert one(crash.path, USAGE) == told(events) == told(whole)
        assert one(crash.path, HELD) == (0,)
    assert held >= len(steps)
