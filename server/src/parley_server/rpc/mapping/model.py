"""Models on the wire: what a caller may know of them."""

from parley.v1 import admin_service_pb2 as pb

from parley_server.llm.model_catalog import ModelDescription


def write_model(model: ModelDescription) -> pb.ModelDescription:
    """Write a model; what is not known of it stays absent."""
    profile = model.profile
    return pb.ModelDescription(
        name=model.name,
        provider=model.provider,
        context_window=profile.context_window,
        images=profile.images,
        tools=profile.tools,
        structured_output=None if profile.kind == "unknown" else profile.response_format == "json_schema",
    )
