"""How a caller stands to what his request names: whose it is decides what he may be answered."""

from collections.abc import Iterator
from enum import Enum

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from isolation.cast import Speaker
from isolation.world import Thing, World
from parley.v1 import access_policy_pb2

# Fields whose ids name no stored thing of a user's.
NO_THING = {
    "request_id": "the caller's own word for his request",
    "agent_id": "agents are everybody's",
    "user_id": "a name",
    "service_id": "a name",
    "file_id": "files cannot be sent yet",
    "active_run_id": "told by the server, not read by it",
}


class Standing(Enum):
    """What all the ids of a request are to its caller together."""

    NAMES_NOTHING = "there are none"
    OWN = "all are his, and belong together"
    NOT_HIS = "one at least is somebody else's, deleted or of nobody"
    UNCLEAR = "they are his, but not of each other, or one may be gone by now"


def named_ids(message: Message) -> Iterator[tuple[Message, str, str]]:
    """Yield every id that a request names: the message it is in, its field and the id."""
    for field, value in message.ListFields():
        if field.name.endswith("_id") and field.name not in NO_THING and isinstance(value, str):
            yield message, field.name, value
        elif isinstance(value, Message):
            yield from named_ids(value)


def standing_of(world: World, speaker: Speaker, request: Message) -> Standing:
    """Return how a speaker stands to what a request names, as far as anybody was told."""
    ids = [thing_id for _, _, thing_id in named_ids(request)]
    if not ids:
        return Standing.NAMES_NOTHING
    if not all(is_his(world, speaker, thing_id) for thing_id in ids):
        return Standing.NOT_HIS
    things = [world.things[thing_id] for thing_id in ids]
    if any(world.may_be_gone(thing) for thing in things) or not _belong_together(things):
        return Standing.UNCLEAR
    return Standing.OWN


def is_his(world: World, speaker: Speaker, thing_id: str) -> bool:
    """Tell whether a thing is the speaker's and there."""
    thing = world.things.get(thing_id)
    return thing is not None and thing.owner == speaker.owner and not world.is_gone(thing)


def with_missing_ids(world: World, speaker: Speaker, request: Message) -> Message:
    """Return the same request about things that are nobody's, wherever it names what is not the speaker's."""
    twin = type(request)()
    twin.CopyFrom(request)
    for message, field, thing_id in list(named_ids(twin)):
        if not is_his(world, speaker, thing_id):
            setattr(message, field, f"{thing_id[:-8]}{'0' * 8}")
    return twin


def may_call(speaker: Speaker, method: MethodDescriptor) -> bool:
    """Tell whether the contract lets this speaker call a method at all."""
    policy = method.GetOptions().Extensions[access_policy_pb2.access_policy]
    kind = access_policy_pb2.PrincipalKind.Value(f"PRINCIPAL_KIND_{speaker.principal.partition(':')[0].upper()}")
    return policy.principal_kind in {0, kind} and (policy.any_authenticated or policy.scope in speaker.scopes)


def _belong_together(things: list[Thing]) -> bool:
    return all(
        one.related.get(other.kind) == other.thing_id for one in things for other in things if one is not other
    ) or (len(things) == 2 and any(a.related.get(b.kind) == b.thing_id for a, b in (things, things[::-1])))
