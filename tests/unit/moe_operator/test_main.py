import json
import logging
import sys

import pytest

from moe_operator.logs import JsonLines
from moe_operator.main import main, read_config

CONFIG = "images: {trainer: t, gateway: g}\nprofiles: {cpu: {requests: {cpu: '1'}}}\nnamespaces: [one]\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_the_command_line_wins_over_the_file(config):
    assert read_config(config, []).namespaces == ("one",)
    assert read_config(config, ["two", "three"]).namespaces == ("two", "three")


def test_a_misspelt_value_ends_the_program_and_is_named(config, monkeypatch):
    config.write_text(CONFIG + "sweepSecond: 3\n")
    monkeypatch.setattr(sys, "argv", ["moe-operator", "--config", str(config)])
    with pytest.raises(SystemExit, match="sweepSecond"):
        main()


def test_without_a_configuration_it_says_which_option_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["moe-operator"])
    monkeypatch.delenv("MOE_OPERATOR_CONFIG", raising=False)
    with pytest.raises(SystemExit):
        main()
    assert "--config is missing" in capsys.readouterr().err


def test_a_log_line_is_one_json_object_with_its_traceback():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "", 0, "it %s", ("failed",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("error", "it failed")
    assert "ValueError: two\nlines" in entry["error"]
