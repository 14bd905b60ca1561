"""The layout of a pool's store. It is defined here and nowhere else.

    pools/<pool uid>/
      scheme.json                        how the pool reads and compares text; absent: scheme 1
      held-out.jsonl                     fingerprints of all documents ever held out; only appended to
      cells/                             the matrix: one file per cell
      imports/<digest>/                  a checkpoint from outside
      tasks/<digest>/                    the items of an evaluator
      matrices/<digest>/                 full matrices, as tables of bits per byte
      tables/<digest>/                   tables of the Distilled strategy
      compositions/<digest>/             the checkpoint of several banks on one base
      experts/<expert uid>/
        clusters.jsonl                   clusters of near-duplicates: held out or not, as decided when first seen
        windows.jsonl                    list of its holdouts, oldest first
        holdouts/<digest>/               one holdout: documents.jsonl
        snapshots/<data digest>/         documents.jsonl (training side), snapshot.json, report.json
        revisions/<inputs digest>/
          checkpoints/step-00000100/     the last two
          tokens/<digest>/               the tokens that are trained on; removed when training is done
          a1/ a2/ …                      artefacts by attempt, of which at most one is committed
          evaluations/<digest>/          evidence

A folder for a digest is named after its first 16 hexadecimal digits, and is committed once it has a manifest. All
paths are relative to the store, so that they mean the same wherever it is mounted.
"""

from moe_formats.format import Digest, digest_of

#: The folder of a pool that holds checkpoints from outside.
IMPORTS = "imports"


def short(digest: Digest) -> str:
    """Return the part of a digest after which folders are named."""
    return digest.removeprefix("sha256:")[:16]


def pool(uid: str) -> str:
    """Return the pool's folder."""
    return f"pools/{_component(uid)}"


def scheme(pool_uid: str) -> str:
    """Return the file that says which scheme the pool began with (data_scheme.py)."""
    return f"{pool(pool_uid)}/scheme.json"


def held_out_registry(pool_uid: str) -> str:
    """Return the file with the fingerprints of every document that the pool ever held out."""
    return f"{pool(pool_uid)}/held-out.jsonl"


def cells(pool_uid: str) -> str:
    """Return the folder with the cells of the matrix."""
    return f"{pool(pool_uid)}/cells"


def tasks(pool_uid: str, digest: Digest) -> str:
    """Return the folder of an evaluator's items."""
    return f"{pool(pool_uid)}/tasks/{short(digest)}"


def imported(pool_uid: str, digest: Digest) -> str:
    """Return the folder of a checkpoint from outside that is the base of Experts of the pool."""
    return f"{pool(pool_uid)}/{IMPORTS}/{short(digest)}"


def matrix(pool_uid: str, digest: Digest) -> str:
    """Return the folder of one full matrix, as a table."""
    return f"{pool(pool_uid)}/matrices/{short(digest)}"


def table(pool_uid: str, digest: Digest) -> str:
    """Return the folder of one table of the Distilled strategy."""
    return f"{pool(pool_uid)}/tables/{short(digest)}"


def composition(pool_uid: str, digest: Digest) -> str:
    """Return the folder of the checkpoint made of several banks and their base."""
    return f"{pool(pool_uid)}/compositions/{short(digest)}"


def experts(pool_uid: str) -> str:
    """Return the folder of all Experts of a pool."""
    return f"{pool(pool_uid)}/experts"


def expert(pool_uid: str, expert_uid: str) -> str:
    """Return an Expert's folder."""
    return f"{experts(pool_uid)}/{_component(expert_uid)}"


def clusters(pool_uid: str, expert_uid: str) -> str:
    """Return the file with an Expert's clusters of near-duplicates, and whether each is held out."""
    return f"{expert(pool_uid, expert_uid)}/clusters.jsonl"


def windows(pool_uid: str, expert_uid: str) -> str:
    """Return the file that lists an Expert's holdouts, oldest first."""
    return f"{expert(pool_uid, expert_uid)}/windows.jsonl"


def holdout(pool_uid: str, expert_uid: str, digest: Digest) -> str:
    """Return the folder of one holdout."""
    return f"{expert(pool_uid, expert_uid)}/holdouts/{short(digest)}"


def snapshot(pool_uid: str, expert_uid: str, data_digest: Digest) -> str:
    """Return the folder of one snapshot."""
    return f"{expert(pool_uid, expert_uid)}/snapshots/{short(data_digest)}"


def revision(pool_uid: str, expert_uid: str, inputs_digest: Digest) -> str:
    """Return the folder of everything made from one set of inputs."""
    return f"{expert(pool_uid, expert_uid)}/revisions/{short(inputs_digest)}"


def _component(name: str) -> str:
    """Return a name as one path component. A name with anything but ASCII letters, digits, ``-`` and ``_`` is hashed."""
    if name and all(character.isalnum() or character in "-_" for character in name) and name.isascii():
        return name
    return short(digest_of(name))
