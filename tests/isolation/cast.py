"""Who is on stage: three users, one of whose names begins with another's, a service that acts for one, an admin."""

from dataclasses import dataclass, field

import grpc
from catalogue.door import Caller
from isolation.canary import EVERYBODYS
from isolation.world import ADMIN
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import request_context_pb2
from parley_server.domain.principal import ADMIN_SCOPE, USER_SCOPES
from rpc.chassis import Metadata, bearer

SECRET_SLOT = "vault"
ROLES = ("ann", "anna", "bob", "bot_for_ann", "bot", "admin")


@dataclass(frozen=True)
class Speaker:
    """A credential, and the user it speaks for: `owner` is whose all is that he does."""

    role: str
    owner: str
    principal: str
    metadata: Metadata
    scopes: frozenset[str]
    # Users this credential must never speak for.
    strangers: tuple[str, ...] = ()

    @property
    def key_id(self) -> str:
        """The id of the key."""
        return str(self.metadata[0][1]).split("_")[1]

    def claiming(self, user_id: str) -> Metadata:
        """Return the metadata of a call that is made for a user; what else it says is the caller's own."""
        claim = request_context_pb2.RequestContext(user_id=user_id, metadata={"said-by": f"{EVERYBODYS}{self.owner}x"})
        return (*self.metadata, ("parley-context-bin", claim.SerializeToString()))


@dataclass
class Cast:
    """The speakers of one example, by role."""

    speakers: dict[str, Speaker] = field(default_factory=dict)

    @property
    def owners(self) -> list[str]:
        """The users, each once."""
        return list(dict.fromkeys(speaker.owner for speaker in self.speakers.values()))


async def make_cast(channel: grpc.aio.Channel, number: int) -> Cast:
    """Make keys for users that nobody has heard of before; their names are told apart by the number."""
    ann, anna, bob, bot = f"ann{number}", f"ann{number}a", f"bob{number}", f"bot{number}"
    admin = Caller(channel)
    made = {
        "ann": Speaker("ann", ann, f"user:{ann}", await _key(admin, user_id=ann), USER_SCOPES, (anna, bob)),
        "anna": Speaker("anna", anna, f"user:{anna}", await _key(admin, user_id=anna), USER_SCOPES, (ann, bot)),
        "bob": Speaker("bob", bob, f"user:{bob}", await _key(admin, user_id=bob), USER_SCOPES, (ann, ADMIN)),
    }
    service = await _key(admin, service_id=bot, act_as=[ann], scopes=USER_SCOPES)
    made["bot_for_ann"] = Speaker("bot_for_ann", ann, f"service:{bot}", service, USER_SCOPES, (anna, bob))
    made["bot"] = Speaker("bot", f"service:{bot}", f"service:{bot}", service, USER_SCOPES, (anna, bob, bot, ADMIN))
    everything = USER_SCOPES | {ADMIN_SCOPE}
    key = await _key(admin, user_id=ADMIN, scopes=everything)
    made["admin"] = Speaker("admin", ADMIN, f"user:{ADMIN}", key, everything, (ann, bob))
    return Cast(made)


async def _key(
    admin: Caller,
    *,
    user_id: str = "",
    service_id: str = "",
    act_as: list[str] | None = None,
    scopes: frozenset[str] = USER_SCOPES,
) -> Metadata:
    request = keys.CreateApiKeyRequest(act_as=act_as, scopes=sorted(scopes))
    if user_id:
        request.user_id = user_id
    else:
        request.service_id = service_id
    return bearer((await admin.ask(request, keys.CreateApiKeyResponse)).secret)
