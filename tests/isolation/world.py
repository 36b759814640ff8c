"""What the users have, as far as their own answers have told: the model that the server is held against."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from google.protobuf.message import Message
from isolation.canary import Leak, has_token, ids_in, owners_in, requesters_in

Related = Mapping[str, str]
# What the field of an id is called, by how the id begins.
KINDS = {
    "apr": "approval_id",
    "call": "call_id",
    "conv": "conversation_id",
    "item": "item_id",
    "msg": "message_id",
    "note": "note_id",
    "result": "result_id",
    "run": "run_id",
    "steer": "steer_id",
}
ADMIN = "root"


@dataclass(frozen=True, slots=True)
class Thing:
    """A stored thing by its id, whose it is, and the ids it was told together with."""

    kind: str
    thing_id: str
    owner: str
    related: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """A page token, whom it was given to, and the request that it goes on with."""

    owner: str
    request: Message


@dataclass
class World:
    """All of it, over all examples of a campaign; ids are never used again, so one example does not disturb another."""

    things: dict[str, Thing] = field(default_factory=dict)
    deleting: Counter[str] = field(default_factory=Counter)
    deleted: set[str] = field(default_factory=set)
    reckoned: set[str] = field(default_factory=set)
    tokens: defaultdict[str, list[Token]] = field(default_factory=lambda: defaultdict(list))
    request_ids: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    etags: list[str] = field(default_factory=list)
    uttered: set[tuple[str, str]] = field(default_factory=set)
    reserved: set[str] = field(default_factory=set)
    spread: set[str] = field(default_factory=set)
    words: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    secrets: set[str] = field(default_factory=set)
    leaks: list[Leak] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    scanned_bytes: Counter[str] = field(default_factory=Counter)
    _pools: defaultdict[str, list[Thing]] = field(default_factory=lambda: defaultdict(list))

    def leak(self, where: str, what: str) -> None:
        """Keep what should not have been seen."""
        self.leaks.append(Leak(where, what))

    def fault(self, what: str) -> None:
        """Keep what breaks another promise than that of isolation."""
        self.faults.append(what)

    def scan(self, owner: str, where: str, raw: bytes, *, ids: bool = True, tokens: bool = True) -> None:
        """Look through what a user is shown for what is another's; `ids` and `tokens` where they may not be told."""
        self.scanned_bytes[where.partition(" ")[0]] += len(raw)
        for whose, word in owners_in(raw):
            if whose != owner or word in self.secrets:
                self.leak(where, f"{owner} is shown {word}")
        for whose, name in requesters_in(raw):
            if whose not in {owner, ADMIN} and owner != ADMIN:
                self.leak(where, f"{owner} is shown {name}")
        if tokens and has_token(raw):
            self.leak(where, f"{owner} is shown a token")
        for _, thing_id in ids_in(raw) if ids else ():
            thing = self.things.get(thing_id)
            if thing is not None and thing.owner != owner and (owner, thing_id) not in self.uttered:
                self.leak(where, f"{owner} is shown {thing_id}, which is {thing.owner}'s")

    def learn(self, owner: str, response: Message) -> None:
        """Take in the ids that a user was told as his; where they stand says what belongs together."""
        for related in groups_of(response):
            for name, thing_id in related.items():
                self.add(Thing(name, thing_id, owner, related))

    def learn_notes(self, owner: str, raw: bytes) -> None:
        """Take in the ids of notes, which only tools tell, and in texts."""
        for kind, thing_id in ids_in(raw):
            if kind == "note" and (owner, thing_id) not in self.uttered:
                self.add(Thing(KINDS[kind], thing_id, owner))

    def add(self, thing: Thing) -> None:
        """Take in a thing; what it belongs to may be told bit by bit."""
        known = self.things.get(thing.thing_id)
        if thing.thing_id in self.reserved:
            return
        if known is None:
            self.things[thing.thing_id] = Thing(thing.kind, thing.thing_id, thing.owner, dict(thing.related))
            self._pools[thing.kind].append(self.things[thing.thing_id])
        elif known.owner == thing.owner:
            for name, thing_id in thing.related.items():
                known.related.setdefault(name, thing_id)

    def is_gone(self, thing: Thing) -> bool:
        """Tell whether a thing is deleted, or with a conversation that is."""
        return self.conversation_of(thing) in self.deleted

    def may_be_gone(self, thing: Thing) -> bool:
        """Tell whether somebody may have deleted it by now."""
        return self.deleting[self.conversation_of(thing)] > 0

    def conversation_of(self, thing: Thing) -> str:
        """Return the conversation that a thing belongs to; empty for what belongs to none."""
        if thing.kind == "conversation_id":
            return thing.thing_id
        if (conversation_id := thing.related.get("conversation_id", "")) or "run_id" not in thing.related:
            return conversation_id
        run = self.things.get(thing.related["run_id"])
        return "" if run is None or run.thing_id == thing.thing_id else run.related.get("conversation_id", "")

    def pick(self, kind: str, random: Random, owner: str, *, own: float = 0.6) -> Thing | None:
        """Choose a thing of a kind, most of the time of this user's and the newer the likelier."""
        recent = self._pools[kind][-200:]
        mine = [thing for thing in recent if thing.owner == owner]
        others = [thing for thing in recent if thing.owner != owner]
        pool = mine if (random.random() < own and mine) or not others else others
        return pool[-1 - int(len(pool) * random.random() ** 2)] if pool else None

    def of(self, owner: str, kind: str) -> list[Thing]:
        """Return a user's things of a kind that are not deleted."""
        return [thing for thing in self._pools[kind] if thing.owner == owner and not self.is_gone(thing)]


def groups_of(message: Message, above: Related | None = None) -> Iterator[dict[str, str]]:
    """Yield, for every message in this one, the ids in it together with those around it."""
    set_fields = message.ListFields()
    ids = {
        _kind(each.name, value): value
        for each, value in set_fields
        if each.name.endswith("_id") and isinstance(value, str) and _kind(each.name, value)
    }
    # A list of ids names several of a kind: each is a group of its own.
    around = {**(above or {}), **ids}
    yield around
    for descriptor, value in set_fields:
        if descriptor.name.endswith("_ids"):
            named = ((_kind(descriptor.name, thing_id), thing_id) for thing_id in value)
            yield from ({**around, kind: thing_id} for kind, thing_id in named if kind)
        elif isinstance(value, Message):
            yield from groups_of(value, around)
        elif descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry:
            for each in value:
                yield from groups_of(each, around)


def _kind(name: str, value: str) -> str:
    """Return what kind of thing an id names: as it begins, whatever its field is called; a key's has no beginning."""
    if name == "key_id":
        return name
    return KINDS.get(value.partition("_")[0], "") if "_" in value else ""
