"""What every kind of model server is sent for one and the same request, kept in tests/golden/requests.

`python tests/golden/request_bodies.py` writes the files anew; look at what changed before you keep it.
"""

import json
from dataclasses import replace
from pathlib import Path

from parley_server.domain.content import ImagePart, TextPart
from parley_server.domain.run import ModelOptions
from parley_server.domain.tool import ToolCall, ToolEffect, ToolSpec
from parley_server.llm.model_service import (
    AssistantMessage,
    ModelError,
    ModelMessage,
    ModelRequest,
    OutputSchema,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from parley_server.llm.profile_settings import ProfileSettings
from parley_server.llm.provider_profiles import profile_of
from parley_server.llm.request_body import encode_request

FOLDER = Path(__file__).parent / "requests"
CASES: dict[str, tuple[str, str]] = {
    "openai": ("https://api.openai.com/v1", "gpt-4o"),
    "openai_reasoning": ("https://api.openai.com/v1", "gpt-5-mini"),
    "azure": ("https://resource.openai.azure.com/openai/v1", "o4-mini"),
    "ollama": ("http://localhost:11434/v1", "llama3.2"),
    "lm_studio": ("http://localhost:1234/v1", "qwen3-8b"),
    "openrouter": ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5"),
    "deepseek": ("https://api.deepseek.com", "deepseek-v4-pro"),
    "mistral": ("https://api.mistral.ai/v1", "mistral-large-latest"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash"),
    "groq": ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile"),
    "groq_gpt_oss": ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b"),
    "vllm": ("http://gpu:8000/v1", "m"),
    "llama_cpp": ("http://gpu:8080/v1", "m"),
    "litellm": ("http://proxy:4000/v1", "m"),
    "unknown": ("http://somewhere/v1", "m"),
}
_SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}'
_MESSAGES: tuple[ModelMessage, ...] = (
    SystemMessage("Be brief."),
    UserMessage((TextPart("What is 1 + 1?"),)),
    AssistantMessage("", (ToolCall("call_1", "calculator", '{"expression": "1 + 1"}'),), "I should calculate."),
    ToolMessage("call_1", '{"ok": true, "result": "2"}'),
    AssistantMessage("2", (), "That was it."),
    UserMessage((TextPart("Sure?"),)),
)
_IMAGE = UserMessage((TextPart("What is this?"), ImagePart("image/png", content=b"\x89PNG")))
_WISHES = {
    "temperature": ModelOptions(temperature=0.5),
    "top_p": ModelOptions(top_p=0.9),
    "stop": ModelOptions(stop=("END",)),
    "seed": ModelOptions(seed=7),
}


def golden(base_url: str, model: str, settings: ProfileSettings) -> str:
    """Return what a server is sent, and what it is not sent because Parley refuses it before."""
    profile = profile_of(base_url, model, settings)
    plain = ModelRequest(
        model,
        _MESSAGES,
        (ToolSpec("calculator", "Calculates.", '{"type":"object"}', ToolEffect.READ),),
        ModelOptions(max_output_tokens=100),
        output_schema=OutputSchema(_SCHEMA, is_object=True, is_strict=True),
    )
    wishes = {name: replace(plain, options=options) for name, options in _WISHES.items()}
    wishes["images"] = replace(plain, messages=(_IMAGE,))
    refused, body = [], json.loads(encode_request(plain, profile))
    for name, request in wishes.items():
        try:
            wished = json.loads(encode_request(request, profile))
        except ModelError as error:
            refused.append(f"{error.metadata['option']}: {error.reason}")
        else:
            body |= {key: value for key, value in wished.items() if key not in body}
            body["messages"] += wished["messages"] if name == "images" else []
    without_tools = json.loads(encode_request(replace(plain, tools=()), profile)).get("response_format")
    sent = {"body": body, "response_format_without_tools": without_tools, "refused": refused}
    return json.dumps(sent, indent=1) + "\n"


def golden_of(case: str) -> str:
    """Return what one of the CASES gives; where the address tells nothing, the settings name the kind."""
    named = case in {"vllm", "llama_cpp", "litellm"}
    return golden(*CASES[case], ProfileSettings.model_validate({"kind": case} if named else {}))


if __name__ == "__main__":
    for name in CASES:
        (FOLDER / f"{name}.json").write_text(golden_of(name), encoding="utf-8")
