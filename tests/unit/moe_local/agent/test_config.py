from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from moe_local.agent.config import AgentConfig, Image
from moe_local.agent.sandbox import ImageError, find_image, needed_folders

COMPLETE: dict[str, Any] = {
    "nodeName": "local",
    "kubeconfig": "/c/agent",
    "stateDir": "/c/state",
    "listenPort": 10250,
    "servingCertificate": "/c/s.pem",
    "servingKey": "/c/s.pem",
    "clientCa": "/c/ca.pem",
}


def test_a_file_is_read_and_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in COMPLETE.items()))
    config = AgentConfig.read(file)
    assert (str(config.listen_address), config.isolation, config.back_off.maximum) == (
        "127.0.0.1",
        "auto",
        300,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"podNetwork": "10.0.0.0/16"}, "is not inside 127.0.0.0/8"),
        ({"podNetwork": "127.0.0.0/30"}, "no room for pods"),
        ({"stateDir": "state"}, "state is relative"),
        ({"nodename": "x"}, "Extra inputs are not permitted"),
        ({"listenPort": 0}, "greater than 0"),
        ({"nodeName": "My Node"}, "should match pattern"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AgentConfig.model_validate(COMPLETE | change)


def test_images_are_found_with_their_tag_or_without() -> None:
    plain, tagged = Image(environment=Path("/a")), Image(environment=Path("/b"))
    images = {"moe-operator/trainer": plain, "moe-operator/trainer:2": tagged, "host:5000/x": plain}
    assert find_image(images, "moe-operator/trainer:1") == plain
    assert find_image(images, "moe-operator/trainer:2") == tagged
    assert find_image(images, "host:5000/x") == plain
    for unknown in ("host:5000/y", "trainer"):
        with pytest.raises(
            ImageError, match=f'"{unknown}" is not in this node\'s table of images .host:5000/x, '
        ):
            find_image(images, unknown)


def test_an_environment_is_its_folder_its_interpreter_and_its_editable_packages(tmp_path: Path) -> None:
    environment, python, checkout = tmp_path / "env", tmp_path / "python", tmp_path / "checkout"
    packages = environment / "lib/python3.11/site-packages"
    for folder in (packages, python / "bin", checkout):
        folder.mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {python}/bin\nversion = 3.11\n")
    (packages / "x.pth").write_text(f"import something\n{checkout}\n{tmp_path}/gone\n")
    assert needed_folders(environment) == tuple(str(folder) for folder in (environment, python, checkout))
