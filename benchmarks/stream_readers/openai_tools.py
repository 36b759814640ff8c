"""The tools as the openai SDK takes them."""

from openai.types.chat import ChatCompletionToolParam
from stream_readers.telling import PARAMETERS, TOOLS

OPENAI_TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": name, "description": told, "parameters": PARAMETERS}}
    for name, told in TOOLS.items()
]
