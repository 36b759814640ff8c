"""What a request is made of: ids, tokens, request ids and etags of anybody, and words of the speaker's own."""

from random import Random

from google.protobuf.message import Message
from isolation.canary import EVERYBODYS, canary, request_name
from isolation.cast import Speaker
from isolation.world import KINDS, World
from parley.v1 import content_pb2, run_pb2

_PREFIXES = {name: prefix for prefix, name in KINDS.items()}
# What users say, and what it makes of them; see `isolation.echo_model`.
PLAIN_COMMANDS = ("say", "say", "mine", "slow", "keep", "find", "big", "ask", "spend", "refuse", "break", "doubt")
HOST_COMMANDS = ("fetch", "whose", "protest", "linger", "hush")
# The very same words from everybody: answers may not be kept by them.
WORDLESS = ("mine", "whose")
ID_COMMANDS = {"look": "result_id", "forget": "note_id"}


class Asker:
    """Makes requests for a speaker, out of what everybody has and at random."""

    def __init__(self, random: Random, world: World, speaker: Speaker) -> None:
        self.random = random
        self.world = world
        self.speaker = speaker

    def thing(self, kind: str) -> str:
        """Return an id of a kind: the speaker's own, somebody else's, or nobody's."""
        found = self.world.pick(kind, self.random, self.speaker.owner)
        if found is None or found.thing_id in self.world.reserved or self.random.random() < 0.05:
            return self.absent(kind)
        return found.thing_id

    def absent(self, kind: str) -> str:
        """Return an id as there could be one."""
        return f"{_PREFIXES.get(kind, kind)}_0{self.random.getrandbits(120):025X}"

    def maybe(self, kind: str, chance: float = 0.5) -> str:
        """Return an id or none."""
        return self.thing(kind) if self.random.random() < chance else ""

    def belonging(self, thing_id: str, kind: str) -> str:
        """Return the id that was told together with another one, else any of its kind."""
        thing = self.world.things.get(thing_id)
        related = "" if thing is None else thing.related.get(kind, "")
        return related if related and self.random.random() < 0.7 else self.thing(kind)

    def words(self) -> str:
        """Return words of the speaker's."""
        return canary(self.speaker.owner, self.random)

    def request_id(self) -> str:
        """Return none, a new one, or one that somebody has used."""
        if self.random.random() < 0.5:
            return ""
        used = list(self.world.request_ids)
        return (
            self.random.choice(used[-50:])
            if used and self.random.random() < 0.5
            else f"r{self.random.getrandbits(64):016x}"
        )

    def etag(self) -> str:
        """Return none, or one that somebody was told."""
        return self.random.choice(["", *self.world.etags[-20:]])

    def query(self) -> str:
        """Return none, what all users' words begin with, or a whole word of anybody's."""
        said = [word for words in list(self.world.words.values())[-20:] for word in sorted(words)]
        return self.random.choice(["", EVERYBODYS, EVERYBODYS, *said[-20:]])

    def number(self, most: int) -> int:
        """Return a number up to `most`; 0 as often as all others."""
        return self.random.choice([0, self.random.randint(1, most)])

    def page(self, request: Message) -> Message:
        """Return a request of a list with a page: the first, or what a token says that somebody was given."""
        given = self.world.tokens[request.DESCRIPTOR.full_name][-20:]
        if given and self.random.random() < 0.4:
            token = self.random.choice(given)
            if self.random.random() < 0.7:
                request.CopyFrom(token.request)
            else:
                request.page_token = token.request.page_token  # type: ignore[attr-defined]  # every list has one
        request.page_size = self.number(3)  # type: ignore[attr-defined]  # every list has one
        return request

    def spec(self, conversation_id: str) -> run_pb2.RunSpec:
        """Return what a run is asked for with."""
        spec = run_pb2.RunSpec(conversation_id=conversation_id, input=[self.prompt()])
        spec.labels["of"] = self.words()
        spec.concurrency_policy = self.random.choice(run_pb2.ConcurrencyPolicy.values())
        spec.unattended_policy = self.random.choice(run_pb2.UnattendedPolicy.values())
        return spec

    def prompt(self) -> content_pb2.ContentPart:
        """Return what the user says: a command, a word of his, and now and then an id of anybody's."""
        command = self.random.choice([*PLAIN_COMMANDS, *HOST_COMMANDS, *ID_COMMANDS, *ID_COMMANDS])
        if command in WORDLESS:
            return content_pb2.ContentPart(text=command)
        text = f"{command} {self.words()}"
        if command in ID_COMMANDS:
            thing_id = self.thing(ID_COMMANDS[command])
            self.world.uttered.add((self.speaker.owner, thing_id))
            text += f" {thing_id}"
        return content_pb2.ContentPart(text=text)

    def name_of_request(self) -> str:
        """Return what this call is called."""
        return request_name(self.speaker.owner, self.random)
