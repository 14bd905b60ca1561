"""Structured logs: one JSON object a line."""

import json
import logging
from datetime import UTC, datetime

#: Loggers of libraries that tell too much at the level we want of our own.
QUIET = ("kopf", "aiohttp", "asyncio", "kubernetes", "urllib3")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger and message; and the traceback, if there is one."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(level: str) -> None:
    """Log to standard error at ``level``; libraries only warn, unless DEBUG is asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(level if level == "DEBUG" else logging.WARNING)
