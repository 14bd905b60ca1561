"""A root file system for one container, in its own mount namespace, that leaves no trace on the machine.

Root may create a mount namespace; other users first create a user namespace, in which they keep their user id. The new
root is a tmpfs that *mirrors* `/`: every entry is bind-mounted into it. If a mount point is missing inside a folder of
the machine, that folder is mirrored in the same way, so the mount point is created on the tmpfs and never on the
machine. Everything disappears with the last process of the namespace.

This prevents programs from using each other's files by accident. It is no security boundary: pods share this machine's
network, processes and user.

Only the standard library is imported, because the supervisor of a container (`shim.py`) loads this file by its path.
"""

from __future__ import annotations

import ctypes
import os
import posixpath
import stat
import sys
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moe_local.agent.launch import Mount, Sandbox

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = (
    1024,
    2048,
    4096,
    16384,
    1 << 18,
    1 << 21,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MOST_LINKS = 40

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: object) -> None:
    """Call a libc function that returns 0 on success; raises OSError with its errno."""
    converted = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, function)(*converted) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}", next((a for a in arguments if a), None))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount something; raises OSError naming the target."""
    try:
        _call("mount", source, target, kind, ctypes.c_ulong(flags), data)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot mount {source or kind}: {os.strerror(error.errno or 0)}", target
        ) from None


def adopt_orphans() -> None:
    """Make this process the parent of any process that its descendants leave behind."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent` ends, even by SIGKILL. Call it last: new credentials undo it."""
    _call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the supervisor ended before the container was started")


class Root:
    """The file system that is built at `path`. Its methods take paths as the container will see them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._own: set[str] = set()
        self._volumes: set[str] = set()
        self._mirror("/", os.open("/", os.O_PATH | os.O_DIRECTORY))

    def on_host(self, inside: str) -> str:
        """Return where a path of the container is reached from outside."""
        return self.path + inside if inside != "/" else self.path

    def _mirror(self, inside: str, source: int) -> None:
        """Mount a tmpfs at a folder and bind each entry of `source` (an open folder) into it. Closes `source`."""
        entries = os.listdir(f"/proc/self/fd/{source}")
        mount("tmpfs", self.on_host(inside), "tmpfs", MS_NOSUID, "mode=755,size=4m")
        self._own.add(inside)
        for name in entries:
            original = f"/proc/self/fd/{source}/{name}"
            copy = posixpath.join(self.on_host(inside), name)
            try:
                kind = os.lstat(original).st_mode
                if stat.S_ISLNK(kind):
                    os.symlink(os.readlink(original), copy)
                    continue
                _create(copy, directory=stat.S_ISDIR(kind))
                mount(original, copy, None, MS_BIND | MS_REC)
            except OSError:
                continue  # an entry that has vanished, or that this user may not see, is left out
        os.close(source)

    def _make(self, inside: str, *, directory: bool) -> None:
        """Create a missing entry: in a pod's volume directly, in a folder of the machine on a mirror of that folder."""
        parent = posixpath.dirname(inside)
        in_volume = any(parent == v or parent.startswith(v + "/") for v in self._volumes)
        if parent not in self._own and not in_volume:
            self._mirror(parent, os.open(self.on_host(parent), os.O_PATH | os.O_DIRECTORY))
        _create(self.on_host(inside), directory=directory)
        if directory and not in_volume:
            self._own.add(inside)

    def point(self, target: str, *, directory: bool) -> str:
        """Find or create a mount point, following links inside the new root; return its path inside."""
        current, parts, links = "/", deque(target.split("/")), 0
        while parts:
            name = parts.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                current = posixpath.dirname(current)
                continue
            child = posixpath.join(current, name)
            if os.path.islink(self.on_host(child)):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(40, "too many links on the way to a mount point", target)
                link = os.readlink(self.on_host(child))
                current = "/" if link.startswith("/") else current
                parts.extendleft(reversed(link.split("/")))
                continue
            if not os.path.exists(self.on_host(child)):
                self._make(child, directory=directory or any(parts))
            current = child
        return current

    def bind(self, source: str, target: str) -> str:
        """Show `source` (a folder or file of the machine) at `target`; return the path inside."""
        inside = self.point(target, directory=os.path.isdir(source))
        mount(source, self.on_host(inside), None, MS_BIND | MS_REC)
        self._volumes.add(inside)
        return inside

    def hide(self, target: str) -> None:
        """Show a folder as empty; one that does not exist need not be hidden."""
        if os.path.isdir(self.on_host(target)):
            mount("tmpfs", self.on_host(target), "tmpfs", MS_NOSUID, "mode=755,size=4m")
            self._own.add(target)

    def keep(self, path: str) -> None:
        """Show a folder of the machine at its own path again if something that is mounted above covers it."""
        try:
            covered = not os.path.samefile(path, self.on_host(path))
        except OSError:
            covered = os.path.exists(path)
        if covered:
            mount(path, self.on_host(self.point(path, directory=True)), None, MS_BIND | MS_REC)


def _create(path: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def _make_read_only(path: str) -> None:
    """Make a mount read-only. A user namespace may only remount with the flags of the original mount."""
    current = os.statvfs(path).f_flag
    kept = current & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
    kept |= MS_RELATIME if current & 4096 else 0  # ST_RELATIME
    mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def _new_namespaces() -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUTS)
        return
    except PermissionError:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as mapping:
            mapping.write(text)


def enter_new(sandbox: Sandbox) -> None:
    """Move this process into the sandbox. Raises OSError saying what could not be mounted and where."""
    _new_namespaces()
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    _call("sethostname", sandbox["hostname"], len(os.fsencode(sandbox["hostname"])))
    root = Root(sandbox["root"])
    for path in sandbox["hidden"]:
        root.hide(path)
    read_only = []
    ordered: list[Mount] = sorted(sandbox["mounts"], key=lambda m: m["target"].count("/"))
    for entry in ordered:
        inside = root.bind(entry["source"], entry["target"])
        if entry["readOnly"]:
            read_only.append(inside)
    for path in sandbox["keep"]:
        root.keep(path)
    for inside in read_only:
        _make_read_only(root.on_host(inside))
    os.chdir(root.path)
    _call("pivot_root", ".", ".")
    _call("umount2", ".", MNT_DETACH)
    os.chdir("/")


def enter_existing(process: int) -> None:
    """Move this process into the namespaces of another one. Raises OSError if that has ended."""
    for kind in ("user", "uts", "mnt"):
        theirs = f"/proc/{process}/ns/{kind}"
        if os.readlink(theirs) == os.readlink(f"/proc/self/ns/{kind}"):
            continue
        namespace = os.open(theirs, os.O_RDONLY)
        _call("setns", namespace, 0)
        os.close(namespace)


def main() -> None:
    """Exit with 0 if this machine allows all of the above, else print why not and exit with 1."""
    import tempfile  # takes 1 MB of memory, and only this trial needs it

    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            try:
                mounts: list[Mount] = [{"source": folder, "target": "/moe/trial/mount", "readOnly": True}]
                os.mkdir(f"{folder}/root")
                enter_new(
                    {
                        "root": f"{folder}/root",
                        "hostname": "trial",
                        "hidden": [],
                        "mounts": mounts,
                        "keep": [],
                    }
                )
                os.listdir("/moe/trial/mount")
                os._exit(0)
            except OSError as error:
                print(error, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
