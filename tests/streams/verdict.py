"""Whether a client made of a stream what should come of it."""

import json
from collections.abc import Sequence

from streams.corpus import Expected, ExpectedCall


def differences(expected: Expected, outcome: Expected) -> list[str]:
    """What is wrong with an outcome, in words; empty when nothing is.

    A client says its outcome in the corpus's own terms. Ids that the server did not send, and a usage that the case
    does not name, may be anything.
    """
    if expected.outcome != outcome.outcome:
        return [f"outcome: {_ending(expected)} expected, {_ending(outcome)} came"]
    names = ("error", "text", "reasoning", "refusal", "finish")
    wrong = [name for name in names if getattr(expected, name) != getattr(outcome, name)]
    if expected.usage is not None and expected.usage != outcome.usage:
        wrong.append("usage")
    told = [f"{name}: {getattr(expected, name)!r} expected, {getattr(outcome, name)!r} came" for name in wrong]
    return told + _calls(expected.tool_calls, outcome.tool_calls)


def _ending(expected: Expected) -> str:
    return expected.error or expected.outcome


def _calls(expected: Sequence[ExpectedCall], came: Sequence[ExpectedCall]) -> list[str]:
    if len(expected) != len(came):
        return [f"tool calls: {len(expected)} expected, {len(came)} came"]
    told = [
        f"tool call: {one!r} expected, {other!r} came"
        for one, other in zip(expected, came, strict=True)
        if not _alike(one, other)
    ]
    if not all(call.id for call in came) or len({call.id for call in came}) != len(came):
        told.append("tool calls: their ids are not different from each other")
    return told


def _alike(expected: ExpectedCall, came: ExpectedCall) -> bool:
    same_id = expected.id in {None, came.id}
    return same_id and expected.name == came.name and _same_value(expected.arguments, came.arguments)


def _same_value(one: str, other: str) -> bool:
    """Compare JSON by value, and what is no JSON character by character."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return one == other
