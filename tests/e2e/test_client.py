"""The Python client against the real server: what plugins ask of it."""

import pytest
from parley.v1.run_pb2 import RUN_STATE_CANCELLED, RUN_STATE_SUCCEEDED
from parley_client import (
    AlreadyExistsError,
    InvalidRequestError,
    NotAuthenticatedError,
    NotFoundError,
    OutOfRangeError,
    ParleyClient,
    ParleyError,
)
from server_process import ServerProcess


async def test_words_that_are_added_to_a_run_are_answered_in_it(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        async with client.run("Tell me a story") as run:
            steer_id = await run.steer("What is 2 + 2?", request_id="test-client-steer")
            again = await client.steer_run(run.run_id, "What is 2 + 2?", request_id="test-client-steer")
            applied = [event.steer_applied.steer_id async for event in run if event.HasField("steer_applied")]
        assert applied == [steer_id] == [again]
        assert run.text == "2 + 2 = 4"
        said = [message async for message in client.conversations.messages(run.conversation_id)]
        assert "What is 2 + 2?" in [message.user.parts[0].text for message in said if message.HasField("user")]
        with pytest.raises(ParleyError) as caught:
            await client.steer_run(run.run_id, "and 3?")
        assert caught.value.reason == "RUN_NOT_STEERABLE"


async def test_a_run_its_conversation_and_its_messages(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        conversation = await client.conversations.create("Sums", request_id="test-client-sums")
        again = await client.conversations.create("Sums", request_id="test-client-sums")
        assert again.conversation_id == conversation.conversation_id
        async with client.run("What is 17 * 23?", conversation_id=conversation.conversation_id) as run:
            seqs = [event.seq async for event in run]
        assert seqs == list(range(1, len(seqs) + 1))
        assert run.text == "17 * 23 = 391"
        assert run.conversation_id == conversation.conversation_id
        listed = [each.run_id async for each in client.list_runs(conversation_id=run.conversation_id)]
        assert listed == [run.run_id]
        kinds = [message.WhichOneof("item") async for message in client.conversations.messages(run.conversation_id)]
        assert kinds == ["user", "tool_call", "assistant"]
        newest = await anext(client.conversations.list(page_size=1))
        assert newest.conversation_id == conversation.conversation_id
        assert (await client.conversations.get(run.conversation_id)).title == "Sums"


async def test_the_server_tells_of_itself(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        assert (await client.server_info()).offline_model
        assert "assistant" in [agent.agent_id for agent in await client.agents()]


async def test_a_run_that_is_started_can_be_watched_and_cancelled(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        started = await client.start("Tell me a story")
        async with client.watch(started.run_id) as run:
            async for event in run:
                if event.HasField("text_delta"):
                    await run.cancel("enough")
                    break
            finished = await run.wait()
        assert finished.state == RUN_STATE_CANCELLED
        assert (await client.get_run(started.run_id)).output_text == run.text
        async with client.watch(started.run_id, run.last_seq) as at_the_end:
            assert (await at_the_end.wait()).state == RUN_STATE_CANCELLED
            assert at_the_end.text == run.text
        async with client.watch(started.run_id, run.last_seq + 1) as beyond:
            with pytest.raises(OutOfRangeError) as caught:
                await beyond.wait()
        assert caught.value.reason == "CURSOR_AHEAD"


async def test_the_same_request_id_is_the_same_run(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        async with client.run("What is 2 + 2?", request_id="test-client-once") as first:
            await first.wait()
        async with client.run("What is 2 + 2?", request_id="test-client-once") as second:
            finished = await second.wait()
        assert (second.run_id, second.text) == (first.run_id, first.text)
        assert finished.state == RUN_STATE_SUCCEEDED
        with pytest.raises(AlreadyExistsError):
            await client.start("What is 3 + 3?", request_id="test-client-once")


async def test_errors_say_what_the_server_says(server: ServerProcess) -> None:
    async with ParleyClient(server.address, "") as client:
        with pytest.raises(NotFoundError) as absent:
            await client.get_run("run_absent")
        assert absent.value.reason == "RESOURCE_NOT_FOUND"
        assert absent.value.request_id
        with pytest.raises(InvalidRequestError) as bad:
            async with client.run("  "):
                pass
        assert [violation.field for violation in bad.value.violations] == ["run.input[0].text"]
    async with ParleyClient(server.address, "not-a-key") as stranger:
        with pytest.raises(NotAuthenticatedError):
            await stranger.server_info()


async def test_a_replay_is_what_was_seen_over_a_crash(own_server: ServerProcess) -> None:
    async with ParleyClient(own_server.address, "") as client, client.run("Please count to 50") as run:
        received = []
        async for event in run:
            received.append(event)
            if event.seq == 20:
                own_server.kill()
                own_server.start()
        assert [event.seq for event in received] == list(range(1, len(received) + 1))
        async with client.watch(run.run_id) as replay:
            assert [event async for event in replay] == received
