"""What the operator is told of limits that are missing, and of those that cannot hold."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from server_process import ServerProcess

OPEN = {"PARLEY_SERVER__ALLOW_INSECURE_LISTEN": "true"}
COSTS = {"PARLEY_QUOTAS__EACH_USER__COST_PER_DAY": "5"}
PRICE = {
    f"PARLEY_PRICES__OFFLINE__{key}": value for key, value in (("INPUT", "1"), ("OUTPUT", "1"), ("CURRENCY", "EUR"))
}
WARNINGS = {"nothing_is_limited", "cost_limits_without_prices"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, set()),
        (OPEN, {"nothing_is_limited"}),
        ({**OPEN, "PARLEY_QUOTA_RULES__BOTS__CONCURRENT_RUNS": "9"}, set()),
        (COSTS, {"cost_limits_without_prices"}),
        ({**COSTS, **PRICE}, set()),
    ],
    ids=["local", "open", "open with a limit", "costs", "costs with prices"],
)
def test_an_operator_is_warned_once(tmp_path: Path, environment: Mapping[str, str], expected: set[str]) -> None:
    server = ServerProcess(tmp_path, environment=environment)
    if environment.items() >= OPEN.items():
        server.address = "0.0.0.0:0"  # what the warning is about
    server.start()
    server.kill()
    assert {each for each in WARNINGS if each in server.log} == expected
    assert all(server.log.count(each) == 1 for each in expected)
