"""The request's body where it depends on the server or cannot be written."""

import json

import pytest
from parley_server.domain.content import FilePart
from parley_server.domain.errors import Reason
from parley_server.domain.run import ModelOptions
from parley_server.llm.model_service import ModelError, ModelRequest, UserMessage
from parley_server.llm.request_body import encode_request, max_tokens_field


@pytest.mark.parametrize(
    ("base_url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("http://localhost:11434/v1", "max_tokens"),
        ("https://api.openai.com.example/v1", "max_tokens"),
    ],
)
def test_the_limit_goes_under_the_name_the_server_knows(base_url: str, field: str) -> None:
    request = ModelRequest("m", (), options=ModelOptions(max_output_tokens=5))
    assert json.loads(encode_request(request, max_tokens_field(base_url)))[field] == 5


def test_an_uploaded_file_cannot_be_sent() -> None:
    with pytest.raises(ModelError) as raised:
        encode_request(ModelRequest("m", (UserMessage((FilePart("file_1"),)),)), "max_tokens")
    assert raised.value.reason == Reason.MODEL_REQUEST_REJECTED
