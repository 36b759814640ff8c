"""The catalogue's index: every row of docs/bad-input.md, every conformance case and every reason has its test."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import grpc
import parley_server.domain
import pytest
from catalogue.conformance import CASES, REASONS
from parley_server.domain.errors import ParleyError, Reason

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "bad-input.md"
NOT_YET = "not yet: "
# A status alone, or one with a reason of ours behind it.
_ANSWER = re.compile(
    r"\b([A-Z]+(?:_[A-Z]+)+|INTERNAL|UNAVAILABLE|UNIMPLEMENTED|UNAUTHENTICATED|ABORTED)\b(?: `(\w+)`)?"
)


class Row(NamedTuple):
    """A line of the table."""

    number: int
    answer: str
    shown_by: str

    def __str__(self) -> str:
        return str(self.number)


def rows() -> Iterator[Row]:
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| \d", line):
            number, _, answer, shown_by = line.strip("| ").split(" | ")
            yield Row(int(number), answer, shown_by)


ROWS = list(rows())


@cache
def functions_of(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def check_exists(test_id: str) -> None:
    file, _, function = test_id.partition("::")
    assert function.startswith("test_"), test_id
    assert function in functions_of(TESTS / file), f"there is no {test_id}"


def kinds() -> dict[str, str]:
    """Return each reason's status, as the errors have them."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(parley_server.domain.__path__, "parley_server.domain."):
        importlib.import_module(module.name)
    pending = [ParleyError]
    while pending:
        error = pending.pop()
        found[error.reason] = error.kind.name
        pending += error.__subclasses__()
    return found


def test_the_catalogue_is_whole() -> None:
    assert [row.number for row in ROWS] == list(range(1, 71))
    assert list(CASES) == list(range(1, 42))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_names_its_tests_or_what_it_waits_for(row: Row) -> None:
    if row.shown_by.startswith(NOT_YET):
        return
    test_ids = re.findall(r"`([^`]+)`", row.shown_by)
    assert test_ids
    for test_id in test_ids:
        check_exists(test_id)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_names_statuses_and_reasons_that_go_together(row: Row) -> None:
    for status, reason in _ANSWER.findall(row.answer):
        if status in Reason.__members__ or status == "RST_STREAM":
            continue
        assert status in grpc.StatusCode.__members__
        assert not reason or kinds()[reason] == status


@pytest.mark.parametrize("case", CASES)
def test_a_case_names_its_tests_or_what_it_waits_for(case: int) -> None:
    for test_id in CASES[case]:
        if not test_id.startswith(NOT_YET):
            check_exists(test_id)


def test_every_reason_is_reached_by_a_test() -> None:
    """Which test that is, is said here; that it does, by its own file, where the reason is named."""
    assert REASONS.keys() == set(Reason)
    for reason, test_id in REASONS.items():
        if test_id.startswith(NOT_YET):
            continue
        check_exists(test_id)
        assert reason in (TESTS / test_id.partition("::")[0]).read_text(encoding="utf-8"), test_id
