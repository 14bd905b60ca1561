"""Lists the objects of a bucket: one page per request, with every name as it is.

An object may be called anything, and obstore reads only some names: it fails for a whole page with a name such as `a//b.txt`,
`a/../b.txt` or one with a line break in it, and takes `folder/` for `folder`. So the list is asked for here, with nothing but
the standard library: a request signed with AWS's version 4, and an answer in XML of which five elements are read.
"""

import hashlib
import hmac
import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

#: Largest page that is read, in bytes. A thousand names of 1 KiB each, escaped, are 5 MB.
PAGE_BYTES = 16 << 20

_PIECE = 1 << 16
_EMPTY = hashlib.sha256(b"").hexdigest()


class ListingError(Exception):
    """A store's answer, or that none came. ``status`` is 0 if the store did not answer."""

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what)
        self.status = status

    @property
    def lasting(self) -> bool:
        """Whether the same request would have the same answer again."""
        return 300 <= self.status < 500 and self.status not in (408, 429)


class Listed(NamedTuple):
    """One object."""

    name: str
    size: int
    version: str  #: Its entity tag.


class Page(NamedTuple):
    """Some objects, and what to ask for the next ones with; empty on the last page."""

    objects: list[Listed]
    following: str


@dataclass(frozen=True)
class Keys:
    """The keys with which requests are signed."""

    identity: str
    secret: str
    session: str = ""


@dataclass(frozen=True)
class Bucket:
    """A bucket, and how to reach it. The times are in seconds."""

    endpoint: str  #: URL of the service; the bucket's name is the first part of the path.
    name: str
    region: str
    keys: Keys | None  #: None: requests are not signed.
    certificates: str  #: Certificates of a private authority (PEM); empty: those of the machine alone.
    stall: float  #: Longest time without a byte.
    request: float  #: Longest time for a page.

    def page(self, prefix: str, following: str = "") -> Page:
        """Return the objects whose names begin with a prefix; raises ListingError."""
        query = {"list-type": "2", "prefix": prefix} | (
            {"continuation-token": following} if following else {}
        )
        text = self._answer(query)
        try:
            return _parsed(text)
        except ElementTree.ParseError:  # XML cannot hold every character that a name can
            try:
                return _parsed(self._answer(query | {"encoding-type": "url"}))
            except (ElementTree.ParseError, ValueError) as error:
                raise ListingError(f"it answers with no list of objects: {error}"[:200]) from None
        except ValueError as error:
            raise ListingError(f"it answers with no list of objects: {error}"[:200]) from None

    def _answer(self, query: Mapping[str, str]) -> bytes:
        """Return the text of an answer; raises ListingError if it takes too long, however many bytes come meanwhile."""
        made: list[bytes | BaseException] = []
        asking = threading.Thread(target=self._ask, args=(query, made), daemon=True)
        asking.start()
        asking.join(self.request)
        if not made:
            raise ListingError(f"a page of the list takes more than {self.request:.0f} s")
        if isinstance(made[0], BaseException):
            raise made[0]
        return made[0]

    def _ask(self, query: Mapping[str, str], made: list[bytes | BaseException]) -> None:
        try:
            made.append(self._asked(query))
        except (
            BaseException
        ) as error:  # the border of the thread: it is raised where the answer is waited for
            made.append(error)

    def _asked(self, query: Mapping[str, str]) -> bytes:
        url = urlsplit(self.endpoint)
        path = f"{url.path.rstrip('/')}/{self.name}"
        asked = "&".join(
            f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(query.items())
        )
        headers = {"x-amz-content-sha256": _EMPTY}
        if self.keys is not None:
            headers = signed(self.keys, self.region, url.netloc, path, asked, datetime.now(UTC))
        request = urllib.request.Request(f"{url.scheme}://{url.netloc}{quote(path)}?{asked}", headers=headers)
        try:
            with self._opener.open(request, timeout=self.stall) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(_PIECE).decode(errors="replace")
            raise ListingError(f"status code: {error.code} {said}", error.code) from None
        except urllib.error.URLError as error:
            raise ListingError(str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise ListingError(f"{type(error).__name__}: {error}") from None

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        """Return the text of an answer that has an end."""
        data = bytearray()
        while piece := answer.read1(_PIECE):
            data += piece
            if len(data) > PAGE_BYTES:
                raise ListingError(f"a page of the list has more than {PAGE_BYTES} bytes", 413)
        return bytes(data)

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if self.certificates:
            context.load_verify_locations(cadata=self.certificates)
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A signature is for one host: a redirection is an answer like any other."""

    def redirect_request(self, *_: object) -> None:
        return None


def signed(keys: Keys, region: str, host: str, path: str, query: str, now: datetime) -> dict[str, str]:
    """Return the headers of a GET request without a body, with AWS's signature of version 4.

    ``path`` is not escaped, ``query`` is, in the order of its keys.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    given = {"x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if keys.session:
        given["x-amz-security-token"] = keys.session
    names = sorted([*given, "host"])
    lines = "".join(f"{name}:{host if name == 'host' else given[name]}\n" for name in names)
    asked = "\n".join(["GET", quote(path), query, lines, ";".join(names), _EMPTY])
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"AWS4-HMAC-SHA256 Credential={keys.identity}/{scope}"
    given["Authorization"] = f"{credential}, SignedHeaders={';'.join(names)}, Signature={key.hex()}"
    return given


def _parsed(text: bytes) -> Page:
    if b"<!" in text:
        raise ValueError("its XML has declarations")
    root = ElementTree.fromstring(text)
    if _local(root.tag) != "ListBucketResult":
        raise ValueError(f"it is {_local(root.tag)!r:.40}")
    escaped = _text(root, "EncodingType") == "url"
    objects = [_object(element, escaped) for element in root if _local(element.tag) == "Contents"]
    more = _text(root, "IsTruncated") == "true"
    return Page(objects, _text(root, "NextContinuationToken") if more else "")


def _object(element: ElementTree.Element, escaped: bool) -> Listed:
    name = _text(element, "Key")
    return Listed(
        unquote_plus(name, errors="surrogateescape") if escaped else name,
        int(_text(element, "Size")),
        _text(element, "ETag"),
    )


def _text(element: ElementTree.Element, name: str) -> str:
    return next((found.text or "" for found in element if _local(found.tag) == name), "")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def pages(bucket: Bucket, prefix: str, give_up: float) -> Iterator[list[Listed]]:
    """Yield the objects whose names begin with a prefix, page by page.

    Each page is asked for again with growing pauses until ``give_up`` seconds have passed; raises ListingError then, and at
    once if the store refuses.
    """
    following, page = "", None
    while page is None or page.following:
        page = _patiently(bucket, prefix, following, give_up)
        following = page.following
        yield page.objects


def _patiently(bucket: Bucket, prefix: str, following: str, give_up: float) -> Page:
    deadline, pause = time.monotonic() + give_up, 0.1
    while True:
        try:
            return bucket.page(prefix, following)
        except ListingError as error:
            if error.lasting or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
