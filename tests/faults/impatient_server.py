"""The server with a fifth of its waits for the store, so that what follows them takes a test as little."""

from parley_server.__main__ import main
from parley_server.runs import engine
from parley_server.storage.sql import postgres, postgres_reading, writer

SHARE = 0.2

postgres.CONNECT_TIMEOUT_S *= SHARE
postgres_reading.READER_TIMEOUT_S *= SHARE
postgres.ANSWER_TIMEOUT_S *= SHARE
postgres.IN_DOUBT_TIMEOUT_S *= SHARE
writer.PATIENCE_S *= SHARE
engine.PATIENCE_S *= SHARE
engine.PARK_S *= SHARE

if __name__ == "__main__":
    main()
