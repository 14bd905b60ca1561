"""From the root of a source to its files: a mounted claim, or an object store."""

from moe_formats.failure import JobError
from moe_trainer.environment import Environment
from moe_trainer.sources.files import Files, LocalFiles


def files_of(root: str, environment: Environment) -> Files:
    """Return the files of a root; raises JobError (PathNotAllowed, InvalidEnvironment, StoreDenied)."""
    if "/" in root or root in ("", ".", ".."):
        raise JobError("PathNotAllowed", f"source root {root!r} must be the name of a store or claim.")
    location = environment.object_stores.get(root)
    if location is not None:
        from moe_trainer.sources.object_store import ObjectStoreFiles  # its client takes time to load

        folder = environment.credentials
        return ObjectStoreFiles(root, location, folder / root if folder is not None else None)
    if environment.sources is None:
        raise JobError(
            "InvalidEnvironment", "MOE_SOURCES is not set: it must name the folder of mounted data."
        )
    return LocalFiles(root, environment.sources / root)
