"""Parley in a terminal: a chat that streams, and `parley ask` for pipes and scripts."""
