"""What the processes of a container may do: one ordinary user of the machine, no capability, and no way to gain one.

Every container runs as the same user of the machine: the agent's own, or if that is root, one that owns nothing else.
Inside, a user namespace shows that user under the id that the pod asked for. So pods can use each other's files in
volumes whatever ids they ask for, and no id of a pod is one of a person of this machine.

Only the standard library is imported, as in isolation.py.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moe_local.agent.launch import Identity

CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = (
    4,
    24,
    38,
    47,
    4,
)
CAPABILITY_VERSION = 0x20080522
SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> None:
    """Call a libc function that returns 0 on success; raises OSError with its errno."""
    converted = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
    if getattr(_libc, function)(*converted) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}", next((a for a in arguments if a), None))


def is_privileged() -> bool:
    """Return whether this process has CAP_SYS_ADMIN, so that it needs no user namespace to make the others."""
    return bool(int(_status("self", "CapEff"), 16) >> SYS_ADMIN & 1)


def _status(process: str, key: str) -> str:
    with open(f"/proc/{process}/status") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{key}:"))


def map_own(inside: Identity, *, more: int = 0) -> None:
    """Enter a user namespace (and `more` namespaces) that knows this process's own user, as any user may.

    From then on this process has every capability, but only over what that namespace owns.
    """
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | more)
    _write("self", "setgroups", "deny")
    _write_maps("self", inside, user, group)


def _map_other(inside: Identity) -> None:
    """Enter a user namespace that knows one other user, which only a process outside of it may write down."""
    me = os.readlink("/proc/self")  # the process id as this /proc numbers it
    wait, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        os.read(wait, 1)
        try:
            _write_maps(me, inside, inside["machineUser"], inside["machineGroup"])
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    try:
        call("unshare", CLONE_NEWUSER)
    finally:
        os.close(go)
        os.close(wait)
        _, status = os.waitpid(helper, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, f"cannot map user {inside['user']}: {os.strerror(code)}")


def _write_maps(process: str, inside: Identity, user: int, group: int) -> None:
    _write(process, "uid_map", f"{inside['user']} {user} 1")
    _write(process, "gid_map", f"{inside['group']} {group} 1")


def _write(process: str, file: str, text: str) -> None:
    with open(f"/proc/{process}/{file}", "w") as mapping:
        mapping.write(text)


def become(identity: Identity) -> None:
    """Turn this process into the pod's user without any capability. Raises OSError if the machine does not allow that."""
    kind = identity["kind"]
    if kind != "own":
        os.setgroups([])
    if kind == "mapped":
        _map_other(identity)
    if kind != "changed":
        _forbid_user_namespaces()
    drop_bounding_set()
    if kind == "mapped":
        _change(identity["user"], identity["group"])
    elif kind == "changed":
        _change(identity["machineUser"], identity["machineGroup"])
    drop_capabilities()


def _change(user: int, group: int) -> None:
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _forbid_user_namespaces() -> None:
    """Let nothing in the user namespace of this process create another one, in which it would have every capability."""
    try:
        _write("sys/user", "max_user_namespaces", "0")
    except OSError:
        return  # they lend no power over the machine; without them, there is merely less of the kernel to attack


def drop_bounding_set() -> None:
    """Give up for good the capabilities that a program could bring; needs CAP_SETPCAP."""
    for capability in range(64):
        try:
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == 22:  # EINVAL: the kernel knows no more capabilities
                return
            raise


def drop_capabilities() -> None:
    """Give up every capability that this process has, and the right to get more by running a program."""
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def hide_from_equals() -> None:
    """Let no process of the same user trace this one or read its memory, descriptors and environment; exec undoes it."""
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def weaken() -> None:
    """Give up every capability where a container runs as the agent's user in the machine's own namespaces."""
    if os.geteuid() == 0:  # others have none
        drop_bounding_set()
    drop_capabilities()


def rejoin(user: int, group: int) -> None:
    """In the namespaces of a container, become its user without any capability."""
    drop_bounding_set()
    _change(user, group)
    drop_capabilities()


def identity_of(process: int) -> tuple[int, int]:
    """Return user and group of a container's process, as the container sees them."""
    ids = []
    for file, key in (("uid_map", "Uid"), ("gid_map", "Gid")):
        with open(f"/proc/{process}/{file}") as mapping:
            inside, _, count = mapping.read().split()[:3]
        ids.append(int(inside) if count == "1" else int(_status(str(process), key)))
    return ids[0], ids[1]
