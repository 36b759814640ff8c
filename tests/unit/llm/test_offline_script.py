"""The offline model's script: what it accepts, what it answers, and that its errors name the place."""

import json
import time
from pathlib import Path

import pytest
from parley_server.llm.offline.actor import Answer, act
from parley_server.llm.offline.command import parse_listen
from parley_server.llm.offline.script import Script, ScriptError, load_script, parse_script
from parley_server.llm.offline.situation import Situation, ToolTurn
from parley_server.llm.offline.template import fill

TOOLS = frozenset({"calculator", "current_time"})
SHIPPED = load_script()


def say(text: str, tools: frozenset[str] = TOOLS, script: Script = SHIPPED) -> Answer:
    return act(script, Situation(text, tools))


def after(tool: str, arguments: dict[str, str], result: object, script: Script = SHIPPED) -> str:
    text = result if isinstance(result, str) else json.dumps(result)
    return act(script, Situation("a question", TOOLS, ToolTurn(tool, dict(arguments), text))).text


@pytest.mark.parametrize(
    ("question", "expression"),
    [
        ("What is 17 * 23?", "17 * 23"),
        ("calculate (2+3)/4", "(2+3)/4"),
        ("what's 3x4", "3*4"),
        ("WHAT IS 17 TIMES 23?", "17 * 23"),
        ("12 plus 5.5.", "12 + 5.5"),
        ("10 divided by 4, please", "10 / 4"),
        ("2^10", "2**10"),
        ("\u22123 \u00d7 2", "-3 * 2"),
        ("2 * (3 + (4 - 1))", "2 * (3 + (4 - 1))"),
    ],
)
def test_arithmetic_goes_to_the_calculator(question: str, expression: str) -> None:
    (call,) = say(question).tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("calculator", {"expression": expression})
    assert (
        after("calculator", {"expression": expression}, {"ok": True, "result": {"value": "9"}}) == f"{expression} = 9"
    )


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("What time is it in Tokyo?", {"place": "Tokyo"}),
        ("what's the time in New York right now?", {"place": "New York"}),
        ("what time is it?", {}),
        ("Tell me the time", {}),
    ],
)
def test_the_time_is_asked_of_the_tool(question: str, arguments: dict[str, str]) -> None:
    (call,) = say(question).tool_calls
    assert (call.name, json.loads(call.arguments_json)) == ("current_time", arguments)
    result = {"ok": True, "result": {"time_zone": "Asia/Tokyo", "local_time": "…", "spoken": "18:03 on Sunday"}}
    place = f" in {arguments['place']}" if arguments else " (Asia/Tokyo)"
    assert after("current_time", arguments, result) == f"It is 18:03 on Sunday{place}."


def test_a_tool_s_error_is_told() -> None:
    failed = {"ok": False, "error": {"code": "invalid_arguments", "message": "division by zero"}}
    assert after("calculator", {"expression": "1/0"}, failed) == "The tool could not do that: division by zero"


def test_the_answer_of_an_unknown_tool_is_shown() -> None:
    assert after("weather", {}, "sunny") == "The tool answered: sunny"


@pytest.mark.parametrize(
    "text",
    ["hello", "What is 17 * 23?", "What time is it?", "tell me a story", "count to 50", "thanks", "who are you?"],
)
def test_without_tools_there_is_always_a_text(text: str) -> None:
    answer = say(text, frozenset())
    assert answer.text
    assert not answer.tool_calls


def test_what_it_cannot_do_it_says_and_who_it_is() -> None:
    answer = say("Why is the sky blue?").text
    assert all(words in answer for words in ("offline model", "no AI", "OPENAI_API_KEY", "base_url"))


@pytest.mark.parametrize("hostile", ["(" * 9999, "1" * 9999, "1+" * 9999, "time in " * 999, "count " * 999, " " * 9999])
def test_hostile_text_does_not_hold_up_the_loop(hostile: str) -> None:
    started = time.process_time()
    say(hostile)
    assert time.process_time() - started < 0.1


def test_values_are_never_read_as_templates() -> None:
    script = parse_script("rules: [{when: 'say (?P<what>.*)', text: '{{{what}}}'}]", "s")
    assert say("say {what} {{x}} {tool_result}", script=script).text == "{{what} {{x}} {tool_result}}"


def test_braces_that_are_no_placeholder_stay() -> None:
    assert fill('{"a": {} } {1} {{x}} {x}', str.upper) == '{"a": {} } {1} {x} X'


def test_arguments_are_filled_at_every_depth() -> None:
    script = parse_script(
        "rules: [{when: '(?P<n>\\d+)', tool_calls: [{name: calculator, arguments: {a: [{b: 'n{n}'}, 2, null]}}]}]", "s"
    )
    assert json.loads(say("7", script=script).tool_calls[0].arguments_json) == {"a": [{"b": "n7"}, 2, None]}


def test_a_rule_without_its_value_is_passed_over() -> None:
    script = parse_script(
        """
        rules:
          - {when: "a(?P<b>b)?", text: "with {b}"}
          - {when: "a", text: "without"}
          - {after_tool: calculator, text: "{tool_result.value.deep}"}
          - {after_tool: calculator, text: "{tool_arguments.x}"}
          - {after_tool: "*", text: "neither"}
        """,
        "s",
    )
    assert [say(text, script=script).text for text in ("ab", "a")] == ["with b", "without"]
    assert after("calculator", {}, {"value": 1}, script) == "neither"
    assert after("calculator", {"x": "y"}, "no JSON", script) == "y"
    assert say("zzz", script=script).text == "The offline model's script has no rule for this message."


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rules: [", "s.yaml: not YAML"),
        ("", "s.yaml: the script:"),
        ("rules: []", "s.yaml: rules:"),
        ("rulez: []", "s.yaml: rulez:"),
        ("rules: [{text: a}, {when: '('}]", "s.yaml: rules[1].when: Value error, not a regular expression"),
        ("rules: [{text: a, wen: b}]", "s.yaml: rules[0].wen:"),
        ("rules: [{when: a}]", "s.yaml: rules[0]: Value error, needs a text"),
        ("rules: [{text: '{name}'}]", "s.yaml: rules[0]: Value error, nothing gives {name} a value"),
        ("rules: [{when: '(?P<a>.)', text: '{a.b}'}]", "nothing gives {a.b} a value"),
        ("rules: [{text: '{tool_result}'}]", "nothing gives {tool_result} a value"),
        ("rules: [{text: a, fault: {status: 200}}]", "s.yaml: rules[0].fault.status:"),
        ("rules: [{tool_calls: [{name: ''}]}]", "s.yaml: rules[0].tool_calls[0].name:"),
        ("rules: [{text: a, chunk_delay_ms: -1}]", "s.yaml: rules[0].chunk_delay_ms:"),
    ],
)
def test_errors_name_the_place(text: str, place: str) -> None:
    with pytest.raises(ScriptError) as raised:
        parse_script(text, "s.yaml")
    assert place in str(raised.value)


def test_a_script_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("rules: [{text: mine}]")
    assert say("x", script=load_script(path)).text == "mine"


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("localhost:0", ("localhost", 0)), ("[::1]:8080", ("::1", 8080))],
)
def test_listen(listen: str, expected: tuple[str, int]) -> None:
    assert parse_listen(listen) == expected


@pytest.mark.parametrize(
    "listen", ["", "localhost", ":80", "localhost:x", "localhost:99999", "a@b:1", "http://x:1", "x:1/y"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's words for a bad port are its own
        parse_listen(listen)
