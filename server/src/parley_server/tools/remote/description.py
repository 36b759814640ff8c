"""Tools as their host describes them: each is checked, for a bad one would spoil every run of every user."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from parley.v1 import tool_pb2

from parley_server.domain.content import storable_text
from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec
from parley_server.tools.described_schema import read_schema

if TYPE_CHECKING:
    from parley.v1 import tool_host_service_pb2 as pb

MAX_TOOLS = 256
MAX_TIMEOUT_S = 600.0
MAX_RETRIES = 2
MAX_CONCURRENCY = 32
_DEFAULT_TIMEOUT_S = 30.0
_DEFAULT_CONCURRENCY = 4
_MAX_DESCRIPTION_BYTES = 8192
_MAX_SCHEMA_BYTES = 65536
_MAX_SCOPES = 32

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"[ -~]{1,128}")
_SCOPE = re.compile(r"[a-z][a-z_]{0,31}(:[a-z][a-z_]{0,31})?")
_EFFECTS = {
    # What a host does not say is taken for the worst.
    tool_pb2.TOOL_EFFECT_UNSPECIFIED: ToolEffect.WRITE,
    tool_pb2.TOOL_EFFECT_READ: ToolEffect.READ,
    tool_pb2.TOOL_EFFECT_IDEMPOTENT: ToolEffect.IDEMPOTENT,
    tool_pb2.TOOL_EFFECT_WRITE: ToolEffect.WRITE,
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostedTool:
    """A tool of a host: its spec here, and the name and the hash by which the host knows it."""

    spec: ToolSpec
    name: str
    spec_hash: str


@dataclass(frozen=True, slots=True)
class HostTerms:
    """What the operator says of a host's tools: `source` names it, `allowed` is empty where all are."""

    source: str
    prefix: str = ""
    allowed: frozenset[str] = frozenset()
    max_timeout_s: float = MAX_TIMEOUT_S


def read_description(response: "pb.DescribeToolsResponse", terms: HostTerms) -> tuple[HostedTool, ...]:
    """Return the tools that are in order and allowed, in the host's order; each of the others is a line in the log."""
    return tuple(_good_ones(response, terms))


def _good_ones(response: "pb.DescribeToolsResponse", terms: HostTerms) -> Iterator[HostedTool]:
    seen: set[str] = set()
    for number, described in enumerate(response.tools):
        try:
            _require(number < MAX_TOOLS, f"the host has more than {MAX_TOOLS}")
            _require(_NAME.fullmatch(described.name) is not None, "its name must be 1-64 of A-Z a-z 0-9 _ -")
            _require(described.name not in seen, "the host has another of this name")
            seen.add(described.name)
            if not terms.allowed or described.name in terms.allowed:
                yield HostedTool(_spec(described, terms), described.name, described.spec_hash)
        except ValueError as error:
            name = storable_text(described.name[:64])
            _log.warning("tool_refused", source=terms.source, tool=name, problem=str(error))
            if number >= MAX_TOOLS:
                return


def _spec(described: "pb.HostedTool", terms: HostTerms) -> ToolSpec:
    name = terms.prefix + described.name
    _require(_NAME.fullmatch(name) is not None, "its name is too long with the prefix before it")
    _require(_HASH.fullmatch(described.spec_hash) is not None, "its spec_hash must be 1-128 of printable ASCII")
    _require(described.effect in _EFFECTS, "its effect is none that this server knows")
    effect = _EFFECTS[described.effect]
    return ToolSpec(
        name=name,
        description=_description(described.description),
        input_schema_json=read_schema(described.input_schema_json, _MAX_SCHEMA_BYTES),
        effect=effect,
        timeout_s=min(_timeout_s(described), terms.max_timeout_s),
        output_schema_json=read_schema(described.output_schema_json, _MAX_SCHEMA_BYTES, of_object=False)
        if described.output_schema_json
        else "",
        approval=ApprovalRule.ALWAYS if described.requires_approval else ApprovalRule.POLICY,
        required_scopes=_scopes(described),
        max_retries=0 if effect is ToolEffect.WRITE else min(described.max_retries, MAX_RETRIES),
        per_user_concurrency=min(described.per_user_concurrency, MAX_CONCURRENCY) or _DEFAULT_CONCURRENCY,
        sequential=described.sequential,
        repeatable=described.repeatable,
        source=terms.source,
    )


def _description(text: str) -> str:
    _require(bool(text.strip()), "it needs a description: that is what the model reads")
    _require(len(text.encode()) <= _MAX_DESCRIPTION_BYTES, f"its description is over {_MAX_DESCRIPTION_BYTES} bytes")
    return storable_text(text)


def _timeout_s(described: "pb.HostedTool") -> float:
    if not described.HasField("timeout"):
        return _DEFAULT_TIMEOUT_S
    timeout_s = described.timeout.seconds + described.timeout.nanos / 1e9
    _require(0 < timeout_s <= MAX_TIMEOUT_S, f"its timeout must be above 0 and at most {MAX_TIMEOUT_S:g} s")
    return timeout_s


def _scopes(described: "pb.HostedTool") -> frozenset[str]:
    scopes = frozenset(described.required_scopes)
    _require(len(described.required_scopes) <= _MAX_SCOPES, f"it requires more than {_MAX_SCOPES} scopes")
    _require(all(_SCOPE.fullmatch(scope) for scope in scopes), "it requires a scope that is none")
    return scopes


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
