"""Alembic's entry: runs the migrations on the connection the caller hands in."""

from alembic import context

from parley_server.storage.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
