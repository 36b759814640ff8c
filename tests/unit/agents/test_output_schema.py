"""Schemas that are taken and refused, and the answers that fit them."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from parley_server.agents.output_schema import FIELD, read_output_schema
from parley_server.agents.structured_output import DemandedOutput, Output
from parley_server.domain.errors import InvalidRequestError
from pydantic import JsonValue

NAMES = st.sampled_from(["a", "b", "c"])
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.5]) | st.text("aAé1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
PLAIN: st.SearchStrategy[dict[str, JsonValue]] = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": st.integers(0, 2),
        "pattern": st.sampled_from(["^a", "a+$", "[A-Z]", "é"]),
        "uniqueItems": st.booleans(),
        "maxItems": st.integers(0, 2),
        "required": st.lists(NAMES, unique=True),
        "maxProperties": st.integers(0, 2),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True)),
    },
)


def larger(inner: st.SearchStrategy[JsonValue]) -> st.SearchStrategy[JsonValue]:
    schemas = st.lists(inner, min_size=1, max_size=2)
    optional = dict.fromkeys(("not", "if", "then", "else", "items", "contains", "additionalProperties"), inner)
    combined = st.fixed_dictionaries(
        {},
        optional={
            **optional,
            **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), schemas),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "propertyNames": st.just({"pattern": "[ab]"}),
        },
    )
    return st.builds(lambda plain, more: {**plain, **more}, PLAIN, combined)


SCHEMAS = st.recursive(PLAIN | st.booleans(), larger, max_leaves=5).filter(lambda schema: isinstance(schema, dict))


async def judged(schema: object, text: str) -> Output:
    demanded = await DemandedOutput.read(json.dumps(schema))
    assert demanded is not None
    return await demanded.of(text)


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidRequestError) as refused:
        read_output_schema(text)
    assert {violation.field for violation in refused.value.violations} == {FIELD}
    return [violation.description for violation in refused.value.violations]


@given(SCHEMAS, VALUES)
async def test_what_fits_is_what_the_standard_says_fits(schema: JsonValue, value: JsonValue) -> None:
    assert isinstance(schema, dict)
    Draft202012Validator.check_schema(schema)
    fits = Draft202012Validator(schema).is_valid(value)
    output = await judged(schema, json.dumps(value))
    assert (output.json != "") == fits
    assert (output.problem == "") == fits
    if fits:
        assert json.loads(output.json) == value


@given(VALUES)
async def test_one_answer_has_one_form(value: JsonValue) -> None:
    spaced, dense = json.dumps(value, indent=4), json.dumps(value, ensure_ascii=False)
    assert await judged({}, spaced) == await judged({}, dense)


@pytest.mark.parametrize("word", ["```json\n{}\n```", "Sure:\n```\n{}\n```\nDone.", "  {}  ", "```json\n{}"])
async def test_an_answer_may_stand_in_a_fenced_block(word: str) -> None:
    assert await judged({"type": "object"}, word) == Output("{}")


@pytest.mark.parametrize(
    "text", ["", "no", "{} {}", '{"a": NaN}', "1e999", "[" * 40 + "]" * 40, "[" * 100_000, "1" * 5000]
)
async def test_what_is_no_json_that_can_be_kept_does_not_fit_even_anything(text: str) -> None:
    output = await judged({}, text)
    assert not output.json
    assert len(output.problem) < 1000


def doubling(levels: int) -> dict[str, object]:
    """Write a schema of a few lines whose check takes two to the power of `levels` steps."""
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/s0", "$defs": {**steps, f"s{levels}": {"type": "integer"}}}


def thousands_of(schema: object) -> dict[str, object]:
    """Write a schema that has the same value checked against another 10,000 times, and never objects."""
    hundreds = {"allOf": [{"$ref": "#/$defs/one"}] * 100}
    return {"$defs": {"one": schema, "hundreds": hundreds}, "allOf": [{"$ref": "#/$defs/hundreds"}] * 100}


NESTED: list[object] = [["ab", "cd"] * 1000]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (doubling(60), "1"),
        ({"$ref": "#"}, "1"),
        ({"anyOf": [{"type": "string"}] * 2000}, json.dumps(["x" * 1000] * 900)),
        ({"items": {"enum": list(range(9000))}}, json.dumps([8999] * 100_000)),
        (thousands_of({"const": NESTED}), json.dumps(NESTED)),
        (thousands_of({"enum": [NESTED]}), json.dumps(NESTED)),
        (thousands_of({"uniqueItems": True}), json.dumps(NESTED)),
        (thousands_of({"dependentRequired": {"a": ["a"] * 5000}}), '{"a": 1}'),
    ],
    ids=["doubling", "itself", "long words", "long lists", "const", "enum", "unique items", "names"],
)
async def test_what_would_take_for_ever_is_given_up(schema: dict[str, object], text: str) -> None:
    assert await judged(schema, text) == Output(problem="it is too much to be checked against the schema")


async def test_patterns_take_no_longer_than_their_text_is_long() -> None:
    output = await judged({"pattern": "^(a+)+$"}, json.dumps("a" * 100_000 + "b"))
    assert "does not match" in output.problem


async def test_a_large_answer_is_checked_whole() -> None:
    schema = {"items": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}
    rows: list[dict[str, object]] = [{"id": n, "name": "x" * 20} for n in range(20_000)]
    assert json.loads((await judged(schema, json.dumps(rows))).json) == rows
    rows[-1]["id"] = "?"
    assert (await judged(schema, json.dumps(rows))).problem == "/19999/id: '?' is not of type 'integer'"


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "thing"}, "#/type: must be of array"),
        ({"properties": {"a/b": 3}}, "#/properties/a~1b: must be a schema"),
        ({"properties": []}, "#/properties: has the wrong form"),
        ({"anyOf": []}, "#/anyOf: has the wrong form"),
        ({"minLength": -1}, "#/minLength: must be a whole number"),
        ({"minimum": True}, "#/minimum: must be a number"),
        ({"enum": []}, "#/enum: must be a list"),
        ({"$ref": "#/$defs/a"}, "#/$ref: must name a schema inside"),
        ({"$ref": "#/properties", "properties": {}}, "#/$ref: must name a schema inside"),
        ({"$ref": 3}, "#/$ref: has the wrong form"),
        ({"$ref": "other.json"}, "#/$ref: must name a schema inside"),
        ({"$id": "https://example.org"}, "#/$id: this keyword is not supported"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "#/$schema: must be"),
        ({"pattern": r"(a)\1"}, "#/pattern: must be a regular expression"),
        ({"minimun": 3}, "#/minimun: this keyword is not supported"),
    ],
    ids=str,
)
def test_what_is_no_schema_is_named_by_its_place(schema: object, fault: str) -> None:
    [told] = faults(json.dumps(schema))
    assert told.startswith(fault)


@pytest.mark.parametrize(
    "pattern",
    [
        "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
        r"^\p{Lu}[\p{L} '-]{0,99}$",
        r"^[]{}()]+\{1000\}\x{41}$",
        "^.{1,2000}$",
    ],
)
def test_patterns_as_people_write_them_are_taken(pattern: str) -> None:
    read_output_schema(json.dumps({"pattern": pattern}))


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": r"\w{1000}"},
        {"pattern": "((a{100}){100}){100}"},
        {"pattern": "(" * 999},
        {"pattern": "[" * 60_000},
        {"anyOf": [{"pattern": "[" * 900}] * 60},
        {"pattern": "a)" * 20 + "{99999}"},
        {"anyOf": [{"pattern": rf"\w{{100}}{n}"} for n in range(500)]},
    ],
    ids=["wide", "deep", "open", "long", "open classes", "closed", "many"],
)
def test_patterns_that_would_hold_up_everybody_are_refused(schema: object) -> None:
    assert all("/pattern: " in fault for fault in faults(json.dumps(schema)))


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "true", '{"a": Infinity}', "[" * 9000, '{"not":' * 70 + "{}" + "}" * 70]
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    assert len(faults(text)) == 1


def test_a_schema_of_any_size_names_few_faults() -> None:
    assert len(faults(json.dumps({f"k{n}": 1 for n in range(5000)}))) == 8
    assert faults(json.dumps({"description": "x" * 70_000})) == ["is over 65536 bytes"]


WHOLE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "is_object", "is_strict"),
    [
        (WHOLE, True, True),
        ({**WHOLE, "required": []}, True, False),
        ({**WHOLE, "additionalProperties": True}, True, False),
        ({"type": "object"}, True, False),
        ({**WHOLE, "properties": {"a": {}}}, True, False),
        ({**WHOLE, "properties": {"a": {"$ref": "#"}}}, True, True),
        ({**WHOLE, "properties": {"a": {"anyOf": [WHOLE, {"type": "null"}]}}}, True, True),
        ({**WHOLE, "properties": {"a": {"allOf": [WHOLE]}}}, True, False),
        ({**WHOLE, "properties": {"a": {"type": "string", "format": "uri"}}}, True, False),
        ({"type": "array", "items": WHOLE}, False, False),
    ],
)
def test_of_which_kind_a_schema_is(schema: object, is_object: bool, is_strict: bool) -> None:
    read, _ = read_output_schema(json.dumps(schema))
    assert (read.is_object, read.is_strict) == (is_object, is_strict)


def test_any_text_is_refused_in_order_or_is_a_schema() -> None:
    rng = random.Random(4)
    whole = json.dumps({**WHOLE, "pattern": "a", "anyOf": [{"$ref": "#"}], "enum": [1], "$defs": {"x": True}})
    outcomes = set()
    for _ in range(2000):
        start, end = sorted(rng.sample(range(len(whole) + 1), 2))
        text = whole[:start] + rng.choice(['"', "{", "}", "3", "[]", "null", ""]) + whole[end:]
        try:
            read_output_schema(text)
            outcomes.add("read")
        except InvalidRequestError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
