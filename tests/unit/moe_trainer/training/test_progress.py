import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from moe_formats.job_report import Progress
from moe_trainer.training.progress import AT_ONCE, ProgressServer, metrics


def get(server: ProgressServer, path: str) -> str:
    text: str = urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60).read().decode()
    return text


def test_the_newest_progress_is_answered() -> None:
    with ProgressServer("127.0.0.1", 0) as server:
        server.publish(Progress(step=1, max_steps=10))
        server.publish(Progress(step=3, max_steps=10, loss=2.5), "moe_trainer_other 7\n")
        assert json.loads(get(server, "/progress")) == {"step": 3, "maxSteps": 10, "loss": 2.5}
        assert get(server, "/metrics").endswith("moe_trainer_loss 2.5\nmoe_trainer_other 7\n")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(server, "/anything")


def test_connections_that_say_nothing_take_only_so_many_threads() -> None:
    with ProgressServer("127.0.0.1", 0) as server:
        address = ("127.0.0.1", server.port or 0)
        before = threading.active_count()
        idle = [socket.create_connection(address, timeout=60) for _ in range(AT_ONCE)]
        while threading.active_count() < before + AT_ONCE:
            time.sleep(0.001)
        with socket.create_connection(address, timeout=60) as one_more:
            assert one_more.recv(1) == b"", "it is hung up on"
            assert threading.active_count() <= before + AT_ONCE
        for connection in idle:
            connection.close()
        while threading.active_count() > before:
            time.sleep(0.001)
        assert json.loads(get(server, "/progress"))["step"] == 0


def test_without_a_port_nothing_listens() -> None:
    with ProgressServer("127.0.0.1", None) as server:
        server.publish(Progress(step=1, max_steps=10))
        assert server.port is None


def test_what_is_not_known_is_absent_from_the_metrics() -> None:
    text = metrics(Progress(step=1, max_steps=10))
    assert "moe_trainer_step 1" in text
    assert "loss" not in text


def test_every_field_of_progress_is_a_metric() -> None:
    full = Progress(
        step=1,
        max_steps=2,
        loss=1.0,
        bits_per_byte=1.0,
        tokens_per_second=1.0,
        eta_seconds=1.0,
        load_max_violation=1.0,
        load_entropy=1.0,
        dead_experts=0,
        drop_rate=0.0,
        router_logit_rms=1.0,
    )
    assert metrics(full).count("# TYPE") == len(Progress.model_fields)
