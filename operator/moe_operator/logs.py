"""Structured logs: one JSON object per line."""

import json
import logging
from datetime import UTC, datetime

#: Loggers of libraries that log too much at the level of our own messages.
QUIET = ("kopf", "aiohttp", "asyncio", "kubernetes", "urllib3")


class JsonLines(logging.Formatter):
    """Formats a log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, message and, if there is one, the traceback, as JSON."""
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
    """Log to standard error from ``level`` on; libraries only from WARNING on, unless ``level`` is DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(level if level == "DEBUG" else logging.WARNING)
