"""What the whole session shares."""

import signal
from collections.abc import Generator, Iterator

import pytest
import secret_scan
from hypothesis import settings
from lasting_port import lasting_port
from postgres_server import PostgresServer, running_postgres

# No test is a matter of time: the machine may be doing something else.
settings.register_profile("parley", deadline=None, print_blob=True)
settings.load_profile("parley")
secret_scan.watch_this_process()
# Begun in the background of a shell, the suite and every program it starts would not hear of an interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def secrets_stay_where_they_are(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Search all that the session's servers have left; set up first, and so the last to look."""
    yield
    if found := secret_scan.found_below(tmp_path_factory.getbasetemp()):
        pytest.fail("secrets are where nobody put them:\n" + "\n".join(found), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Search what a test has said."""
    report = yield
    found = [each for name, text in report.sections if "Captured" in name for each in secret_scan.found_in_text(text)]
    if found and report.passed:
        report.outcome, report.longrepr = "failed", "secrets are in what is said:\n" + "\n".join(found)
    return report


@pytest.fixture
def unused_tcp_port() -> int:
    """A port where nobody answers as long as the test takes, which the plugin's own does not promise."""
    return lasting_port()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server; it is started by the first test that asks for it."""
    with running_postgres(syncs=False) as server:
        yield server
