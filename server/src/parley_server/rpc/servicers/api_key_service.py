"""ApiKeyService: maps, calls one method, maps back."""

from parley.v1 import api_key_service_pb2 as pb

from parley_server.auth.key_administration import DEFAULT_LIFETIME, KeyAdministration
from parley_server.domain.api_key import ApiKey
from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.api_key import read_principal, write_api_key
from parley_server.rpc.mapping.features import not_available, not_implemented
from parley_server.rpc.mapping.page import read_page
from parley_server.storage.repositories import Page, PageRequest


class ApiKeyServicer:
    """Serves the administration of keys."""

    def __init__(self, keys: KeyAdministration[PageRequest, Page[ApiKey]]) -> None:
        self._keys = keys

    async def create_api_key(
        self, _context: RequestContext, request: pb.CreateApiKeyRequest
    ) -> pb.CreateApiKeyResponse:
        """Issue a key; its text is in this response and nowhere else."""
        if request.request_id:
            raise not_available("api_key_request_id")
        kind, subject = read_principal(request)
        lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else DEFAULT_LIFETIME
        key, text = await self._keys.create(kind, subject, request.scopes, request.act_as, lifetime)
        return pb.CreateApiKeyResponse(api_key=write_api_key(key), secret=text)

    async def list_api_keys(self, _context: RequestContext, request: pb.ListApiKeysRequest) -> pb.ListApiKeysResponse:
        """Return a page of the keys."""
        page = await self._keys.list(read_page(request.page_size, request.page_token))
        return pb.ListApiKeysResponse(
            api_keys=[write_api_key(key) for key in page.items], next_page_token=page.next_token
        )

    async def revoke_api_key(
        self, _context: RequestContext, request: pb.RevokeApiKeyRequest
    ) -> pb.RevokeApiKeyResponse:
        """End a key."""
        return pb.RevokeApiKeyResponse(api_key=write_api_key(await self._keys.revoke(request.key_id)))

    async def rotate_api_key(
        self, _context: RequestContext, _request: pb.RotateApiKeyRequest
    ) -> pb.RotateApiKeyResponse:
        """Refuse: this server cannot rotate keys."""
        raise not_implemented("rotate_api_key")
