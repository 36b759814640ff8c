"""API keys, never their secrets."""

from datetime import UTC, datetime

from parley.v1 import api_key_service_pb2 as pb

from parley_server.domain.api_key import ApiKey
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.mapping.timestamps import optional_timestamp, to_timestamp


def write_api_key(key: ApiKey) -> pb.ApiKey:
    """Return what may be known of a key."""
    message = pb.ApiKey(
        key_id=key.key_id,
        scopes=sorted(key.scopes),
        act_as=sorted(key.act_as),
        create_time=to_timestamp(key.create_time),
        expire_time=optional_timestamp(key.expire_time),
        last_use_time=optional_timestamp(key.last_use_time),
        revoke_time=optional_timestamp(key.revoke_time),
        previous_secret_expire_time=optional_timestamp(key.previous_secret_end(datetime.now(UTC))),
    )
    if key.kind is PrincipalKind.USER:
        message.user_id = key.subject
    else:
        message.service_id = key.subject
    return message


def read_principal(request: pb.CreateApiKeyRequest) -> tuple[PrincipalKind, str]:
    """Return whose key is asked for."""
    if request.WhichOneof("principal") == "user_id":
        return PrincipalKind.USER, request.user_id
    return PrincipalKind.SERVICE, request.service_id
