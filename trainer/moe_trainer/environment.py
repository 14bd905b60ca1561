"""What the container tells a Job besides its config: folders, addresses, sizes, where to leave the headline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moe_formats.failure import JobError
from moe_formats.object_stores import ObjectStoreLocation, read_object_stores


@dataclass(frozen=True)
class Environment:
    """The surroundings of one Job, read once from environment variables."""

    store: Path  #: The pool's store, mounted.
    sources: Path | None = None  #: The folder in which claims with data are mounted.
    object_stores: Mapping[str, ObjectStoreLocation] = field(default_factory=dict)
    credentials: Path | None = None  #: The folder with the keys of object stores.
    scratch: Path | None = None  #: Temporary files; None: the system's folder for them.
    gradings: Path | None = None  #: The folder that is shared with graders.
    termination_log: Path | None = None
    pod_ip: str = "127.0.0.1"
    progress_port: int | None = None  #: Where training progress is served; None: nowhere.
    threads: int = 1  #: For computing on a CPU.
    processes: int = 1  #: Processes of the training run, over all nodes.

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Environment":
        """Return the environment; raises JobError (InvalidEnvironment) if MOE_STORE is missing or a port is not a port."""
        store = variables.get("MOE_STORE")
        if not store:
            raise JobError(
                "InvalidEnvironment", "MOE_STORE is not set: it must name the mounted store of the pool."
            )
        port = variables.get("MOE_PROGRESS_PORT", "")
        if port and not (port.isdigit() and int(port) < 65536):
            raise JobError(
                "InvalidEnvironment", f"MOE_PROGRESS_PORT is {port!r}: it must be a port, 0 to 65535."
            )
        return cls(
            store=Path(store),
            sources=_optional_path(variables, "MOE_SOURCES"),
            object_stores=read_object_stores(variables.get("MOE_OBJECT_STORES", "")),
            credentials=_optional_path(variables, "MOE_CREDENTIALS"),
            scratch=_optional_path(variables, "MOE_SCRATCH"),
            gradings=_optional_path(variables, "MOE_GRADINGS"),
            termination_log=Path(variables.get("MOE_TERMINATION_LOG") or "/dev/termination-log"),
            pod_ip=variables.get("POD_IP") or "127.0.0.1",
            progress_port=int(port) if port else None,
            threads=_count(variables, "OMP_NUM_THREADS"),
            processes=_count(variables, "WORLD_SIZE"),
        )


def _optional_path(variables: Mapping[str, str], name: str) -> Path | None:
    value = variables.get(name)
    return Path(value) if value else None


def _count(variables: Mapping[str, str], name: str) -> int:
    value = variables.get(name, "")
    return max(1, int(value)) if value.isdigit() else 1
