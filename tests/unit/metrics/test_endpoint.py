"""The HTTP listener: what it answers, whom it lets in, and that nobody can hold it up for long."""

import socket
import threading
from http.client import HTTPConnection, HTTPResponse

import pytest
from parley_server.domain.errors import StartError
from parley_server.metrics import endpoint
from parley_server.metrics.endpoint import NOT_READY, READY, Answer, MetricsEndpoint, MetricsSettings, Pages

LOCAL = MetricsSettings(listen="127.0.0.1:0")
PAGES: Pages = {"/metrics": lambda: Answer(b"a 1\n"), "/readyz": lambda: NOT_READY}


def address_of(serving: MetricsEndpoint) -> tuple[str, int]:
    host, _, port = serving.address.rpartition(":")
    return host, int(port)


def asked(serving: MetricsEndpoint, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = HTTPConnection(*address_of(serving), timeout=10)
    connection.request(method, path)
    response: HTTPResponse = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_pages_are_answered_by_their_paths() -> None:
    with MetricsEndpoint(LOCAL, PAGES) as serving:
        assert asked(serving, "/metrics") == (200, b"a 1\n")
        assert asked(serving, "/metrics?name=x") == (200, b"a 1\n")
        assert asked(serving, "/metrics", "HEAD") == (200, b"")
        assert asked(serving, "/readyz") == (503, b"not ready\n")
        assert asked(serving, "/") == (404, b"there are /metrics /readyz\n")
        assert asked(serving, "/metrics", "POST")[0] == 405


def test_a_page_is_made_anew_each_time() -> None:
    answers = iter([READY, NOT_READY])
    with MetricsEndpoint(LOCAL, {"/readyz": lambda: next(answers)}) as serving:
        assert [asked(serving, "/readyz")[0] for _ in range(2)] == [200, 503]


def test_a_page_that_fails_harms_no_other() -> None:
    def fail() -> Answer:
        raise ValueError("secret")

    with MetricsEndpoint(LOCAL, {"/bad": fail, "/good": lambda: READY}) as serving:
        with socket.create_connection(address_of(serving), timeout=10) as client:
            client.sendall(b"GET /bad HTTP/1.1\r\n\r\n")
            assert client.recv(100) == b""
        assert asked(serving, "/good")[0] == 200


@pytest.mark.parametrize(
    "noise",
    [b"", b"\r\n\r\n", b"\x16\x03\x01" + b"\0" * 100 + b"\r\n\r\n", b"GET", b"x" * 100_000, b"\xff \xff\r\n\r\n"],
)
def test_noise_harms_nobody(noise: bytes) -> None:
    with MetricsEndpoint(LOCAL, PAGES) as serving:
        with socket.create_connection(address_of(serving), timeout=10) as client:
            client.sendall(noise)
        assert asked(serving, "/metrics")[0] == 200


def test_who_sends_slowly_is_cut_off_and_holds_only_his_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "CONNECTION_S", 1.0)
    before = threading.active_count()
    with MetricsEndpoint(LOCAL, PAGES) as serving:
        slow = [socket.create_connection(address_of(serving), timeout=10) for _ in range(endpoint.MAX_CONNECTIONS - 1)]
        for client in slow:
            client.sendall(b"GET /met")
        assert asked(serving, "/metrics")[0] == 200
        more = [socket.create_connection(address_of(serving), timeout=10) for _ in range(20)]
        assert threading.active_count() <= before + 1 + endpoint.MAX_CONNECTIONS
        for client in (*slow, *more):
            assert ended(client)
            client.close()
        assert asked(serving, "/metrics")[0] == 200


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_after_the_block_nobody_listens() -> None:
    with MetricsEndpoint(LOCAL, PAGES) as serving:
        where = address_of(serving)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, timeout=10)


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with MetricsEndpoint(LOCAL, PAGES) as serving, pytest.raises(StartError, match="is in use or not ours"):
        MetricsEndpoint(MetricsSettings(listen=serving.address), PAGES)


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "unix:/tmp/x", "a b:1"])
def test_what_is_no_address_is_said_to_be(listen: str) -> None:
    with pytest.raises(StartError, match="is no address"):
        MetricsEndpoint(MetricsSettings(listen=listen), PAGES)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost.example:0"])
def test_other_machines_are_kept_out(listen: str) -> None:
    with pytest.raises(StartError, match="allow_remote"):
        MetricsEndpoint(MetricsSettings(listen=listen), PAGES)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "localhost:0", "[::1]:0"])
def test_where_the_operator_says_so_it_listens(listen: str) -> None:
    with MetricsEndpoint(MetricsSettings(listen=listen, allow_remote=True), PAGES) as serving:
        assert serving.address.rpartition(":")[2] != "0"
