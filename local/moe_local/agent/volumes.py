"""Volumes of a pod as folders: what is in them, and how it gets there.

Files that are made from API objects are replaced all at once, as a kubelet does it: they are links through `..data`,
a link that is renamed over the old one, so that a reader sees either all of the old content or all of the new.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from moe_local.agent.api_client import JSON, APIClient, NotFoundError
from moe_local.agent.environment import (
    ConfigurationError,
    Facts,
    Kind,
    Reference,
    Sources,
    expand,
    field,
    resource,
)
from moe_local.agent.launch import Mount
from moe_local.agent.pod import (
    ConfigSource,
    Container,
    DownwardSource,
    Pod,
    Projection,
    TokenSource,
    Volume,
    VolumeMount,
)

PROVISIONER = "moe-operator.dev/local"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
RENEW_AT = 0.8
"""Share of a token's lifetime after which it is renewed."""


@dataclass(frozen=True)
class File:
    """Content and mode of one file."""

    content: bytes
    mode: int


@dataclass(frozen=True)
class Token:
    """A token of a service account, and when to renew it, in seconds since the epoch."""

    text: str
    renew_at: float


Payload = dict[str, File]
"""Files by relative path."""


def decode(body: JSON) -> dict[str, bytes]:
    """Return the data of a ConfigMap or Secret."""
    encoded = body.get("binaryData") or {}
    if body.get("kind") == "Secret":
        encoded = body.get("data") or {}
        return {key: base64.b64decode(value) for key, value in encoded.items()}
    plain = {key: value.encode() for key, value in (body.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in encoded.items()}


async def fetch(client: APIClient, namespace: str, wanted: set[Reference]) -> Sources:
    """Read objects concurrently; None for those that do not exist. Raises APIError."""

    async def one(reference: Reference) -> tuple[Reference, Mapping[str, bytes] | None]:
        try:
            body = await client.get(f"/api/v1/namespaces/{namespace}/{reference[0]}/{reference[1]}")
        except NotFoundError:
            return reference, None
        return reference, decode({"kind": "Secret" if reference[0] == "secrets" else "ConfigMap", **body})

    return dict(await asyncio.gather(*(one(reference) for reference in wanted)))


def is_made_of_objects(volume: Volume) -> bool:
    """Return whether its files come from the API, so that they change when objects there change."""
    return bool(volume.projected or volume.config_map or volume.secret or volume.downward_api)


def projections(volume: Volume) -> tuple[tuple[Projection, ...], int]:
    """Return the sources of a volume that is made from objects, as if it were projected, and the mode of its files."""
    if volume.projected:
        return volume.projected.sources, volume.projected.default_mode
    if volume.config_map:
        return (Projection(config_map=volume.config_map),), volume.config_map.default_mode
    if volume.secret:
        named = volume.secret.model_copy(update={"name": volume.secret.secret_name})
        return (Projection(secret=named),), volume.secret.default_mode
    if volume.downward_api:
        return (Projection(downward_api=volume.downward_api),), volume.downward_api.default_mode
    return (), 0


def references(pod: Pod) -> set[Reference]:
    """Return the ConfigMaps and Secrets that a pod's volumes need."""
    found: set[Reference] = set()
    for volume in pod.spec.volumes:
        for source in projections(volume)[0]:
            if source.config_map:
                found.add(("configmaps", source.config_map.name))
            if source.secret:
                found.add(("secrets", source.secret.name))
    return found


def payload(
    pod: Pod, volume: Volume, facts: Facts, sources: Sources, tokens: Mapping[TokenSource, Token]
) -> Payload:
    """Return every file of a volume. Raises ConfigurationError if something that it needs does not exist."""
    files: Payload = {}
    parts, mode = projections(volume)
    for part in parts:
        if part.config_map:
            files |= _from_object(pod, "configmaps", part.config_map, sources, mode)
        if part.secret:
            files |= _from_object(pod, "secrets", part.secret, sources, mode)
        if part.downward_api:
            files |= _from_pod(pod, part.downward_api, facts, mode)
        if part.service_account_token:
            files[part.service_account_token.path] = File(
                tokens[part.service_account_token].text.encode(), 0o600
            )
    for path in files:
        _check_relative(path)
    return files


def _from_object(pod: Pod, kind: Kind, source: ConfigSource, sources: Sources, mode: int) -> Payload:
    data = sources.get((kind, source.name))
    if data is None:
        if source.optional:
            return {}
        raise ConfigurationError(
            f'{kind.removesuffix("s")} "{source.name}" not found in namespace "{pod.metadata.namespace}"'
        )
    if not source.items:
        return {key: File(content, mode) for key, content in data.items()}
    missing = [item.key for item in source.items if item.key not in data]
    if missing and not source.optional:
        raise ConfigurationError(f'{kind.removesuffix("s")} "{source.name}" has no key {", ".join(missing)}')
    return {i.path: File(data[i.key], i.mode or mode) for i in source.items if i.key in data}


def _from_pod(pod: Pod, source: DownwardSource, facts: Facts, mode: int) -> Payload:
    files: Payload = {}
    for item in source.items:
        if item.field_ref:
            text = field(pod, item.field_ref, facts)
        elif item.resource_field_ref:
            text = resource(pod, item.resource_field_ref, facts)
        else:
            continue
        files[item.path] = File(text.encode(), item.mode or mode)
    return files


def _check_relative(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise ConfigurationError(
            f"a volume cannot have a file at {path!r}: give a relative path without '..'"
        )


def write(folder: Path, files: Payload, owner: int | None = None) -> bool:
    """Make a folder hold exactly these files, all replaced at once; return False if it already did. Raises OSError.

    The files belong to `owner`, or to this process's user if that is None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / "..data"
    if current.is_symlink() and _holds(current.resolve(), files):
        return False
    fresh = Path(tempfile.mkdtemp(prefix=f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.", dir=folder))
    fresh.chmod(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
        give(target, owner)
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(current)
    tops = {PurePosixPath(path).parts[0] for path in files}
    for entry in folder.iterdir():
        if entry.name.startswith("..") and entry not in (fresh, current):
            shutil.rmtree(entry, ignore_errors=True)
        elif not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    return True


def _holds(folder: Path, files: Payload) -> bool:
    present = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return present.keys() == files.keys() and all(
        present[path].read_bytes() == file.content and present[path].stat().st_mode & 0o777 == file.mode
        for path, file in files.items()
    )


class PodVolumes:
    """The volumes of one pod, as folders in `folder` or, for claims, in the node's own folder."""

    def __init__(self, client: APIClient, folder: Path, claims_folder: Path, owner: int | None) -> None:
        self._client = client
        self._owner = owner
        self._folder = folder
        self._claims = claims_folder
        self._tokens: dict[TokenSource, Token] = {}
        self.folders: dict[str, Path] = {}
        self.read_only: set[str] = set()

    @property
    def renew_at(self) -> float | None:
        """Return when the first token has to be renewed."""
        return min((token.renew_at for token in self._tokens.values()), default=None)

    async def prepare(self, pod: Pod, facts: Facts) -> None:
        """Create all of them. Raises ConfigurationError, APIError or OSError; then it has to be called again."""
        await asyncio.gather(*(self._locate(pod, volume) for volume in pod.spec.volumes))
        await self.refresh(pod, facts)

    async def refresh(self, pod: Pod, facts: Facts) -> None:
        """Update those that are made from API objects."""
        sources, _ = await asyncio.gather(
            fetch(self._client, pod.metadata.namespace, references(pod)), self._renew_tokens(pod)
        )
        for volume in pod.spec.volumes:
            if is_made_of_objects(volume):
                files = payload(pod, volume, facts, sources, self._tokens)
                write(self.folders[volume.name], files, self._owner)

    async def _locate(self, pod: Pod, volume: Volume) -> None:
        if volume.persistent_volume_claim:
            claim = volume.persistent_volume_claim
            self.folders[volume.name] = await self._claim(pod, claim.claim_name)
            if claim.read_only:
                self.read_only.add(volume.name)
            return
        if volume.empty_dir is None and not is_made_of_objects(volume):
            kind = next(iter(volume.model_extra or {}), "unknown")
            raise ConfigurationError(
                f'volume "{volume.name}" is of kind {kind}, which this node does not mount: '
                "use emptyDir, configMap, secret, projected, downwardAPI or persistentVolumeClaim"
            )
        folder = self._folder / volume.name
        folder.mkdir(parents=True, exist_ok=True)
        give(folder, self._owner)
        self.folders[volume.name] = folder
        if volume.empty_dir is None:
            self.read_only.add(volume.name)

    async def _claim(self, pod: Pod, name: str) -> Path:
        """Return the folder behind a claim; only volumes that this node has provisioned can be mounted."""
        try:
            claim = await self._client.get(
                f"/api/v1/namespaces/{pod.metadata.namespace}/persistentvolumeclaims/{name}"
            )
        except NotFoundError:
            raise ConfigurationError(f'persistentvolumeclaim "{name}" not found') from None
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise ConfigurationError(f'persistentvolumeclaim "{name}" is not bound yet')
        volume = await self._client.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
        by = (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY)
        folder = self._claims / str(volume["metadata"]["name"])
        if by != PROVISIONER or not folder.is_dir():
            raise ConfigurationError(
                f'persistentvolumeclaim "{name}" is not on this node (provisioned by {by})'
            )
        await asyncio.to_thread(give_all, folder, self._owner)
        return folder

    async def _renew_tokens(self, pod: Pod) -> None:
        wanted = {
            source.service_account_token
            for volume in pod.spec.volumes
            for source in projections(volume)[0]
            if source.service_account_token
        }
        for source in wanted:
            held = self._tokens.get(source)
            if held is None or held.renew_at <= time.time():
                self._tokens[source] = await self._request_token(pod, source)

    async def _request_token(self, pod: Pod, source: TokenSource) -> Token:
        account = (
            f"/api/v1/namespaces/{pod.metadata.namespace}/serviceaccounts/{pod.spec.service_account_name}"
        )
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.uid}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [source.audience] if source.audience else [],
                "expirationSeconds": source.expiration_seconds,
                "boundObjectRef": bound,
            },
        }
        answer = await self._client.create(f"{account}/token", body)
        expires = datetime.fromisoformat(answer["status"]["expirationTimestamp"]).timestamp()
        now = time.time()
        return Token(answer["status"]["token"], now + RENEW_AT * (expires - now))

    def mounts(self, container: Container, variables: Mapping[str, str]) -> list[Mount]:
        """Return which folders and files a container sees, and where. Raises ConfigurationError for a bad subPath."""
        return [
            {
                "source": str(self.folders[mount.name]),
                "inner": self._inner(mount, variables),
                "target": os.path.normpath("/" + mount.mount_path.lstrip("/")),
                "readOnly": mount.read_only or mount.name in self.read_only,
            }
            for mount in container.volume_mounts
        ]

    def _inner(self, mount: VolumeMount, variables: Mapping[str, str]) -> str:
        inner = expand(mount.sub_path_expr, variables) or mount.sub_path
        folder = self.folders[mount.name]
        return str(beneath(folder, inner, self._owner).relative_to(folder.resolve())) if inner else ""


def give(path: Path, owner: int | None) -> None:
    """Make a file or folder belong to the user that pods run as; None: it does already."""
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)


def give_all(folder: Path, owner: int | None) -> None:
    """Give a volume with all of its contents to the user that pods run as, unless that was done before.

    That is a kubelet's `fsGroupChangePolicy: OnRootMismatch`: what is put in from outside later keeps its owner.
    """
    if owner is None or folder.stat().st_uid == owner:
        return
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, owner, owner, dir_fd=descriptor, follow_symlinks=False)
    give(folder, owner)


def beneath(folder: Path, inner: str, owner: int | None = None) -> Path:
    """Return a path inside a volume, creating a folder if it is missing. Refuses '..' and links that lead out."""
    parts = PurePosixPath(inner).parts
    if inner.startswith("/") or ".." in parts:
        raise ConfigurationError(f"subPath {inner!r} must be relative and without '..'")
    root = folder.resolve()
    try:
        found = (root / inner).resolve()
    except (RuntimeError, OSError) as error:  # links that lead to each other
        raise ConfigurationError(f"subPath {inner!r} cannot be resolved in its volume: {error}") from None
    if not found.is_relative_to(root):
        raise ConfigurationError(f"subPath {inner!r} leads out of its volume")
    _make_folders(root, found.relative_to(root).parts, owner)
    return found


def _make_folders(root: Path, parts: Sequence[str], owner: int | None) -> None:
    """Create what is missing of a path, opened part by part: a pod of the volume may change it at the same time."""
    descriptor = os.open(root, os.O_PATH)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=descriptor)
                if owner is not None:
                    os.chown(part, owner, owner, dir_fd=descriptor, follow_symlinks=False)
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    finally:
        os.close(descriptor)
