"""ApiKeyService: maps, calls one method, maps back."""

from parley.v1 import api_key_service_pb2 as pb

from parley_server.auth.key_administration import DEFAULT_LIFETIME, KeyAdministration
from parley_server.domain.api_key import ApiKey
from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.api_key import read_principal, write_api_key
from parley_server.rpc.mapping.idempotency import repeatable_request
from parley_server.rpc.mapping.page import read_page
from parley_server.storage.page import Page, PageRequest


class ApiKeyServicer:
    """Serves the administration of keys."""

    def __init__(self, keys: KeyAdministration[PageRequest, Page[ApiKey]]) -> None:
        self._keys = keys

    async def create_api_key(self, context: RequestContext, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
        """Issue a key; its text is in this response and nowhere else."""
        kind, subject = read_principal(request)
        lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else DEFAULT_LIFETIME
        repeatable = repeatable_request(context, request, request.request_id, "create_api_key")
        key, text = await self._keys.create(kind, subject, request.scopes, request.act_as, lifetime, repeatable)
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

    async def rotate_api_key(self, context: RequestContext, request: pb.RotateApiKeyRequest) -> pb.RotateApiKeyResponse:
        """Give a key a new secret; its text is in this response and nowhere else."""
        lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else None
        repeatable = repeatable_request(context, request, request.request_id, "rotate_api_key")
        key, text = await self._keys.rotate(request.key_id, request.overlap.ToTimedelta(), lifetime, repeatable)
        return pb.RotateApiKeyResponse(api_key=write_api_key(key), secret=text)
