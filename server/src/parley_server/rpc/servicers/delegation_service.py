"""DelegationService: maps, calls one method, maps back."""

from parley.v1 import delegation_service_pb2 as pb

from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import MAX_LIFETIME, Delegations, DelegationWish
from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.page import page_of, read_page
from parley_server.rpc.mapping.timestamps import to_timestamp


class DelegationServicer:
    """Serves tokens, and the keys they are verified by."""

    def __init__(self, delegations: Delegations, signer: DelegationSigner) -> None:
        self._delegations = delegations
        self._signer = signer

    async def issue_delegation_token(
        self, context: RequestContext, request: pb.IssueDelegationTokenRequest
    ) -> pb.IssueDelegationTokenResponse:
        """Make a token; its text is in this response and nowhere else."""
        wish = DelegationWish(
            user_id=request.user_id,
            scopes=frozenset(request.scopes),
            lifetime=request.lifetime.ToTimedelta() if request.HasField("lifetime") else MAX_LIFETIME,
            audience=request.audience,
        )
        token, delegation = self._delegations.for_caller(context, wish)
        expire_time = to_timestamp(delegation.expire_time)
        return pb.IssueDelegationTokenResponse(token=token, expire_time=expire_time, actors=delegation.actors)

    async def list_delegation_keys(
        self, _context: RequestContext, request: pb.ListDelegationKeysRequest
    ) -> pb.ListDelegationKeysResponse:
        """Return a page of the keys, of which there is one."""
        key = pb.DelegationKey(key_id=self._signer.key_id, jwk_json=self._signer.jwk_json())
        page = page_of({key.key_id: key}, read_page(request.page_size, request.page_token))
        return pb.ListDelegationKeysResponse(keys=page.items, next_page_token=page.next_token)
