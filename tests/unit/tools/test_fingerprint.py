"""Telling one call from another."""

from hypothesis import given
from hypothesis import strategies as st
from parley_server.tools.fingerprint import fingerprint, idempotency_key
from pydantic import JsonValue

KEYS = st.text(max_size=5)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_the_order_of_keys_does_not_matter(arguments: dict[str, JsonValue]) -> None:
    backwards = dict(reversed(arguments.items()))
    assert fingerprint("tool", arguments) == fingerprint("tool", backwards)


def test_name_and_values_matter() -> None:
    prints = {
        fingerprint("a", {"x": 1}),
        fingerprint("b", {"x": 1}),
        fingerprint("a", {"x": "1"}),
        fingerprint("a", {"x": [1]}),
        fingerprint("a", {}),
    }
    assert len(prints) == 5


def test_a_call_keeps_its_key_and_no_other_has_it() -> None:
    key = idempotency_key("run_1", "call_1", "f")
    assert key == idempotency_key("run_1", "call_1", "f")
    others = {("run_2", "call_1", "f"), ("run_1", "call_2", "f"), ("run_1", "call_1", "g")}
    assert key not in {idempotency_key(*other) for other in others}
