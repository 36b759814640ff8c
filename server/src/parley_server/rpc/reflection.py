"""The standard reflection services, `grpc.reflection.v1` and `v1alpha`: what this server serves, told to tools.

The messages of both versions are the same on the wire, so one servicer answers for both; only the descriptors differ.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from parley_server.domain.call_errors import ServerOverloadedError
from parley_server.domain.context import RequestContext
from parley_server.rpc.descriptor_index import DescriptorIndex, with_dependencies
from parley_server.rpc.drain import Drain

# A tool that reads the whole contract asks some dozens of times, and names are far shorter than this.
MAX_REQUESTS = 1000
MAX_REQUEST_BYTES = 4096
# Of the whole server: each waits for a request, which may be as long as any message before it is refused.
MAX_STREAMS = 32

ReadMessage = Callable[[], Awaitable[bytes | None]]


def reflection_descriptors() -> tuple[ServiceDescriptor, ServiceDescriptor]:
    """Return the descriptors of v1 and v1alpha. The package has the latter alone; v1 is its copy by another name."""
    old = descriptor_pool.Default().FindFileByName(pb.DESCRIPTOR.name)
    text = text_format.MessageToString(descriptor_pb2.FileDescriptorProto.FromString(old.serialized_pb))
    copy = text_format.Parse(
        text.replace("grpc.reflection.v1alpha", "grpc.reflection.v1"), descriptor_pb2.FileDescriptorProto()
    )
    copy.name = "grpc/reflection/v1/reflection.proto"
    copy.ClearField("options")  # where other languages put v1alpha's code, and that it is deprecated
    pool = descriptor_pool.DescriptorPool()
    pool.Add(copy)
    new = pool.FindFileByName(copy.name)
    return new.services_by_name["ServerReflection"], old.services_by_name["ServerReflection"]


class ReflectionServicer:
    """Tells the descriptors of `services`, and of `files` beside them.

    A request that cannot be served gets the protocol's own `error_response`, and the stream goes on.
    """

    def __init__(self, services: Sequence[ServiceDescriptor], drain: Drain, files: Iterable[FileDescriptor]) -> None:
        self._drain = drain
        self._streams = 0
        self._names = sorted(service.full_name for service in services)
        self._index = DescriptorIndex([*(service.file for service in services), *files])

    async def server_reflection_info(self, _: RequestContext, read: ReadMessage) -> AsyncGenerator[bytes]:
        """Return the answers to the requests, one each; the stream ends with the requests or after MAX_REQUESTS.

        Raises, as its answers are read:
            ServerOverloadedError: there are MAX_STREAMS already.
            ServerDrainingError: the server is stopping.
        """
        return self._counted(read)

    async def _counted(self, read: ReadMessage) -> AsyncGenerator[bytes]:
        if self._streams >= MAX_STREAMS:
            raise ServerOverloadedError
        self._streams += 1
        try:
            async with aclosing(self._answers(read)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self._streams -= 1

    async def _answers(self, read: ReadMessage) -> AsyncGenerator[bytes]:
        # What was sent on this stream before need not be sent again.
        sent: set[str] = set()
        for _ in range(MAX_REQUESTS):
            raw = await self._drain.bound(read)
            if raw is None:
                return
            yield self._answer(raw, sent).SerializeToString()

    def _answer(self, raw: bytes, sent: set[str]) -> pb.ServerReflectionResponse:
        if len(raw) > MAX_REQUEST_BYTES:
            return _refusal(grpc.StatusCode.INVALID_ARGUMENT, f"a request has at most {MAX_REQUEST_BYTES} bytes")
        try:
            request = pb.ServerReflectionRequest.FromString(raw)
        except DecodeError:
            return _refusal(grpc.StatusCode.INVALID_ARGUMENT, "the request is no ServerReflectionRequest")
        answer = self._found(request, sent)
        answer.valid_host = request.host
        answer.original_request.CopyFrom(request)
        return answer

    def _found(self, request: pb.ServerReflectionRequest, sent: set[str]) -> pb.ServerReflectionResponse:
        match request.WhichOneof("message_request"):
            case "list_services":
                return self._services()
            case "file_by_filename":
                return _file(self._index.file(request.file_by_filename), sent)
            case "file_containing_symbol":
                return _file(self._index.file_with_symbol(request.file_containing_symbol), sent)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                extensions = self._index.extensions_of(wanted.containing_type) or {}
                return _file(extensions.get(wanted.extension_number), sent)
            case "all_extension_numbers_of_type":
                return self._extension_numbers(request.all_extension_numbers_of_type)
            case _:
                return _refusal(grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    def _services(self) -> pb.ServerReflectionResponse:
        names = [pb.ServiceResponse(name=name) for name in self._names]
        return pb.ServerReflectionResponse(list_services_response=pb.ListServiceResponse(service=names))

    def _extension_numbers(self, message: str) -> pb.ServerReflectionResponse:
        extensions = self._index.extensions_of(message)
        if extensions is None:
            return _not_found()
        numbers = pb.ExtensionNumberResponse(base_type_name=message, extension_number=sorted(extensions))
        return pb.ServerReflectionResponse(all_extension_numbers_response=numbers)


def _file(file: FileDescriptor | None, sent: set[str]) -> pb.ServerReflectionResponse:
    if file is None:
        return _not_found()
    files = pb.FileDescriptorResponse(file_descriptor_proto=with_dependencies(file, sent))
    return pb.ServerReflectionResponse(file_descriptor_response=files)


def _not_found() -> pb.ServerReflectionResponse:
    return _refusal(grpc.StatusCode.NOT_FOUND, "not found")


def _refusal(code: grpc.StatusCode, message: str) -> pb.ServerReflectionResponse:
    error = pb.ErrorResponse(error_code=code.value[0], error_message=message)
    return pb.ServerReflectionResponse(error_response=error)
