import ctypes
import json
import os
import pathlib
import socket
import stat
import time

# The program of the pod in test_agent_attacks.py. It prints what it could do; it changes and stops nothing.

PTRACE_SEIZE = 0x4206  # attaches without stopping what is traced
libc = ctypes.CDLL(None, use_errno=True)
secrets = json.loads(os.environ["SECRETS"])
agent = int(os.environ["AGENT"])
home = os.environ["MACHINE_HOME"]


def content(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def names_in(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def outcome(call, *arguments):
    """'done', or the words of the error."""
    try:
        result = call(*arguments)
    except OSError as error:
        return error.strerror
    failed = isinstance(result, int) and result < 0
    return os.strerror(ctypes.get_errno()) if failed else "done"


def may_write(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError:
        return False
    return True


def may_create(folder):
    path = pathlib.Path(folder, "moe-intruder")
    try:
        path.touch()
    except OSError:
        return False
    path.unlink()
    return True


processes = [name for name in names_in("/proc") if name.isdigit()]
others = [name for name in processes if int(name) != os.getpid()]
roots = ["", *(f"/proc/{name}/root" for name in processes), *(f"/proc/{name}/cwd" for name in processes)]
files = [
    f"{root}{folder}/{name}"
    for root in roots
    for folder in secrets
    for name in ["admin.pem", *names_in(root + folder)]
]
status = dict(line.split(":", 1) for line in content("/proc/self/status").decode().splitlines())
folders = ["/", *(f"/{name}" for name in names_in("/")), "/var/tmp", "/usr/local/bin", home, *secrets]
changeable = ["/etc/hosts", "/etc/passwd", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"]
homes = [home, "/root", *(f"/home/{name}" for name in names_in("/home"))]
listener = socket.socket()

found = {
    "keys": [path for path in files if b"PRIVATE KEY" in content(path)],
    "strangers": [
        content(f"/proc/{name}/cmdline").decode(errors="replace") for name in others if name != "1"
    ],
    "environments": [name for name in others if content(f"/proc/{name}/environ")],
    "descriptors": [name for name in others if names_in(f"/proc/{name}/fd")],
    "signal": outcome(os.kill, agent, 0),
    "trace": outcome(libc.ptrace, PTRACE_SEIZE, agent, 0, 0),
    "trace-init": outcome(libc.ptrace, PTRACE_SEIZE, 1, 0, 0),
    "created": [
        folder for folder in folders if not folder.startswith(("/tmp", "/proc")) and may_create(folder)
    ],
    "changed": [path for path in changeable if may_write(path)],
    "capabilities": {key: value.strip() for key, value in status.items() if key.startswith("Cap")},
    "noNewPrivileges": status["NoNewPrivs"].strip(),
    "uid": os.getuid(),
    "hostname": socket.gethostname(),
    "shared-memory": names_in("/dev/shm"),
    "system-v": outcome(libc.shmget, int(os.environ["SHARED_MEMORY_KEY"]), 0, 0),
    "homes": [f"{folder}/{name}" for folder in homes for name in names_in(folder) if name.startswith(".")],
    "sockets": [
        os.path.join(folder, name)
        for top in ("/run", "/var/run", "/tmp")
        for folder, _, names in os.walk(top)
        for name in names
        if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)
    ],
    "api": outcome(listener.connect, ("127.0.0.1", int(os.environ["API"]))),
    "unshare": outcome(libc.unshare, 0x10000000 | 0x00020000),
}
print(json.dumps(found), flush=True)
print("END", flush=True)
time.sleep(60)
