"""Files of an object store that speaks S3.

An object is read in ranges, each on the condition that it is still the object that was listed. So little of it is in
memory, a broken connection costs one range, and two versions are never mixed.

An object whose name is no path, such as `a//b.txt`, is named and left out, whatever else is in the bucket.

Requests that fail are repeated with growing pauses. If the store stays unreachable, or so slow that nothing arrives,
the attempt fails and may be repeated; if the store refuses the keys, the Job fails for good. So it does if a list
of objects has no end. Error messages contain neither the answer's headers nor the keys.
"""

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from moe_formats.beneath import printable, read_mounted
from moe_formats.failure import JobError, TransientError
from moe_formats.object_stores import (
    ACCESS_KEY_ID,
    CERTIFICATES,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    ObjectStoreLocation,
)
from moe_trainer import limits
from moe_trainer.sources.bucket_listing import Bucket, Keys, Listed, ListingError, pages
from moe_trainer.sources.files import File, changed, literal_folder, matches
from moe_trainer.sources.listing import LeftOut
from moe_trainer.sources.positioned import PositionedStream

if TYPE_CHECKING:  # these exist in obstore's stubs only
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: Bytes that one request asks for.
RANGE_BYTES = 4 * 1024 * 1024

_ANSWER = re.compile(r"status code: (?P<status>\d{3})")
_CODE = re.compile(r"<Code>(?P<code>\w{1,64})</Code>")


@dataclass(frozen=True)
class Patience:
    """Time limits, in seconds."""

    connect: float = limits.STORE_CONNECT_SECONDS
    stall: float = limits.STORE_STALL_SECONDS  #: Without receiving a byte.
    request: float = limits.STORE_REQUEST_SECONDS  #: For one request of a range.
    give_up: float = limits.STORE_RANGE_SECONDS  #: For one range, with all repetitions.
    listing: float = limits.STORE_LISTING_SECONDS  #: For listing what one glob may match.


PATIENCE = Patience()


class ObjectStoreFiles:
    """Objects of a bucket, beneath a prefix."""

    def __init__(
        self,
        root: str,
        location: ObjectStoreLocation,
        credentials: Path | None,
        patience: Patience | None = None,
    ) -> None:
        """Take a store's location and the folder with its keys; raises JobError (StoreDenied) if keys are missing."""
        patience = patience or PATIENCE
        self._root = root
        self._location = location
        self._bucket = _bucket(root, location, credentials, patience)
        self._patience = patience
        self.left_out: list[LeftOut] = []
        self._store = S3Store(
            location.bucket,
            prefix=location.prefix.strip("/") or None,
            config=_config(root, location, credentials),
            client_options=_client(location, credentials, patience),
            retry_config=_retries(patience),
        )

    def matching(self, pattern: str) -> list[File]:
        """Return the objects that a glob matches, sorted by name; raises JobError (PathNotAllowed, StoreUnreachable…)."""
        try:
            folder = literal_folder(pattern)
        except ValueError as error:
            raise JobError("PathNotAllowed", f"source path {pattern!r} is not a glob: {error}.") from None
        found: list[File] = []
        self.left_out = []
        try:
            self._list(folder, pattern, found)
        except ListingError as error:
            raise self._failed(error, f"listing {self._root}/{pattern}") from None
        return sorted(
            found, key=lambda file: file.path.split("/")
        )  # in the order of files on disk: folder by folder

    def _list(self, folder: str, pattern: str, found: list[File]) -> None:
        """Collect the objects that a glob matches; a store that goes on sending pages without objects is waited for here."""
        base = "".join(f"{part}/" for part in (self._location.prefix.strip("/"), folder) if part)
        above = len(base) - len(f"{folder}/" if folder else "")
        listed, until = 0, time.monotonic() + self._patience.listing
        for page in pages(self._bucket, base, self._patience.give_up):
            listed += len(page)
            for item in page:
                path = item.name[above:]
                if len(item.name.encode(errors="surrogateescape")) > limits.OBJECT_NAME_BYTES:
                    raise self._name_too_long(path)
                if item.name.startswith(base) and matches(path, pattern):
                    self._take(path, item, found)
            if listed > limits.OBJECTS_LISTED or len(found) > limits.OBJECTS_MATCHED:
                raise self._too_many(pattern, listed, len(found))
            if time.monotonic() > until:
                raise self._endless(pattern, len(found))

    def _take(self, path: str, item: Listed, found: list[File]) -> None:
        """Add an object that a glob matches to what was found, or to what is left out because of its name."""
        if (what := _no_path(path)) is None:
            found.append(File(self._root, path, item.size, item.version))
        elif item.size or not path.endswith(
            "/"
        ):  # else it stands for a folder, as the consoles of stores make it
            self.left_out.append(LeftOut(f"{self._root}/{printable(path)}", what))

    @contextmanager
    def open(self, file: File) -> Iterator[io.RawIOBase]:
        """Open an object; reading raises TransientError (DataChanged, StoreUnreachable)."""
        with _RangeReader(self, file) as raw:
            yield raw

    def read(self, file: File, start: int, end: int) -> memoryview:
        """Return the bytes of a range that lies within an object."""
        deadline = time.monotonic() + self._patience.give_up
        pause = 0.1
        while True:
            try:
                return self._get(file, start, end)
            except (FileNotFoundError, PreconditionError):
                raise changed(file, "its name now belongs to another object, or to none") from None
            except BaseError as error:
                failed = self._failed(error, f"reading {file} at byte {start}")
                if not failed.retryable or time.monotonic() + pause > deadline:
                    raise failed from None
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _get(self, file: File, start: int, end: int) -> memoryview:
        options: GetOptions = {"range": (start, end)}
        if file.version:
            options["if_match"] = file.version
        data = bytearray()
        for chunk in obstore.get(self._store, file.path, options=options).stream(RANGE_BYTES):
            data += chunk
            if len(data) > end - start:  # an answer without an end is not waited for
                break
        if len(data) != end - start:
            raise changed(file, f"it no longer has {end} bytes")
        return memoryview(data)

    def _failed(self, error: Exception, doing: str) -> JobError:
        answer = _ANSWER.search(str(error))
        status = answer["status"] if answer else ""
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in ("401", "403"):
            return denied(self._root, self._location, f"it refuses {doing} ({_cause(error)})")
        if isinstance(error, FileNotFoundError) or status == "404":
            return JobError(
                "DataMissing",
                f"store {self._root!r} has no bucket {self._location.bucket!r}: correct it in the chart's stores.",
            )
        return TransientError(
            "StoreUnreachable",
            f"store {self._root!r} at {self._location.endpoint or 'AWS'} failed while {doing}: {_cause(error)}. "
            "Nothing of this attempt was kept; the next one reads the data again.",
        )

    def _name_too_long(self, name: str) -> JobError:
        return JobError(
            "DataUnreadable",
            f"store {self._root!r} has an object whose name has {len(name.encode())} bytes ({name:.40}…), but S3 allows "
            f"{limits.OBJECT_NAME_BYTES}. Remove it, or name a folder in the source's path that does not contain it.",
        )

    def _endless(self, pattern: str, found: int) -> JobError:
        return JobError(
            "PathNotAllowed",
            f"listing {self._root}/{pattern} has not ended after {self._patience.listing:.0f} s; {found} objects match "
            "so far. Write a longer folder before the first wildcard, or pack the files.",
        )

    def _too_many(self, pattern: str, listed: int, found: int) -> JobError:
        return JobError(
            "PathNotAllowed",
            f"{self._root}/{pattern} matches {found} of {listed} objects listed so far; it may match {limits.OBJECTS_MATCHED} "
            f"of at most {limits.OBJECTS_LISTED}. Write a longer folder before the first wildcard, or pack the files.",
        )


class _RangeReader(PositionedStream):
    """An object as a seekable stream; every read is one request of at most RANGE_BYTES."""

    def __init__(self, files: ObjectStoreFiles, file: File) -> None:
        super().__init__(file.size)
        self._files = files
        self._file = file

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self.position + min(len(buffer), RANGE_BYTES), self.size)
        if end <= self.position:
            return 0
        data = self._files.read(self._file, self.position, end)
        buffer[: len(data)] = data
        self.position = end
        return len(data)


def denied(root: str, location: ObjectStoreLocation, what: str) -> JobError:
    """Return the error for a store that denies access; it names the Secret and its keys, never a value."""
    if not location.secret:
        fix = "It is read anonymously: name a Secret in the chart's stores, or let anyone read the bucket."
    else:
        fix = (
            f"Correct {ACCESS_KEY_ID} and {SECRET_ACCESS_KEY} in Secret {location.secret!r} of this namespace, "
            "or their permissions: to list the bucket and to get its objects."
        )
    return JobError("StoreDenied", f"store {root!r}, bucket {location.bucket!r}: {what}. {fix}")


def _no_path(name: str) -> str | None:
    """Return what is wrong with a name that is no path, and so cannot be asked for; None if it is one."""
    if not all(part not in ("", ".", "..") for part in name.split("/")):
        what = "an empty part, or a part '.' or '..'"
    elif any(character < " " or character == "\x7f" for character in name):
        what = "a control character"
    elif any("\udc80" <= character <= "\udcff" for character in name):
        what = "bytes that are not UTF-8"
    else:
        return None
    return f"is no path, because it has {what}; give the object another name"


def _bucket(root: str, location: ObjectStoreLocation, credentials: Path | None, patience: Patience) -> Bucket:
    config = _config(root, location, credentials)
    keys = None
    if location.secret:
        keys = Keys(config["access_key_id"], config["secret_access_key"], config.get("session_token", ""))
    return Bucket(
        endpoint=location.endpoint or f"https://s3.{location.region}.amazonaws.com",
        name=location.bucket,
        region=location.region,
        keys=keys,
        certificates=_key(credentials, CERTIFICATES),
        stall=patience.stall,
        request=patience.request,
    )


def _config(root: str, location: ObjectStoreLocation, credentials: Path | None) -> "S3Config":
    config: S3Config = {"region": location.region}
    if location.endpoint:
        config["endpoint"] = location.endpoint
    if not location.secret:
        config["skip_signature"] = True
        return config
    key, secret = (_key(credentials, name) for name in (ACCESS_KEY_ID, SECRET_ACCESS_KEY))
    if not key or not secret:
        missing = ACCESS_KEY_ID if not key else SECRET_ACCESS_KEY
        raise denied(root, location, f"Secret {location.secret!r} is missing or has no key {missing}")
    config["access_key_id"], config["secret_access_key"] = key, secret
    if token := _key(credentials, SESSION_TOKEN):
        config["session_token"] = token
    return config


def _client(location: ObjectStoreLocation, credentials: Path | None, patience: Patience) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": location.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=patience.connect),
        "read_timeout": timedelta(seconds=patience.stall),
        "timeout": timedelta(seconds=patience.request),
    }
    if certificates := _key(credentials, CERTIFICATES):
        options["root_certificate"] = certificates
    return options


def _retries(patience: Patience) -> "RetryConfig":
    return {
        "max_retries": 10,
        "retry_timeout": timedelta(seconds=patience.give_up),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    }


def _key(credentials: Path | None, name: str) -> str:
    """Return a key of the mounted Secret; empty if there is none."""
    if credentials is None:
        return ""
    try:
        return read_mounted(credentials / name)[0].decode().strip()
    except FileNotFoundError:
        return ""


def _cause(error: Exception) -> str:
    """Return what a store answered, or why it did not: one line without the answer's text."""
    text = str(error).split("Debug source")[0]
    if answer := _ANSWER.search(text):
        code = _CODE.search(text)
        return f"status {answer['status']}" + (f", {code['code']}" if code else "")
    return re.sub(r"\s+", " ", text).strip()[-200:]
