"""A store, a folder of sources, and snapshots made from them. Nothing here imports torch."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from moe_formats.job_config import ExpertRef, Filter, HoldoutRule, SnapshotJob, Source
from moe_formats.job_report import SnapshotHeadline
from moe_trainer import snapshot
from moe_trainer.environment import Environment


@dataclass
class Place:
    """One pool's store and sources on disk, and the snapshot command on them."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def sources(self) -> Path:
        return self.root / "sources"

    @property
    def environment(self) -> Environment:
        return Environment(store=self.store, sources=self.sources)

    def text(self, domain: str, documents: Iterable[str]) -> None:
        folder = self.sources / "corpora" / domain
        folder.mkdir(parents=True, exist_ok=True)
        for number, document in enumerate(documents):
            (folder / f"{number:04}.txt").write_text(document)

    def jsonl(self, domain: str, lines: Iterable[object]) -> None:
        folder = self.sources / "corpora" / domain
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (folder / "records.jsonl").write_text(text)

    def job(
        self,
        domain: str,
        *,
        expert: str | None = None,
        sources: tuple[Source, ...] = (),
        filters: tuple[Filter, ...] = (),
        fraction: float = 0.25,
        min_clusters: int = 2,
    ) -> SnapshotJob:
        name = expert or domain
        return SnapshotJob(
            pool_uid="pool-uid",
            expert=ExpertRef(name=name, uid=f"{name}-uid", domain=domain),
            sources=sources or (Source(root="corpora", path=f"{domain}/*.txt", format="text"),),
            filters=filters,
            holdout=HoldoutRule(fraction=fraction, salt="salt", min_clusters=min_clusters),
        )

    def snapshot(self, job: SnapshotJob) -> SnapshotHeadline:
        return snapshot.run(job, self.environment)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.store.mkdir()
    (made.sources / "corpora").mkdir(parents=True)
    return made


@pytest.fixture
def prose() -> Callable[[int, str], list[str]]:
    """Documents that share no three words: 60 words each, drawn from a hash of topic and number."""

    def write(count: int, topic: str = "prose") -> list[str]:
        return [
            " ".join(f"{topic}{document}w{word * 7 % 61}" for word in range(60)) for document in range(count)
        ]

    return write
