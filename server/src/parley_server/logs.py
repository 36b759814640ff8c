"""Logs: structlog's and the libraries', in one form on standard error, never with users' words in them."""

import logging
import sys

import structlog

from parley_server.settings import LogSettings


def configure_logging(settings: LogSettings) -> None:
    """Send all logging, the libraries' too, to standard error in one form."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    ending: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if is_json
        # The renderer's own tracebacks show the values of variables, which are users' words and keys.
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, *ending], foreign_pre_chain=shared))
    # The libraries' own chatter is not the server's log: their warnings are.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
