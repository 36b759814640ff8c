"""What a call that was let in has changed, as its caller may know."""

from catalogue.door import METHODS
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from isolation.canary import words_in
from isolation.cast import Speaker
from isolation.wire import Answer
from isolation.world import Token, World
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import conversation_service_pb2 as conversations

# What their words become stays when the conversation goes: a note.
_LASTING = b"keep "


def learn(world: World, speaker: Speaker, request: Message, answer: Answer) -> None:
    """Take in tokens, etags, deletions, and which conversation has which words."""
    match request:
        case conversations.DeleteConversationRequest():
            thing = world.things.get(request.conversation_id)
            if thing is not None and thing.owner == speaker.owner:
                world.deleted.add(thing.thing_id)
        case keys.RevokeApiKeyRequest() | conversations.ExportConversationRequest():
            pass
        case _:
            _learn_words(world, request, answer)
    for raw in answer.messages:
        _learn_pages(world, speaker, request, raw)


def _learn_words(world: World, request: Message, answer: Answer) -> None:
    raw = request.SerializeToString()
    if not answer.messages or _LASTING in raw:
        return
    match request:
        case agents.StartRunRequest():
            run = agents.StartRunResponse.FromString(answer.messages[0]).run
            world.words[run.conversation_id].update(words_in(request.run.SerializeToString()))
        case agents.RunAgentRequest():
            event = agents.RunAgentResponse.FromString(answer.messages[0]).event
            world.words[event.conversation_id].update(words_in(request.run.SerializeToString()))
        case conversations.CreateConversationRequest():
            made = conversations.CreateConversationResponse.FromString(answer.messages[0]).conversation
            world.words[made.conversation_id].update(words_in(made.SerializeToString()))


def _learn_pages(world: World, speaker: Speaker, request: Message, raw: bytes) -> None:
    if "page_token" not in request.DESCRIPTOR.fields_by_name:
        etag = getattr(getattr(_response_of(request, raw), "conversation", None), "etag", "")
        world.etags += [etag] if etag else []
        return
    response = _response_of(request, raw)
    if token := getattr(response, "next_page_token", ""):
        behind = type(request)()
        behind.CopyFrom(request)
        behind.page_token = token  # type: ignore[attr-defined]  # looked for above
        world.tokens[request.DESCRIPTOR.full_name].append(Token(speaker.owner, behind))


def _response_of(request: Message, raw: bytes) -> Message:
    return GetMessageClass(METHODS[request.DESCRIPTOR.full_name].output_type).FromString(raw)
