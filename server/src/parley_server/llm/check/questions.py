"""The small questions by which a model server shows what it takes."""

import json

JsonObject = dict[str, object]

MAX_QUESTIONS = 16
# Room for a model that reasons before it answers.
ROOM = 512
COUNT_LIMIT = 16

# A red square.
_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4Fg"
    "YrsKZeS0BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3AAAAAElFTkSuQmCC"
)
SCHEMA_KEYS = frozenset({"city", "country"})
_TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "temperature_of",
        "description": "Returns the present temperature of one city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO = "Reply with the one word: hello"
COUNT = "Count from 1 to 50, with a blank between the numbers and nothing else."
STOP_AT = "7"
_CITIES = "How warm is it in Oslo and in Rome? Ask for both with the tool, at once."


def question(model: str, text: str, **options: object) -> JsonObject:
    """Write a streamed question."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **options}


def tool_question(model: str, **options: object) -> JsonObject:
    """Write a question that takes two calls of a tool."""
    return question(model, _CITIES, tools=[_TOOL], **options)


def tool_results(model: str, calls: list[JsonObject], reasoning: JsonObject, **options: object) -> JsonObject:
    """Write what follows the calls of `tool_question`; `reasoning` is the field that sends the model's back, if any."""
    said: JsonObject = {"role": "assistant", "content": None, "tool_calls": calls, **reasoning}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"celsius": 20})} for call in calls]
    messages = [{"role": "user", "content": _CITIES}, said, *results]
    return {"model": model, "messages": messages, "stream": True, "tools": [_TOOL], **options}


def image_question(model: str, **options: object) -> JsonObject:
    """Write a question that only who sees an image can answer: red."""
    text: JsonObject = {"type": "text", "text": "Which colour is the image? Reply with its English name."}
    content = [text, {"type": "image_url", "image_url": {"url": _IMAGE}}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": True, **options}


def schema_format() -> JsonObject:
    """Write the response format that holds the answer to an object of SCHEMA_KEYS."""
    keys = sorted(SCHEMA_KEYS)
    properties = {key: {"type": "string"} for key in keys}
    schema = {"type": "object", "properties": properties, "required": keys, "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
