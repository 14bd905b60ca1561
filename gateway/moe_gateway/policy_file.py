"""The routing policy on disk, and the one that the gateway uses.

The file is a key of a mounted ConfigMap, which Kubernetes replaces by swapping a link; a cheap `stat` four times a
second notices it. It must be a regular file of that mount, and is never waited for (moe_formats/beneath.py). A new policy
takes over in one assignment once it is read and valid and its table is loaded. Until then the last good policy stays in
use, and the reason is reported.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from moe_formats import ngram_table
from moe_formats.beneath import LeadsOutError, RefusedError, Root, Version, mounted_version, read_mounted
from moe_formats.format import digest_of
from moe_formats.routing_policy import DistilledTable, RoutingPolicy, parse_routing_policy
from moe_gateway.strategies.context import Table

log = logging.getLogger(__name__)

#: Seconds between two checks of the file.
POLL_SECONDS = 0.25


class BadPolicy(Exception):
    """The policy or its table cannot be used; the message says why."""


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that the gateway uses.

    `complete` is false for a policy whose table could not be loaded. Such a policy is used only if there is no
    better one; then the fallback gets everything that the strategy would decide, and its digest is not reported.
    """

    policy: RoutingPolicy
    digest: str
    table: Table | None
    complete: bool = True
    loaded_at: float = field(default_factory=time.time)

    @property
    def expert_names(self) -> set[str]:
        """Return the names of the Experts in the policy."""
        return {expert.name for expert in self.policy.experts}


class PolicyFile:
    """Reads the policy whenever the file changes, and keeps the last good one."""

    def __init__(
        self, path: Path, store: Path, *, on_load: Callable[[bool], None] = lambda good: None
    ) -> None:
        """Read `path`; tables are beneath `store`. `on_load` is told whether each new policy was good."""
        self._path = path
        self._store = store
        self._on_load = on_load
        self._settled: Version | None = None
        self._tables: dict[str, Table] = {}
        self.current: LoadedPolicy | None = None
        self.error: str | None = f"{path} has not been read yet"

    @property
    def reported_digest(self) -> str | None:
        """Return the digest of the policy in use; None if it is not complete."""
        return self.current.digest if self.current is not None and self.current.complete else None

    def refresh(self) -> None:
        """Check the file once, and use the policy in it if that is new and good."""
        try:
            if mounted_version(self._path) == self._settled:
                return
            data, version = read_mounted(self._path)
            self._load(data.decode())
            self._settled = version
            self._report(None)
        except (BadPolicy, RefusedError, OSError, UnicodeDecodeError) as error:
            self._settled = None  # The table may still arrive, so this version is tried again.
            self._report(str(error))

    async def watch(self) -> None:
        """Refresh again and again, without end."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                self.refresh()
            except Exception:  # Whatever this file holds, the next one must still be read.
                log.exception("reading the policy at %s failed", self._path)

    def _load(self, text: str) -> None:
        digest = digest_of(text.strip().encode())
        try:
            policy = parse_routing_policy(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "policy"
            raise BadPolicy(f"{where}: {first['msg']}") from None
        except ValueError as error:
            raise BadPolicy(str(error)) from None
        try:
            table = self._table(policy.table)
        except BadPolicy:
            if self.current is None or not self.current.complete:
                self.current = LoadedPolicy(policy, digest, table=None, complete=False)
            raise
        self.current = LoadedPolicy(policy, digest, table)
        self._tables = {policy.table.digest: table} if policy.table and table else {}
        log.info("using policy %s: %s, %d Experts", digest, policy.strategy, len(policy.experts))

    def _table(self, reference: DistilledTable | None) -> Table | None:
        if reference is None:
            return None
        if reference.digest in self._tables:
            return self._tables[reference.digest]
        try:
            with Root(self._store) as store:
                data = store.read(reference.path, ngram_table.MAX_TABLE_BYTES + 1)
        except LeadsOutError:
            raise BadPolicy(f"table: {reference.path} leads out of the store") from None
        except RefusedError as error:
            raise BadPolicy(f"table: {reference.path} {error.what}") from None
        except OSError as error:
            raise BadPolicy(f"table: {reference.path} cannot be read: {error.strerror}") from None
        found = digest_of(data)
        if found != reference.digest:
            raise BadPolicy(
                f"table: {reference.path} has digest {found}, but the policy names {reference.digest}"
            )
        try:
            return ngram_table.load(data)
        except ValueError as error:
            raise BadPolicy(f"table: {reference.path}: {error}") from None

    def _report(self, error: str | None) -> None:
        if error is not None and error == self.error:
            return  # The same file, tried again.
        self.error = error
        self._on_load(error is None)
        if error is not None:
            log.error("the policy at %s is not in effect: %s", self._path, error)
