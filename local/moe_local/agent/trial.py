"""Tries out which of the ways to isolate a container this machine allows. machine.py runs it and reads what it prints.

    python -S -I trial.py USER GROUP    prints a launch.Trial as JSON

USER and GROUP are who pods are to become if this process may become somebody else.
"""

from __future__ import annotations

import json
import os
import posixpath
import sys
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moe_local.agent import credentials, isolation
    from moe_local.agent.launch import Identity, IdentityKind, Sandbox
else:
    sys.path.append(posixpath.dirname(posixpath.abspath(__file__)))
    import credentials
    import isolation

TARGET = "/moe/trial/mount"


def attempt(sandbox: Sandbox) -> str:
    """Return '' if a process can enter the sandbox, else what was refused."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            isolation.separate_children(sandbox["identity"])
            if first := os.fork():
                os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) % 256)
            isolation.enter_new(sandbox)
            os.listdir(TARGET)
            os._exit(0)
        except BaseException as error:
            os.write(write, str(error).encode())
        os._exit(1)
    os.close(write)
    _, status = os.waitpid(child, 0)
    said = os.read(read, 4096).decode()
    os.close(read)
    return "" if status == 0 else said or f"wait status {status}"


def sandbox_in(folder: str, identity: Identity, *, own_processes: bool) -> Sandbox:
    """Return a sandbox with a mount, as a container has it."""
    return {
        "root": f"{folder}/root",
        "hostname": "trial",
        "hidden": [],
        "mounts": [{"source": folder, "inner": "", "target": TARGET, "readOnly": True}],
        "keep": [],
        "ownProcesses": own_processes,
        "identity": identity,
    }


def identity_of_kind(kind: IdentityKind, user: int, group: int) -> Identity:
    """Return another user, or this process's own."""
    own = kind == "own"
    return {
        "kind": kind,
        "user": os.geteuid() if own else user,
        "group": os.getegid() if own else group,
        "machineUser": user,
        "machineGroup": group,
    }


def main() -> None:
    """Print the best way that works, and why better ones do not."""
    user, group = int(sys.argv[1]), int(sys.argv[2])
    refused: list[str] = []
    kinds: list[IdentityKind] = ["mapped", "changed", "own"] if credentials.is_privileged() else ["own"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.mkdir(f"{folder}/root")
        for kind in kinds:
            for own_processes in (True, False):
                identity = identity_of_kind(kind, user, group)
                problem = attempt(sandbox_in(folder, identity, own_processes=own_processes))
                if not problem:
                    print(json.dumps({"kind": kind, "ownProcesses": own_processes, "refused": refused}))
                    return
                refused.append(problem)
    print(json.dumps({"kind": "", "ownProcesses": False, "refused": refused}))


if __name__ == "__main__":
    main()
