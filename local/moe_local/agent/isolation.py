"""The namespaces of one container: its own processes, and a file system that leaves no trace on the machine.

Root may create namespaces; other users first create a user namespace (credentials.py). The new root is a tmpfs that
*mirrors* `/`: every entry is bind-mounted into it, read-only, except for those that hold other people's files, sockets
and devices. If a mount point is missing inside a folder of the machine, that folder is mirrored in the same way, so the
mount point is created on the tmpfs and never on the machine. Everything disappears with the last process of the
namespace.

What is not separated: the network, which pods share with the machine.

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
    from moe_local.agent import credentials
    from moe_local.agent.launch import Identity, Mount, Sandbox
else:
    sys.path.append(posixpath.dirname(posixpath.abspath(__file__)))
    import credentials

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x04000000, 0x08000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
KEPT_FLAGS = {
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "nosymfollow": 256,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
"""A user namespace may only remount with the flags of the original mount."""
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MOST_LINKS = 40

LEFT_OUT = ("home", "root", "run", "mnt", "media", "tmp", "proc", "dev")
"""Folders of `/` that are empty in a container: homes, sockets of services, other disks, and what it has of its own."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ACCELERATORS = ("nvidia", "dri", "kfd", "accel", "vfio", "dxg")
"""What the names of devices for computing begin with."""
SHARED_MEMORY_BYTES = 64 << 20
"""As in a container, whose pod can mount a larger volume at /dev/shm."""

call = credentials.call


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount something; raises OSError naming the target."""
    try:
        call("mount", source, target, kind, ctypes.c_ulong(flags), data)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot mount {source or kind}: {os.strerror(error.errno or 0)}", target
        ) from None


def adopt_orphans() -> None:
    """Make this process the parent of any process that its descendants leave behind."""
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, even by SIGKILL. Call it last: new credentials undo it."""
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)


def separate_children(identity: Identity) -> None:
    """Let the next child of this process be the first one of a PID namespace; when it ends, the kernel kills the rest."""
    if identity["kind"] == "own":
        credentials.map_own(identity, more=CLONE_NEWPID)
    else:
        call("unshare", CLONE_NEWPID)


class Root:
    """The file system that is built at `path`. Its methods take paths as the container will see them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._own: set[str] = set()
        """Folders that are on our own tmpfs, so that entries can be made in them."""
        self._may_write: dict[str, bool] = {}
        """What is mounted in addition to the machine's folders, and whether the pod may write there."""
        self._mirror("/", os.open("/", os.O_PATH | os.O_DIRECTORY), LEFT_OUT)

    def on_host(self, inside: str) -> str:
        """Return where a path of the container is reached from outside."""
        return self.path + inside if inside != "/" else self.path

    def _make_tmpfs(self, inside: str, options: str = "mode=755,size=4m") -> None:
        mount("tmpfs", self.on_host(inside), "tmpfs", MS_NOSUID, options)
        self._own.add(inside)

    def _mirror(self, inside: str, source: int, left_out: tuple[str, ...] = ()) -> None:
        """Mount a tmpfs at a folder and bind each entry of `source` (an open folder) into it. Closes `source`.

        Folders that are left out are empty.
        """
        entries = os.listdir(f"/proc/self/fd/{source}")
        self._make_tmpfs(inside)
        for name in entries:
            original = f"/proc/self/fd/{source}/{name}"
            copy = posixpath.join(self.on_host(inside), name)
            try:
                kind = os.lstat(original).st_mode
                if stat.S_ISLNK(kind):
                    os.symlink(os.readlink(original), copy)
                    continue
                _create(copy, directory=stat.S_ISDIR(kind))
                if name in left_out:
                    self._own.add(posixpath.join(inside, name))
                else:
                    mount(original, copy, None, MS_BIND | MS_REC)
            except OSError:
                continue  # an entry that has vanished, or that this user may not see, is left out
        os.close(source)

    def _make(self, inside: str, *, directory: bool) -> None:
        """Create a missing entry: in a pod's volume directly, in a folder of the machine on a mirror of that folder."""
        parent = posixpath.dirname(inside)
        in_volume = any(parent == v or parent.startswith(v + "/") for v in self._may_write)
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

    def bind(self, entry: Mount) -> None:
        """Show a folder or file of the machine at a path of the container.

        What is inside a volume is opened part by part without following links, which a pod could have put there.
        """
        descriptor = os.open(entry["source"], os.O_PATH)
        for part in entry["inner"].split("/") if entry["inner"] else ():
            outer = descriptor
            descriptor = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=outer)
            os.close(outer)
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise OSError(40, "a link where a volume's folder was", entry["inner"])
        source = f"/proc/self/fd/{descriptor}"
        inside = self.point(entry["target"], directory=os.path.isdir(source))
        mount(source, self.on_host(inside), None, MS_BIND | MS_REC)
        os.close(descriptor)
        self._may_write[inside] = not entry["readOnly"]

    def hide(self, target: str) -> None:
        """Show a folder as empty; one that does not exist need not be hidden."""
        real = os.path.realpath(target)
        if real != "/" and os.path.isdir(self.on_host(real)):
            self._make_tmpfs(real)

    def shows(self, path: str) -> bool:
        """Return whether the container sees what the machine has at a path."""
        try:
            return os.path.samefile(path, self.on_host(os.path.realpath(path)))
        except OSError:
            return False

    def keep(self, path: str, *, for_others: bool) -> None:
        """Show a folder or file of the machine at its own path again if something that is mounted above covers it.

        `for_others`: also if the folder, or one that it is in, is closed to users other than its owner. What else is in
        a closed folder stays invisible.
        """
        if not os.path.exists(path):
            return
        closed = for_others and os.path.isdir(path) and not _is_open(path, 0o005)
        if for_others:
            self._open_parents(os.path.realpath(path))
        try:
            covered = not os.path.samefile(path, self.on_host(path))
        except OSError:
            covered = True
        if closed:
            self._mirror(self.point(path, directory=True), os.open(path, os.O_PATH | os.O_DIRECTORY))
        elif covered:
            inside = self.point(path, directory=os.path.isdir(path))
            mount(path, self.on_host(inside), None, MS_BIND | MS_REC)
            self._may_write[inside] = False

    def _open_parents(self, path: str) -> None:
        """Cover the first folder on the way to a path that others may not enter with an empty one that they may."""
        parent = posixpath.dirname(path)
        if parent != "/":
            self._open_parents(parent)
        if os.path.isdir(self.on_host(parent)) and not _is_open(self.on_host(parent), 0o001):
            self.hide(parent)

    def add_processes(self, *, own: bool) -> None:
        """Mount /proc: that of this process's PID namespace, or the machine's if a container around it forbids that."""
        if own:
            mount("proc", self.on_host("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        else:
            mount("/proc", self.on_host("/proc"), None, MS_BIND | MS_REC)
        self._may_write["/proc"] = True

    def add_devices(self) -> None:
        """Make a /dev with the devices that every program needs, those for computing, and its own shared memory."""
        self._make_tmpfs("/dev")
        for name in os.listdir("/dev"):
            if name in DEVICES or name.startswith(ACCELERATORS):
                copy = self.on_host(f"/dev/{name}")
                _create(copy, directory=os.path.isdir(f"/dev/{name}"))
                mount(f"/dev/{name}", copy, None, MS_BIND | MS_REC)
        for link, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            os.symlink(f"/proc/self/fd{target}", self.on_host(f"/dev/{link}"))
        os.symlink("pts/ptmx", self.on_host("/dev/ptmx"))
        for folder in ("/dev/pts", "/dev/shm"):
            os.mkdir(self.on_host(folder), 0o755)
            self._may_write[folder] = True
        try:
            mount(
                "devpts",
                self.on_host("/dev/pts"),
                "devpts",
                MS_NOSUID | MS_NOEXEC,
                "newinstance,ptmxmode=0666",
            )
        except OSError:
            self._may_write["/dev/pts"] = (
                False  # no terminals in namespaces of this kernel; nothing of ours needs one
            )
        self._make_tmpfs("/dev/shm", f"mode=1777,size={SHARED_MEMORY_BYTES}")

    def make_read_only(self) -> None:
        """Make every mount read-only, except for volumes that the pod may write."""
        for place, options in _mounts_beneath(self.path):
            inside = place[len(self.path) :] or "/"
            above = max(
                (v for v in self._may_write if inside == v or inside.startswith(v + "/")), key=len, default=""
            )
            if self._may_write.get(above) or "ro" in options:
                continue
            kept = sum(flag for name, flag in KEPT_FLAGS.items() if name in options)
            try:
                mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
            except OSError as error:
                if error.errno != 13:  # EACCES: beneath a folder that the pod cannot enter either
                    raise


def _mounts_beneath(top: str) -> list[tuple[str, list[str]]]:
    """Return each mount point at or beneath a path, with the options of the mount."""
    found = []
    with open("/proc/self/mountinfo") as listing:
        for line in listing:
            fields = line.split(" ")
            place = (
                fields[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
            )
            if place == top or place.startswith(top + "/"):
                found.append((place, fields[5].split(",")))
    return found


def _is_open(path: str, needed: int) -> bool:
    return os.stat(path).st_mode & needed == needed


def _create(path: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def enter_new(sandbox: Sandbox) -> None:
    """Move this process into the sandbox, as the pod's user. Raises OSError saying what was refused, and where."""
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    call("sethostname", sandbox["hostname"], len(os.fsencode(sandbox["hostname"])))
    root = Root(sandbox["root"])
    root.add_processes(own=sandbox["ownProcesses"])
    root.add_devices()
    for path in sandbox["hidden"]:
        root.hide(path)
    ordered: list[Mount] = sorted(sandbox["mounts"], key=lambda m: m["target"].count("/"))
    for entry in ordered:
        root.bind(entry)
    for path in sandbox["keep"]:
        root.keep(path, for_others=sandbox["identity"]["kind"] != "own")
    for path in sandbox["hidden"]:
        if not any(kept == path or kept.startswith(f"{path}/") for kept in sandbox["keep"]) and root.shows(
            path
        ):
            root.hide(path)  # it is beneath a folder that was kept
    root.make_read_only()
    os.chdir(root.path)
    call("pivot_root", ".", ".")
    call("umount2", ".", MNT_DETACH)
    os.chdir("/")
    credentials.become(sandbox["identity"])


def enter_existing(process: int) -> None:
    """Move this process into the namespaces of another one, as its user, and its children into its PID namespace.

    Raises OSError if that has ended.
    """
    user, group = credentials.identity_of(process)
    rest, privileged = ["ipc", "uts", "pid", "mnt"], credentials.is_privileged()
    order = [*rest, "user"] if privileged else ["user", *rest]
    other = [kind for kind in order if _namespace("self", kind) != _namespace(str(process), kind)]
    if not other:
        credentials.weaken()
        return
    descriptors = [os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY) for kind in other]
    if privileged:
        os.setgroups([])
    for descriptor in descriptors:
        call("setns", descriptor, 0)
        os.close(descriptor)
    credentials.rejoin(user, group)


def _namespace(process: str, kind: str) -> str:
    return os.readlink(f"/proc/{process}/ns/{kind}")
