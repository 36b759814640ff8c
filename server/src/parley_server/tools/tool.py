"""Tools: one typed function each. `@tool` reads the rest off its signature and docstring."""

import asyncio
import inspect
import zoneinfo
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Generic, Protocol, TypedDict, TypeVar, Unpack, cast

import structlog
from pydantic import BaseModel, JsonValue, SecretStr, ValidationError

from parley_server.domain.approval import Confirmation
from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ApprovalRule, ToolEffect, ToolSpec
from parley_server.tools.credentials.redaction import redacted
from parley_server.tools.credentials.source import (
    CredentialMissingError,
    CredentialSource,
    CredentialsUnavailableError,
    CredentialUnavailableError,
    NoCredentials,
)
from parley_server.tools.definition import ToolDefinitionError, check_rules, read_definition
from parley_server.tools.errors import FieldProblem, InvalidArgumentsError
from parley_server.tools.model_json import model_json
from parley_server.tools.threads import ToolThreads

JsonObject = dict[str, JsonValue]
A = TypeVar("A", bound=BaseModel)
Coroutine = Callable[["ToolContext", A], Awaitable[BaseModel]]


def _tell_nobody(message: str, fraction: float | None) -> None:
    """Take a report where nobody looks."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and under which identity a call runs; the only place a tool learns the user from.

    `idempotency_key` is the same whenever this call is repeated; `deadline` is in seconds of the running loop's
    clock. `cancelled` is set when the run is to stop: a tool that only reads, or is idempotent, is cancelled then; a
    WRITE is left up to 10 s to come to an end of its own, so that its result is known. In a thread, ask
    `cancelled.is_set()`. `loop` is set for a function that runs in a thread. `confirmed` is what the tool has asked the
    user about this call, by `ConfirmationNeededError`, and he has said yes to, the oldest first.
    """

    request: RequestContext
    run_id: str
    call_id: str
    idempotency_key: str
    deadline: float
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    tool_name: str = ""
    report: Callable[[str, float | None], None] = _tell_nobody
    threads: ToolThreads = field(default_factory=ToolThreads)
    credential_slots: tuple[str, ...] = ()
    credentials: CredentialSource = field(default_factory=NoCredentials)
    loop: asyncio.AbstractEventLoop | None = None
    confirmed: tuple[Confirmation, ...] = ()
    _secrets: list[SecretStr] = field(default_factory=list, repr=False)

    @property
    def user_id(self) -> str:
        """The effective user."""
        return self.request.user_id

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The user's time zone."""
        return self.request.zone

    @property
    def actor(self) -> str:
        """Who asked for the run: `user:ann`, or the service that acts for the user, `service:web`."""
        return self.request.actor

    @property
    def actors(self) -> tuple[str, ...]:
        """All who act for the user, each followed by who let him act; empty when the user asked himself."""
        return self.request.actors

    @property
    def scopes(self) -> frozenset[str]:
        """What may be done in the user's name."""
        return self.request.scopes

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """The server's log, its lines marked with the run, the call and the tool. Never log what a user has said."""
        logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
        return logger.bind(run_id=self.run_id, call_id=self.call_id, tool=self.tool_name)

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell the user how far the call is: a few words, and the part done from 0 to 1 where it is known.

        Returns at once, also in a thread, and never fails. Only the newest of each half second is shown; a message
        is cut after 1,024 characters. What is told after the call has ended is dropped.
        """
        self.report(self.without_secrets(message), fraction)

    async def credential(self, slot: str) -> SecretStr:
        """Return the user's secret of a slot that the tool has declared, as it is at this moment.

        Keep it no longer than the call, and put it nowhere but where it has to go: `secret.get_secret_value()`.

        Raises:
            CredentialMissingError: the user has none; he is told what to do.
            CredentialUnavailableError: nobody can tell at the moment.
            ToolDefinitionError: the tool has not declared the slot.
        """
        if slot not in self.credential_slots:
            raise ToolDefinitionError(f"tool {self.tool_name}: asks for {slot!r}, which its credential_slots lack")
        try:
            secret = await self.credentials.find(self.user_id, slot)
        except CredentialsUnavailableError as error:
            self.log.error("credential_unavailable", slot=slot, reason=str(error))  # noqa: TRY400  # where is no matter
            raise CredentialUnavailableError(slot) from None
        if secret is None:
            raise CredentialMissingError(self.user_id, slot)
        self._secrets.append(secret)
        return secret

    def wait_for_credential(self, slot: str) -> SecretStr:
        """Do as `credential` does, for a tool that is no coroutine; in its thread alone."""
        if self.loop is None:
            raise RuntimeError("a coroutine has to await credential()")
        return asyncio.run_coroutine_threadsafe(self.credential(slot), self.loop).result()

    def conceal(self, secret: SecretStr) -> None:
        """Keep a secret that goes along with the call out of all that the call says; see `without_secrets`."""
        self._secrets.append(secret)

    def without_secrets(self, text: str) -> str:
        """Return a text without the secrets that the call was given, for all who are not to see them."""
        return redacted(text, self._secrets)


class Tool(Protocol):
    """Something a model can call, wherever it runs. Serves all users at once."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        ...

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Run once and return a JSON value.

        Raises:
            InvalidArgumentsError: the arguments do not fit; nothing happened.
            ConfirmationNeededError: the user is to be asked something first; nothing happened.
            ToolError: the tool cannot do it, in words meant for the model.
        """
        ...


@dataclass(frozen=True, slots=True)
class FunctionTool(Generic[A]):
    """A tool that is a function of this server; made by `@tool`."""

    spec: ToolSpec
    arguments_model: type[A]
    function: Coroutine[A]

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Validate, run, and return the result as JSON values; see `Tool.call`."""
        return model_json(await self.function(context, self.checked(arguments)))

    def checked(self, arguments: JsonObject) -> A:
        """Validate the arguments of a call. Raises InvalidArgumentsError."""
        try:
            return self.arguments_model.model_validate(arguments)
        except ValidationError as error:
            raise InvalidArgumentsError(_problems(error)) from error


class CallRules(TypedDict, total=False):
    """Rules a tool's calls follow beside its effect; each is told at the `ToolSpec` field of its name."""

    approval: ApprovalRule
    required_scopes: frozenset[str]
    credential_slots: tuple[str, ...]
    max_retries: int
    per_user_concurrency: int
    sequential: bool
    repeatable: bool


def tool(
    *, effect: ToolEffect, timeout_s: float = 30.0, name: str = "", **rules: Unpack[CallRules]
) -> Callable[[Callable[[ToolContext, A], Awaitable[BaseModel] | BaseModel]], FunctionTool[A]]:
    """Make a tool of `async def f(context: ToolContext, arguments: SomeModel) -> SomeResult`.

    Without `async` it runs in a thread of its own. Both models are pydantic's; the docstring is what the model reads.
    `name` defaults to the function's own; the `rules` are told at `ToolSpec`. Raises ToolDefinitionError, when the
    module is imported, for anything that does not fit.
    """

    def decorate(function: Callable[[ToolContext, A], Awaitable[BaseModel] | BaseModel]) -> FunctionTool[A]:
        definition = read_definition(function, ToolContext, name=name, timeout_s=timeout_s)
        spec = ToolSpec(
            name=definition.name,
            description=definition.description,
            input_schema_json=definition.input_schema_json,
            effect=effect,
            timeout_s=timeout_s,
            **rules,
        )
        check_rules(spec)
        if inspect.iscoroutinefunction(function):
            return FunctionTool(spec, definition.arguments_model, cast("Coroutine[A]", function))
        in_thread = _in_thread(cast("Callable[[ToolContext, A], BaseModel]", function), spec)
        return FunctionTool(spec, definition.arguments_model, in_thread)

    return decorate


def _in_thread(function: Callable[[ToolContext, A], BaseModel], spec: ToolSpec) -> Coroutine[A]:
    @wraps(function)
    async def run(context: ToolContext, arguments: A) -> BaseModel:
        work = partial(function, replace(context, loop=asyncio.get_running_loop()), arguments)
        return await context.threads.run(work, name=spec.name, timeout_s=spec.timeout_s)

    return run


def _problems(error: ValidationError) -> list[FieldProblem]:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [FieldProblem(_path(problem["loc"]), problem["msg"]) for problem in problems]


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
