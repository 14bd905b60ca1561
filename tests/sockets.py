"""Sockets in folders of any depth, for tests of what is no regular file."""

import os
import socket
from pathlib import Path


def make_socket(path: Path) -> None:
    """Make a socket, which stays as a file after it is closed.

    Its address may have 107 bytes, fewer than many a temporary folder, so the folder is named by a descriptor.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
