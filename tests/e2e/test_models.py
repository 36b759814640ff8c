"""Several model servers behind one Parley: who is asked for what, and which models a caller may name."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import Stubs, run_agent, run_spec, stubs_on
from google.rpc import error_details_pb2
from model_server import DONE, ModelServer, RawAnswer, delta_frame, finish_frame, text_frame
from parley.v1 import admin_service_pb2, content_pb2, run_pb2
from rpc.chassis import failure_of
from run_history import text_of
from server_process import ServerProcess, running_server

SECRETS = ("sk-main-secret", "sk-second-secret")


@pytest.fixture(scope="module")
async def main_server() -> AsyncIterator[ModelServer]:
    async with ModelServer({"rules": [{"text": "main"}]}) as running:
        yield running


@pytest.fixture(scope="module")
async def second_server() -> AsyncIterator[ModelServer]:
    async with ModelServer({"rules": [{"text": "second"}]}) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    main_server: ModelServer, second_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    data_dir: Path = tmp_path_factory.mktemp("server")
    (data_dir / "parley.toml").write_text(
        f"""
        [model]
        base_url = "{main_server.base_url}"
        name = "big"
        api_key = "{SECRETS[0]}"
        allowed = ["small", "gpt-5*"]
        [model.profile]
        kind = "openai"
        seed_field = "none"
        [providers.second]
        base_url = "{second_server.base_url}"
        models = ["blind", "theirs"]
        [providers.second.profile]
        images = false
        replay_reasoning = "tool_calls"
        context_window = 8192
        """,
        encoding="utf-8",
    )
    with running_server(data_dir, environment={"PARLEY_PROVIDERS__SECOND__API_KEY": SECRETS[1]}) as running:
        yield running
        assert not any(secret in running.log for secret in SECRETS)


def spec_for(model: str, *more: content_pb2.ContentPart, **options: object) -> run_pb2.RunSpec:
    spec = run_spec("hello")
    spec.input.extend(more)
    spec.model_options.CopyFrom(run_pb2.ModelOptions(model=model, **options))  # type: ignore[arg-type]  # names vary
    return spec


@pytest.mark.parametrize(
    ("model", "answer"), [("", "main"), ("big", "main"), ("small", "main"), ("gpt-5-x", "main"), ("theirs", "second")]
)
async def test_every_model_that_may_be_named_is_asked_where_it_is(
    stubs: Stubs, main_server: ModelServer, second_server: ModelServer, model: str, answer: str
) -> None:
    assert text_of(await run_agent(stubs, spec_for(model))) == answer
    asked, key = (main_server, SECRETS[0]) if answer == "main" else (second_server, SECRETS[1])
    assert asked.requests[-1].body["model"] == (model or "big")
    assert asked.requests[-1].headers["Authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("model", ["gpt-4", "Big", "biggest", "gpt-", "offline", "*", "second/theirs"])
async def test_a_model_that_may_not_be_named_is_refused_before_anything_is_accepted(
    stubs: Stubs, main_server: ModelServer, second_server: ModelServer, model: str
) -> None:
    before = len(main_server.requests) + len(second_server.requests)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await run_agent(stubs, spec_for(model))
    failure = failure_of(raised.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODEL")
    violations = error_details_pb2.BadRequest.FromString(failure.details["BadRequest"].SerializeToString())
    assert [violation.field for violation in violations.field_violations] == ["run.model_options.model"]
    assert len(main_server.requests) + len(second_server.requests) == before


def test_the_log_says_as_what_each_server_is_asked(server: ServerProcess) -> None:
    lines = [json.loads(line) for line in server.log.splitlines()]
    asked = [(line["provider"], line["kind"]) for line in lines if line["event"] == "model_server"]
    assert sorted(asked) == [("default", "openai"), ("second", "unknown")]


async def test_the_models_are_listed_with_what_is_known_of_them(stubs: Stubs) -> None:
    info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=10)
    assert (info.default_model, info.models[0].name) == ("big", "big")
    places = [(model.name, model.provider) for model in info.models]
    assert places == [("big", "default"), ("blind", "second"), ("theirs", "second"), ("small", "default")]
    assert list(info.model_patterns) == ["gpt-5*"]
    big, blind = info.models[:2]
    assert (big.HasField("images"), big.tools, big.structured_output) == (False, True, True)
    assert (blind.HasField("images"), blind.images, blind.HasField("tools"), blind.context_window) == (
        True,
        False,
        False,
        8192,
    )
    assert "127.0.0.1" not in str(info)


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (
            spec_for("blind", content_pb2.ContentPart(image=content_pb2.Image(data=b"png", media_type="image/png"))),
            "images",
        ),
        (spec_for("big", seed=1), "seed"),
        (spec_for("gpt-5-mini", temperature=0.1), "temperature"),
    ],
)
async def test_what_a_model_does_not_take_is_refused_before_it_is_sent(
    stubs: Stubs, main_server: ModelServer, second_server: ModelServer, spec: run_pb2.RunSpec, option: str
) -> None:
    before = len(main_server.requests) + len(second_server.requests)
    end = (await run_agent(stubs, spec))[-1].run_finished
    info = error_details_pb2.ErrorInfo()
    end.error.details[0].Unpack(info)
    assert (info.reason, info.metadata["option"]) == ("MODEL_REQUEST_REJECTED", option)
    assert len(main_server.requests) + len(second_server.requests) == before


async def test_reasoning_is_sent_back_with_the_calls_it_led_to_also_in_the_next_run(
    stubs: Stubs, second_server: ModelServer
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "calculator", "arguments": '{"expression": "1 + 1"}'}}
    reasoning = [delta_frame(reasoning_content="Let me "), delta_frame(reasoning_content="see.")]
    second_server.enqueue(
        RawAnswer([*reasoning, delta_frame(tool_calls=[call]), finish_frame("tool_calls"), DONE]),
        RawAnswer([text_frame("It is 2."), finish_frame(), DONE]),
    )
    events = await run_agent(stubs, spec_for("theirs"))
    assert text_of(events) == "It is 2."
    again = spec_for("theirs")
    again.conversation_id = events[0].conversation_id
    await run_agent(stubs, again)
    for request in second_server.requests[-2:]:
        answers = [message for message in request.body["messages"] if message["role"] == "assistant"]
        assert answers[0]["tool_calls"][0]["function"]["name"] == "calculator"
        assert answers[0]["reasoning_content"] == "Let me see."
        assert all("reasoning_content" not in answer for answer in answers[1:])


async def test_the_offline_model_answers_to_any_name(tmp_path: Path) -> None:
    with running_server(tmp_path) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            stubs = stubs_on(channel)
            assert text_of(await run_agent(stubs, spec_for("whatever")))
            info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=10)
    assert ([model.name for model in info.models], list(info.model_patterns)) == (["offline"], ["*"])


async def test_a_repeated_request_is_its_run_although_the_model_may_no_longer_be_named(
    main_server: ModelServer, tmp_path: Path
) -> None:
    settings = tmp_path / "parley.toml"
    settings.write_text(f'[model]\nbase_url = "{main_server.base_url}"\nname = "big"\nallowed = ["small"]\n')
    with running_server(tmp_path) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            first = await run_agent(stubs_on(channel), spec_for("small"), "once")
        running.kill()
        settings.write_text(settings.read_text().replace('"small"', ""))
        running.start()
        async with grpc.aio.insecure_channel(running.address) as channel:
            stubs = stubs_on(channel)
            assert await run_agent(stubs, spec_for("small"), "once") == first
            assert await refusal(stubs, spec_for("small"), "another") == "UNKNOWN_MODEL"
            assert await refusal(stubs, spec_for("other"), "once") == "REQUEST_ID_REUSED"


async def refusal(stubs: Stubs, spec: run_pb2.RunSpec, request_id: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await run_agent(stubs, spec, request_id)
    return failure_of(raised.value).reason


async def test_no_model_server_is_told_what_the_environment_says_of_another(
    main_server: ModelServer, tmp_path: Path
) -> None:
    others = {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"}
    others["OPENAI_CUSTOM_HEADERS"] = "authorization: Bearer sk-other\nX-Other: sk-other"
    own = {"OPENAI_BASE_URL": main_server.base_url, "OPENAI_API_KEY": "sk-own", "PARLEY_MODEL__NAME": "big"}
    with running_server(tmp_path, environment=others | own) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            assert text_of(await run_agent(stubs_on(channel), spec_for(""))) == "main"
    headers = main_server.requests[-1].headers
    assert headers["Authorization"] == "Bearer sk-own"
    assert not any(said in f"{dict(headers)}" for said in ("org-1", "proj-1", "sk-other"))
