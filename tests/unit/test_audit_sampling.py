"""However callers are refused, what is recorded of it is bounded, and what is left out is counted."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.audit import AuditEntry
from parley_server.rpc.audit_sampling import WINDOW_S, EntrySampler

MOST, MAX_ORIGINS = 3, 2


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def entry(origin: str) -> AuditEntry:
    return AuditEntry(datetime(2026, 1, 1, tzinfo=UTC), "call", peer=origin)


STEPS = st.lists(st.sampled_from(["a", "b", "c", "d", "time"]), max_size=60)


@given(STEPS)
def test_every_entry_is_recorded_or_counted(steps: list[str]) -> None:
    clock = Clock()
    sampler = EntrySampler(MOST, MAX_ORIGINS, clock)
    recorded: list[AuditEntry] = []
    passed = 0
    for step in steps:
        if step == "time":
            clock.now += WINDOW_S
            recorded += sampler.due()
            passed = 0
        else:
            new = list(sampler.sift(step, entry(step)))
            recorded += new
            passed += len(new)
        # Those of so many origins, and of all others together.
        assert passed <= MOST * (MAX_ORIGINS + 1)
    recorded += sampler.due(is_over=True)
    assert sum(each.left_out or 1 for each in recorded) == sum(step != "time" for step in steps)


def test_a_window_that_is_not_over_is_not_told_of() -> None:
    clock = Clock()
    sampler = EntrySampler(1, 1, clock)
    assert [len(list(sampler.sift("a", entry("a")))) for _ in range(3)] == [1, 0, 0]
    assert list(sampler.due()) == []
    clock.now = WINDOW_S
    assert [each.left_out for each in sampler.due()] == [2]
    assert list(sampler.sift("a", entry("a"))) == [entry("a")]
