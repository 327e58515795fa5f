"""Logs: one line for each event on standard error, as text or JSON. A Secret in it does not print."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from protocol.profile import Profile


def configure(form: Literal["text", "json"], profile: Profile, *, quiet: bool = False) -> None:
    """Set up structlog, and the libraries' logging with it; once for each process.

    The literal profile says so on every line. quiet: warnings and worse only.
    """
    level = logging.WARNING if quiet else logging.INFO
    structlog.contextvars.clear_contextvars()
    if profile.lab_only:
        structlog.contextvars.bind_contextvars(profile=profile.name)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if quiet:  # what aiokafka has to say reaches the user as our own error
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
