"""Holds what a server showed against the profile it is asked by: the lines that say so, and those that correct it."""

from collections.abc import Iterator

from parley_server.llm.check.survey import Findings
from parley_server.llm.provider_profiles import ProviderProfile

Value = str | int | bool

_FORMATS = {"json_schema": "held", "json_object": "JSON alone", "none": "not held", None: "not seen"}
_WORDS = {True: "yes", False: "refused", None: "not seen"}


def lines_of(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield what was found, by what it is about."""
    yield "reachable", "yes" if found.status or found.listed_models is not None else "no"
    if found.hello.is_key_refused:
        yield "key", f"refused (HTTP {found.status})"
        return
    if found.is_listed is not None:
        listed = "listed" if found.is_listed else "not listed"
        yield "model", f"{listed} (the server lists {found.listed_models})"
    if not found.is_usable:
        yield "answer", f"none: {found.hello.problem}"
        return
    yield "answer", "streamed, whole"
    yield "usage", _usage(found)
    yield "limit", _limit(found)
    yield "temperature", _WORDS[found.sampling]
    yield "stop", "ignored" if found.is_stop_ignored else _WORDS[found.stop]
    yield "seed", _WORDS[found.seed]
    yield "tools", f"yes, {found.calls_at_once} calls at once" if found.tools else _WORDS[found.tools]
    yield "reasoning", _reasoning(found)
    yield "schema", _FORMATS[found.response_format]
    if found.format_beside_tools is not None:
        yield "schema, tools", "together" if found.format_beside_tools else "not together"
    yield "images", _WORDS[found.images]
    if found.context_window is not None:
        yield "context window", f"{found.context_window} tokens"


def corrections(found: Findings, profile: ProviderProfile) -> dict[str, Value]:
    """Return the fields in which the profile is wrong, each with what was found instead.

    What a server takes it may still ignore, so that only what was seen to work, or to be refused, counts.
    """
    right = _of_abilities(found, profile) | _of_fields(found, profile)
    if found.response_format not in {None, profile.response_format}:
        right["response_format"] = str(found.response_format)
    if found.format_beside_tools not in {None, profile.format_beside_tools}:
        right["format_beside_tools"] = bool(found.format_beside_tools)
    if found.replay_reasoning == "tool_calls" and profile.replay_reasoning == "never":
        right["replay_reasoning"] = "tool_calls"
    replays = "replay_reasoning" in right or profile.replay_reasoning != "never"
    if replays and found.reasoning_field not in {"", profile.reasoning_field}:
        right["reasoning_field"] = found.reasoning_field
    if found.context_window is not None and found.context_window != profile.context_window:
        right["context_window"] = found.context_window
    return right


def _of_abilities(found: Findings, profile: ProviderProfile) -> dict[str, Value]:
    """Return what the model does and the profile denies, and what it does not and the profile lets be tried."""
    abilities = (
        ("sampling", False if found.sampling is False else None, profile.sampling),
        ("stop", found.stop, profile.stop),
        ("tools", found.tools, profile.tools),
        ("images", found.images, profile.images),
    )
    return {name: seen for name, seen, known in abilities if seen is not None and seen is not (known is not False)}


def _of_fields(found: Findings, profile: ProviderProfile) -> dict[str, Value]:
    """Return the names of fields, and whether there are such fields, that the profile has wrong."""
    right: dict[str, Value] = {}
    if found.stream_options is False and profile.stream_options:
        right["stream_options"] = False
    elif not profile.stream_options and found.has_usage and not found.has_usage_unasked:
        right["stream_options"] = True
    if found.limits_kept and profile.max_tokens_field not in found.limits_kept:
        right["max_tokens_field"] = found.limits_kept[0]
    elif profile.max_tokens_field in found.limits_refused and len(found.limits_refused) == 1:
        taken = "max_completion_tokens" if profile.max_tokens_field == "max_tokens" else "max_tokens"
        right["max_tokens_field"] = taken
    if found.system_role_refused == profile.system_role:
        right["system_role"] = "developer" if profile.system_role == "system" else "system"
    if found.seed is False:
        right["seed_field"] = "none"
    return right


def _usage(found: Findings) -> str:
    if found.has_usage_unasked:
        return "sent unasked"
    if found.stream_options is False:
        return "stream_options refused"
    return "sent when asked" if found.has_usage else "not seen"


def _limit(found: Findings) -> str:
    kept = [f"{name} kept" for name in found.limits_kept]
    return ", ".join([*kept, *(f"{name} refused" for name in found.limits_refused)]) or "not seen"


def _reasoning(found: Findings) -> str:
    if not found.reasoning_field:
        return "not seen"
    wanted = "; wanted back with tool calls" if found.replay_reasoning == "tool_calls" else ""
    return f"in {found.reasoning_field}{wanted}"
