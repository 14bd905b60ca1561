"""The format of the routing policy."""

import json

import pytest
from pydantic import ValidationError

from moe_formats.format import digest_of
from moe_formats.routing_policy import (
    MAX_POLICY_BYTES,
    DistilledTable,
    RoutedExpert,
    RoutingPolicy,
    parse_routing_policy,
)

DIGEST = "sha256:" + "a" * 64


def _expert(name, **options):
    return RoutedExpert(
        **{"name": name, "revision": f"{name}-1", "digest": DIGEST, "url": f"http://{name}:80"} | options
    )


def _policy(**options):
    experts = (_expert("general"), _expert("code", domain="code"))
    return RoutingPolicy(**{"pool": "pool", "strategy": "Distilled", "experts": experts} | options)


def test_a_policy_reads_back_what_it_wrote():
    policy = _policy(
        table=DistilledTable(path="tables/1", digest=DIGEST), prior={"code": 0.5}, fallback="code"
    )
    assert parse_routing_policy(policy.to_json()) == policy


def test_the_digest_is_that_of_the_text_so_that_a_reader_that_ignores_new_fields_reports_the_same():
    policy = _policy()
    assert policy.digest() == digest_of(policy.to_json().encode())
    assert policy.digest() != _policy(temperature=2).digest()


def test_unknown_fields_are_ignored():
    value = json.loads(_policy().to_json()) | {"fromTheFuture": 1}
    assert parse_routing_policy(json.dumps(value)) == _policy()


def test_sixty_four_experts_fit_far_below_the_limit():
    experts = tuple(_expert(f"e{'x' * 38}{n}", domain="d" * 60) for n in range(64))
    policy = _policy(experts=experts, prior={expert.name: 0.1 for expert in experts})
    assert len(policy.to_json()) < MAX_POLICY_BYTES / 10


def test_a_text_above_the_limit_is_refused():
    with pytest.raises(ValueError, match="at most 900000 are read"):
        parse_routing_policy(_policy().to_json() + " " * MAX_POLICY_BYTES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": ()}, "at least 1 item"),
        ({"experts": (_expert("code"), _expert("code"))}, "'code' is listed twice"),
        ({"experts": (_expert("pool"),)}, "'pool' is also the pool's name"),
        ({"fallback": "poetry"}, "fallback: 'poetry' is not one of the Experts: general, code"),
        ({"prior": {"poetry": 1}}, "prior: 'poetry' is not one of the Experts"),
        ({"prior": {"code": 0}}, "prior: the weight of 'code' is 0"),
        ({"prior": {"code": float("nan")}}, "finite number"),
        ({"temperature": 0}, "greater than 0"),
        ({"stickiness_margin": 1.5}, "less than or equal to 1"),
        ({"strategy": "Best"}, "'Distilled' or 'Posterior'"),
        ({"limits": {"maxTokens": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        _policy(**options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": "https://code:80"}, "url"),
        ({"url": "http://code:80/path"}, "url"),
        ({"url": "http://user@code:80"}, "url"),
        ({"url": "http://code:0"}, "it must be from 1 to 65535"),
        ({"url": "http://code:99999"}, "it must be from 1 to 65535"),
        ({"digest": "sha256:xyz"}, "digest"),
        ({"revision": "../code"}, "revision"),
    ],
)
def test_an_expert_has_a_plain_address_and_a_digest(options, field):
    with pytest.raises(ValidationError, match=field):
        _expert("code", **options)


@pytest.mark.parametrize("path", ["/etc/passwd", "../table", "a/../../b", ""])
def test_a_tables_path_stays_in_the_store(path):
    with pytest.raises(ValidationError, match="path"):
        DistilledTable(path=path, digest=DIGEST)


def test_what_cannot_be_decided_goes_to_the_fallback_or_else_the_first_expert():
    assert _policy().default_expert().name == "general"
    assert _policy(fallback="code").default_expert().name == "code"


def test_a_policy_has_the_digest_that_gateways_have_always_reported() -> None:
    """Recorded when the gateway had a base class of its own for documents."""
    text = (
        '{"experts":[{"digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","name":"general",'
        '"revision":"general-1","url":"http://general-1.default.svc:8000"},{"digest":"sha256:222222222222222222222222222222'
        '2222222222222222222222222222222222","domain":"code","name":"code","revision":"code-2","url":"http://code-2.default.'
        'svc:8000"}],"fallback":"general","limits":{"maxBodyBytes":1048576,"maxConcurrency":256,"maxTokens":4096,"timeoutSec'
        'onds":120.0},"pool":"first-pool","posteriorTimeoutSeconds":2.0,"prior":{"code":2.0},"stickinessMargin":0.3,"strateg'
        'y":"Distilled","table":{"digest":"sha256:3333333333333333333333333333333333333333333333333333333333333333","path":"'
        'pools/u/tables/1"},"temperature":1.5}'
    )
    policy = parse_routing_policy(text)
    assert policy.to_json() == text
    assert policy.digest() == "sha256:f61a6f5402d6b475b3e2cc6b0aa6b2b7b13ac17b4759e2f5693cb05d7e661288"
