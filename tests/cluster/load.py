"""Clients that ask a pool's gateways for completions, and remember every answer."""

import json
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from stage import Stage


@dataclass
class Load:
    """A few clients at work between ``with`` and its end."""

    stage: Stage
    expert: str
    clients: int = 4
    #: (time, revision that answered or what went wrong, whether it is an answer)
    answers: list[tuple[float, str, bool]] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._address = self._gateway()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    @property
    def failures(self) -> list[str]:
        """Everything that was not an answer."""
        return [what for _, what, good in self.answers if not good]

    def revisions(self) -> list[str]:
        """The revisions that answered, in the order of their first answer."""
        return list(dict.fromkeys(what for _, what, good in self.answers if good))

    def last_answer_of(self, revision: str) -> float:
        """When a revision answered last (monotonic seconds)."""
        return max(when for when, what, _ in self.answers if what == revision)

    def _gateway(self) -> tuple[str, int]:
        pods = [
            item
            for item in self.stage.all("Pod")
            if item["metadata"]["labels"].get("moe-operator.dev/role") == "gateway"
        ]
        return pods[0]["status"]["podIP"], 8080

    def _ask_on(self) -> None:
        body = json.dumps({"model": self.expert, "prompt": "hello", "max_tokens": 1})
        while not self._stop.is_set():
            try:
                connection = HTTPConnection(*self._address, timeout=90)
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                good = response.status == 200
                what = answer["choices"][0]["text"] if good else f"{response.status} {answer}"
            except (OSError, HTTPException, ValueError) as error:
                what, good = repr(error), False
            finally:
                connection.close()
            self.answers.append((time.monotonic(), what, good))
            time.sleep(0.03)
