"""What the platform's owner may write about data stores."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from moe_operator.config import Grader, OperatorConfig, Store

S3 = {"endpoint": "https://objects.example.org:9000/s3", "bucket": "text"}


@pytest.mark.parametrize(
    "store", [{"claim": "corpora"}, {"s3": S3}, {"s3": {"bucket": "text", "secret": "a.b-c"}}]
)
def test_a_store_is_a_claim_or_a_bucket(store: dict[str, Any]) -> None:
    assert Store.model_validate(store)


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ({}, "exactly one of claim and s3"),
        ({"claim": "corpora", "s3": S3}, "exactly one of claim and s3"),
        ({"s3": {}}, "s3.bucket"),
        ({"s3": {**S3, "bucket": "a/b"}}, "s3.bucket"),
        ({"s3": {**S3, "endpoint": "objects.example.org"}}, "s3.endpoint"),
        ({"s3": {**S3, "endpoint": "https://key:secret@objects.example.org"}}, "s3.endpoint"),
        ({"s3": {**S3, "prefix": "$(HOME)"}}, "s3.prefix"),
        ({"s3": {**S3, "secretAccessKey": "x"}}, "s3.secretAccessKey"),
    ],
)
def test_what_is_no_store_is_refused_with_the_field(store: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Store.model_validate(store)


def test_a_grader_needs_an_image_and_no_more() -> None:
    grader = Grader.model_validate({"image": "registry.example/pytest:3"})
    assert (grader.command, grader.limits, grader.timeout_seconds) == ((), {}, 600)


@pytest.mark.parametrize(
    ("graders", "words"),
    [
        ({"pytest": {}}, "image"),
        ({"pytest": {"image": ""}}, "image"),
        ({"pytest": {"image": "a", "timeoutSeconds": 0}}, "timeoutSeconds"),
        ({"pytest": {"image": "a", "env": {}}}, "env"),
        ({"py_test": {"image": "a"}}, "py_test"),
    ],
)
def test_what_is_no_grader_is_refused_with_the_field(graders: dict[str, Any], words: str) -> None:
    given = {"images": {"trainer": "t", "gateway": "g"}, "profiles": {}, "graders": graders}
    with pytest.raises(ValidationError, match=words):
        OperatorConfig.model_validate(given)


def test_a_key_without_a_value_is_as_if_it_were_not_there() -> None:
    text = "images: {trainer: t, gateway: g}\nprofiles: {cpu: {limits: }}\nqueue:\nworkers: ~\n"
    config = OperatorConfig.model_validate(yaml.safe_load(text))
    assert (config.queue, config.workers, config.profiles["cpu"].limits) == ("", 8, {})
