"""Confines a failure to the object that it is about: it is logged once, with the object's name, and the rest goes on.

Every loop of the operator handles each object within ``confined``, so no object can end a loop or spoil what is done
about another one.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

log = logging.getLogger(__name__)

#: Number of failures that are remembered, so that each is logged only once.
REMEMBERED = 4096
#: Number of characters of an error that are logged.
LONGEST_ERROR = 300


@contextmanager
def confined(about: object, doing: str) -> Iterator[None]:
    """Log an error in the block, once per object and error, instead of raising it.

    ``doing`` says what fails, as in "reading it failed".
    """
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        warn_once(about, f"{doing} failed ({type(error).__name__} in {where}: {error})")


def warn_once(about: object, what: str) -> None:
    """Log what is wrong with an object, unless the same was logged about it before."""
    _log_once(name_of(about), what[:LONGEST_ERROR])


def name_of(about: object) -> str:
    """Return kind, namespace and name of a manifest, as far as it has them."""
    manifest: Mapping[str, Any] = about if isinstance(about, Mapping) else {}
    metadata = manifest.get("metadata")
    where = metadata if isinstance(metadata, Mapping) else {}
    kind, namespace, name = manifest.get("kind"), where.get("namespace"), where.get("name")
    return f"{kind or 'an object'} {namespace or '?'}/{name or '?'}"[:LONGEST_ERROR]


@lru_cache(maxsize=REMEMBERED)
def _log_once(name: str, what: str) -> None:
    log.warning("%s: %s; other objects are not affected", name, what)
