"""`[model.profile]` and `[providers.NAME.profile]`: the settings that correct what is known of a model server."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ServerKind = Literal[
    "openai",
    "azure",
    "ollama",
    "vllm",
    "llama_cpp",
    "litellm",
    "openrouter",
    "deepseek",
    "mistral",
    "gemini",
    "groq",
    "lm_studio",
    "unknown",
]
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]
SystemRole = Literal["system", "developer"]
SeedField = Literal["seed", "random_seed", "none"]
ResponseFormat = Literal["json_schema", "json_object", "none"]
ReasoningField = Literal["reasoning_content", "reasoning"]
ReasoningReplay = Literal["never", "tool_calls", "always"]


class ProfileSettings(BaseModel):
    """`[model.profile]`: what the server takes, where what Parley knows of it is wrong; what is not set is as known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ServerKind | None = None
    """The kind of server, where its address does not tell: the profile that all else starts from."""

    stream_options: bool | None = None
    """Whether the usage is asked for by `stream_options`. False is for servers that refuse the field."""

    max_tokens_field: MaxTokensField | None = None
    """The field that limits the answer's length."""

    system_role: SystemRole | None = None
    """The role of the message that says what the model is to be."""

    sampling: bool | None = None
    """Whether the model takes `temperature` and `top_p`. A run that sets one for a model that does not is refused."""

    stop: bool | None = None
    """Whether the model takes `stop`. A run that sets it for a model that does not is refused."""

    seed_field: SeedField | None = None
    """The field of the seed; a run that sets one where there is none is refused."""

    tools: bool | None = None
    """Whether the model can call tools. With false it is offered none and answers by itself."""

    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once. False sends `parallel_tool_calls`, which forbids it."""

    images: bool | None = None
    """Whether the model takes images. A run that sends one to a model that does not is refused."""

    response_format: ResponseFormat | None = None
    """How the server is told that the answer has to fit a schema; the answer is checked in any case."""

    format_beside_tools: bool | None = None
    """Whether that is told where tools are offered, too. Some servers refuse the two together, others make the answer
    fit from its first token, so that no tool is ever called."""

    strict_schemas: bool | None = None
    """Whether such a schema is marked `strict` where it is of the kind that the mark is for."""

    reasoning_field: ReasoningField | None = None
    """The field in which the model's reasoning is sent back."""

    replay_reasoning: ReasoningReplay | None = None
    """Whether it is sent back: with the answers that called tools, as DeepSeek demands, or with all."""

    context_window: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """How many tokens the model takes in one request, answer included."""
