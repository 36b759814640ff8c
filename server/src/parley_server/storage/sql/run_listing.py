"""The statement of ListRuns, made once for every kind of filter: to make and compile one costs more than to run it."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Select, bindparam, exists, select

from parley_server.storage.repositories import RunFilter
from parley_server.storage.sql.expiry import of_living_conversation
from parley_server.storage.sql.tables import run_labels, runs

# What a run is shown from. What its execution needs stays where it is: the input alone can be megabytes.
COLUMNS = [column for column in runs.c if column.name not in {"context_json", "spec_json", "image_bytes"}]
_LISTED_COLUMNS = [column for column in COLUMNS if column.name not in {"output_text", "output_json"}]


def listing(run_filter: RunFilter, *, is_first: bool) -> Select[tuple[object, ...]]:
    """Return the statement that lists a user's runs, the latest created first, behind `before` unless it `is_first`.

    Its parameters are `user_id`, `now`, `limit`, `before` and those of `filter_parameters`.
    """
    return _listing(
        bool(run_filter.conversation_id),
        bool(run_filter.agent_id),
        len(run_filter.states),
        len(run_filter.labels),
        is_first,
    )


def filter_parameters(run_filter: RunFilter) -> dict[str, object]:
    """Return what the filter's own parameters are."""
    parameters: dict[str, object] = {f"state_{place}": state for place, state in enumerate(run_filter.states)}
    for place, (key, value) in enumerate(run_filter.labels):
        parameters |= {f"key_{place}": key, f"value_{place}": value}
    if run_filter.conversation_id:
        parameters["conversation_id"] = run_filter.conversation_id
    if run_filter.agent_id:
        parameters["agent_id"] = run_filter.agent_id
    return parameters


@lru_cache(maxsize=64)
def _listing(
    of_conversation: bool,
    of_agent: bool,
    states: int,
    labels: int,
    is_first: bool,
) -> Select[tuple[object, ...]]:
    conditions: list[ColumnElement[bool]] = [runs.c.user_id == bindparam("user_id"), of_living_conversation()]
    if of_conversation:
        conditions.append(runs.c.conversation_id == bindparam("conversation_id"))
    if of_agent:
        conditions.append(runs.c.agent_id == bindparam("agent_id"))
    if states:
        conditions.append(runs.c.state.in_([bindparam(f"state_{place}") for place in range(states)]))
    conditions += [_has_label(place) for place in range(labels)]
    if not is_first:
        conditions.append(runs.c.run_id < bindparam("before"))
    return select(*_LISTED_COLUMNS).where(*conditions).order_by(runs.c.run_id.desc()).limit(bindparam("limit"))


def _has_label(place: int) -> ColumnElement[bool]:
    return exists().where(
        run_labels.c.run_id == runs.c.run_id,
        run_labels.c.key == bindparam(f"key_{place}"),
        run_labels.c.value == bindparam(f"value_{place}"),
    )
