"""Usage and budgets as the client and the console tell of them."""

from pathlib import Path

from catalogue.door import PATIENT
from parley.v1.usage_service_pb2 import USAGE_GROUPING_DAY, USAGE_GROUPING_MODEL, Budget, QuotaLimits
from parley_client import ParleyClient
from parley_client import sync as blocking
from parley_console.usage_commands import show_usage
from server_process import running_server
from unit.console.recording_terminal import RecordingTerminal

PRICED = {
    **PATIENT,
    "PARLEY_PRICES__OFFLINE__INPUT": "1",
    "PARLEY_PRICES__OFFLINE__OUTPUT": "1",
    "PARLEY_PRICES__OFFLINE__CURRENCY": "EUR",
    "PARLEY_QUOTAS__EACH_USER__COST_PER_MONTH": "5",
    "PARLEY_QUOTA_RULES__ALL__REQUESTS_PER_MINUTE": "100000",
}


async def test_what_was_used_and_what_is_left_is_told(tmp_path: Path) -> None:
    with running_server(tmp_path, environment=PRICED) as server:
        async with ParleyClient(server.address) as client:
            terminal = RecordingTerminal()
            await show_usage(client, terminal)
            assert terminal.lines[0] == "nothing was used in the last 30 days"
            async with client.run("hello") as run:
                await run.wait()
            (row,) = await client.usage(group_by=[USAGE_GROUPING_DAY, USAGE_GROUPING_MODEL])
            assert (row.runs, row.usage.currency_code, row.unpriced_calls) == (1, "EUR", 0)
            assert row.usage.cost_micros == row.usage.input_tokens + row.usage.output_tokens
            assert await client.usage(model="another") == []
            user_id = (await client.budgets())[0].user_id
            mine = Budget(user_id=user_id, models=["off*"], limits=QuotaLimits(tokens_per_minute=1_000_000))
            assert (await client.set_budget(mine)).etag
            terminal = RecordingTerminal()
            await show_usage(client, terminal)
        cost = row.usage.cost_micros
        assert terminal.lines[0].startswith(f"offline · 1 run · {row.usage.input_tokens} tokens in")
        assert f"{5 - cost / 1e6:,.4f} of 5.0000 cost per month left to you" in terminal.lines
        assert f"{1_000_000 - cost:,} of 1,000,000 tokens per minute left to you with off*" in terminal.lines
        assert any(line.endswith("of 100,000 requests per minute left to all callers") for line in terminal.lines)
        with blocking.ParleyClient(server.address) as client:
            assert [each.usage for each in client.usage()] == [row.usage]
            assert len(client.budgets()) == 3
