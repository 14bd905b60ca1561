"""What the platform's owner may write about data stores."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from moe_formats.resources.expert_pool import ExpertPool
from moe_formats.routing_policy import KeyLimits, Limits
from moe_operator.config import Gateways, Grader, OperatorConfig, Store

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


def pool(**gateway: Any) -> ExpertPool:
    """Return a pool with some fields of spec.gateway."""
    spec = {"storage": {"size": "1Gi"}, "gateway": gateway}
    return ExpertPool.model_validate({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})


def test_a_limit_is_the_pools_or_else_the_charts_or_else_that_of_the_policy() -> None:
    gateways = Gateways.model_validate({"limits": {"maxTokens": 100, "timeoutSeconds": 9}})
    limits = gateways.limits_of(pool(limits={"maxTokens": 5, "maxBodyBytes": 2048}))
    assert limits == Limits(max_tokens=5, max_body_bytes=2048, timeout_seconds=9, max_concurrency=256)
    assert Gateways().limits_of(pool()) == Limits()


def test_limits_per_key_are_the_pools_or_else_the_charts() -> None:
    gateways = Gateways.model_validate({"limits": {"perKey": {"maxConcurrency": 4, "requestsPerMinute": 60}}})
    assert gateways.limits_of(pool()).per_key == KeyLimits(max_concurrency=4, requests_per_minute=60)
    assert gateways.limits_of(pool(limits={"perKey": {"maxConcurrency": 9}})).per_key == KeyLimits(
        max_concurrency=9
    )


def test_keys_and_origins_are_the_pools_or_else_the_charts() -> None:
    gateways = Gateways.model_validate(
        {"keysFrom": {"secret": "gateway-keys"}, "allowedOrigins": ["https://a.example"]}
    )
    keys = gateways.keys_of(pool())
    assert keys is not None and (keys.secret, keys.key) == ("gateway-keys", "keys")
    own = gateways.keys_of(pool(keysFrom={"secret": "my-gateway-keys", "key": "a"}))
    assert own is not None and (own.secret, own.key) == ("my-gateway-keys", "a")
    assert Gateways().keys_of(pool()) is None
    assert gateways.origins_of(pool()) == ("https://a.example",)
    assert gateways.origins_of(pool(allowedOrigins=[])) is None
    assert Gateways().origins_of(pool()) is None


@pytest.mark.parametrize(
    ("gateways", "words"),
    [
        ({"keysFrom": {"secret": "database"}}, "keysFrom.secret"),
        ({"keysFrom": {"secret": "gateway-keys", "name": "a"}}, "keysFrom.name"),
        ({"limits": {"maxToken": 5}}, "limits.maxToken"),
        ({"limits": {"maxTokens": 0}}, "limits.maxTokens"),
        ({"allowedOrigins": ["https://*.example"]}, "allowedOrigins.0"),
    ],
)
def test_what_no_gateway_can_have_is_refused_with_the_field(gateways: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Gateways.model_validate(gateways)
