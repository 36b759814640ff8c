"""What a host tells of its tools: what is taken, and what is left out with a line in the log."""

import json

import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_pb2
from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec
from parley_server.tools.described_schema import read_schema
from parley_server.tools.remote.description import HostTerms, read_description
from unit.tools.remote.raw_host import WRITE, a_tool

TERMS = HostTerms("host:h", "h_")
# Nested as deep as a parser that recurses cannot follow.
DEEP = '{"type":"object","a":' * 2000 + "1" + "}" * 2000


def described(*tools: pb.HostedTool, terms: HostTerms = TERMS) -> tuple[list[ToolSpec], list[str]]:
    """Return the specs that were taken, and what was said of the others."""
    with structlog.testing.capture_logs() as logs:
        taken = read_description(pb.DescribeToolsResponse(tools=tools), terms)
    assert {line["event"] for line in logs} <= {"tool_refused"}
    return [tool.spec for tool in taken], [str(line["problem"]) for line in logs]


def test_a_spec_is_what_the_host_says_and_the_operator_allows() -> None:
    schema = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": {"type": "string"}}}
    tool = pb.HostedTool(
        name="book",
        description="Books.",
        input_schema_json=json.dumps(schema, indent=2),
        output_schema_json='{"type": "string"}',
        effect=tool_pb2.TOOL_EFFECT_IDEMPOTENT,
        timeout=Duration(seconds=5, nanos=500_000_000),
        requires_approval=True,
        required_scopes=["travel:book"],
        max_retries=2,
        per_user_concurrency=1,
        sequential=True,
        repeatable=True,
        spec_hash="v1",
    )
    [spec], problems = described(tool)
    assert problems == []
    assert spec == ToolSpec(
        name="h_book",
        description="Books.",
        input_schema_json=json.dumps(schema, separators=(",", ":")),
        output_schema_json='{"type":"string"}',
        effect=ToolEffect.IDEMPOTENT,
        timeout_s=5.5,
        approval=ApprovalRule.ALWAYS,
        required_scopes=frozenset({"travel:book"}),
        max_retries=2,
        per_user_concurrency=1,
        sequential=True,
        repeatable=True,
        source="host:h",
    )


def test_what_a_host_does_not_say_is_taken_for_the_worst_or_the_usual() -> None:
    [spec], _ = described(a_tool(effect=tool_pb2.TOOL_EFFECT_UNSPECIFIED, max_retries=2))
    assert (spec.effect, spec.timeout_s, spec.max_retries) == (ToolEffect.WRITE, 30.0, 0)
    assert (spec.approval, spec.per_user_concurrency) == (ApprovalRule.POLICY, 4)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"name": ""}, "its name must be"),
        ({"name": "no blanks"}, "its name must be"),
        ({"name": "\u0430bc"}, "its name must be"),
        ({"name": "x" * 63}, "too long with the prefix"),
        ({"description": " \n"}, "needs a description"),
        ({"description": "x" * 8193}, "over 8192 bytes"),
        ({"input_schema_json": ""}, "not JSON"),
        ({"input_schema_json": "{"}, "not JSON"),
        ({"input_schema_json": "[]"}, "not that of an object"),
        ({"input_schema_json": '{"type":"string"}'}, "not that of an object"),
        ({"input_schema_json": '{"type":"object","properties":[]}'}, "no JSON Schema"),
        ({"input_schema_json": '{"type":"object","$ref":"https://example.org/s"}'}, "outside of itself"),
        ({"input_schema_json": '{"type":"object","a":[{"$dynamicRef":"file:///etc/x"}]}'}, "outside of itself"),
        ({"input_schema_json": '{"type":"object","x":"' + "x" * 65_536 + '"}'}, "over 65536 bytes"),
        ({"input_schema_json": DEEP}, "nested too deep"),
        ({"input_schema_json": '{"type":"object","const":NaN}'}, "not JSON"),
        ({"output_schema_json": '{"type":7}'}, "no JSON Schema"),
        ({"effect": 9}, "effect is none"),
        ({"timeout": Duration()}, "timeout must be above 0"),
        ({"timeout": Duration(seconds=601)}, "timeout must be above 0"),
        ({"timeout": Duration(seconds=-1)}, "timeout must be above 0"),
        ({"required_scopes": ["All"]}, "scope that is none"),
        ({"required_scopes": ["a:b"] * 33}, "more than 32 scopes"),
        ({"spec_hash": ""}, "spec_hash must be"),
        ({"spec_hash": "é"}, "spec_hash must be"),
    ],
)
def test_a_tool_that_breaks_a_rule_is_left_out_and_the_others_stay(rules: dict[str, object], problem: str) -> None:
    specs, [said] = described(a_tool("first"), a_tool(**{"name": "bad", **rules}), a_tool("last"))  # type: ignore[arg-type]  # what a host may say
    assert [spec.name for spec in specs] == ["h_first", "h_last"]
    assert problem in said


def test_of_two_with_one_name_the_first_counts() -> None:
    specs, problems = described(a_tool("twin", WRITE), a_tool("twin"))
    assert [(spec.name, spec.effect) for spec in specs] == [("h_twin", ToolEffect.WRITE)]
    assert problems == ["the host has another of this name"]


def test_a_host_with_too_many_tools_has_the_first_of_them() -> None:
    specs, problems = described(*(a_tool(f"t{number}") for number in range(1000)))
    assert len(specs) == 256
    assert problems == ["the host has more than 256"]


def test_what_is_not_allowed_is_not_even_looked_at() -> None:
    terms = HostTerms("host:h", "", frozenset({"b"}), max_timeout_s=2.0)
    [spec], problems = described(a_tool("a", description=""), a_tool("b"), terms=terms)
    assert (spec.name, spec.timeout_s, problems) == ("b", 2.0, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "properties", "$ref", "items", "pattern", "$id", "a"]), inner)
    ),
    max_leaves=12,
)


@given(name=st.text(max_size=9), schema=JSON, more=st.text(max_size=9), seconds=st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=100)
def test_whatever_a_host_says_of_a_tool_it_is_taken_or_left_out(
    name: str, schema: object, more: str, seconds: int
) -> None:
    bad = a_tool(name, input_schema_json=json.dumps(schema), spec_hash=more, timeout=Duration(seconds=seconds))
    specs, problems = described(bad, a_tool("good"))
    assert specs[-1].name == "h_good"
    assert len(specs) + len(problems) == 2


def test_a_schema_is_written_anew_without_what_no_store_takes() -> None:
    assert read_schema('{ "type" : "object", "description": "a\\u0000b" }', 100) == (
        '{"type":"object","description":"a\ufffdb"}'
    )
