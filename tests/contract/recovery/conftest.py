"""The stores of the storage suite, for runs that are cut on them."""

from contract.storage.conftest import ann, bob, engine, open_same_store

__all__ = ["ann", "bob", "engine", "open_same_store"]
