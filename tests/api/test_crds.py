"""What `kubectl apply` says to good and bad manifests: the real API server, the real CRDs."""

import copy
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.api.direct import APPLY, MERGE, Answer, ApiServer, path_of

from moe_formats.training_spec import TrainingSpec
from moe_local.cluster import LocalCluster

EXAMPLES = Path(__file__).parents[2] / "examples"

#: The schema of each kind, as the CRDs have it.
SCHEMAS: dict[str, dict[str, Any]] = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for crd in (
        yaml.load(file.read_text(), yaml.CSafeLoader) for file in (EXAMPLES.parent / "crds").glob("*.yaml")
    )
}

POOL: dict[str, Any] = {
    "apiVersion": "moe-operator.dev/v1alpha1",
    "kind": "ExpertPool",
    "metadata": {"name": "pool", "namespace": "team"},
    "spec": {"storage": {"size": "1Gi"}},
}
EXPERT: dict[str, Any] = {
    "apiVersion": "moe-operator.dev/v1alpha1",
    "kind": "Expert",
    "metadata": {"name": "law", "namespace": "team"},
    "spec": {
        "pool": "pool",
        "domain": "law",
        "base": {"expert": "general"},
        "data": {"sources": [{"store": "corpora", "path": "law/*.txt"}]},
    },
}
PROPOSAL: dict[str, Any] = {
    "apiVersion": "moe-operator.dev/v1alpha1",
    "kind": "ExpertProposal",
    "metadata": {"name": "law-back", "namespace": "team"},
    "spec": {"pool": "pool", "expert": "law", "act": "RollBack", "revision": "law-1"},
}
DIGEST = "sha256:" + "0" * 64

Change = Callable[[dict[str, Any]], Any]


def changed(manifest: dict[str, Any], change: Change) -> dict[str, Any]:
    """A copy of a manifest with a change made to it."""
    result = copy.deepcopy(manifest)
    change(result)
    return result


def refusal(cluster: LocalCluster, manifest: dict[str, Any]) -> str:
    """What the API server says to a manifest; empty where it would take it."""
    answer = apply(cluster, manifest, "&dryRun=All")
    assert answer.warnings == []
    return answer.refused


def apply(cluster: LocalCluster, manifest: dict[str, Any], options: str = "") -> Answer:
    """Apply a manifest on the server side, with the options that kubectl gives."""
    path = path_of(manifest, manifest["metadata"]["name"])
    query = f"?fieldManager=kubectl&fieldValidation=Strict{options}"
    return ApiServer(cluster).ask("PATCH", path + query, manifest, APPLY)


@pytest.mark.parametrize("folder", sorted(path.name for path in EXAMPLES.glob("*/")))
def test_every_example_is_accepted(cluster: LocalCluster, folder: str) -> None:
    arguments = ("apply", "--server-side", "--dry-run=server", "-n", "team", "-f", str(EXAMPLES / folder))
    said = cluster.kubectl(*arguments).stdout.splitlines()
    assert said and all("serverside-applied" in line for line in said)


def merged(live: Any, applied: Any, schema: dict[str, Any]) -> Any:
    """What Argo CD predicts of an apply: maps are merged, lists by their key, and a list without one is replaced whole.

    Defaults of the CRD are not filled in, which is why none may be in the items of a list that is replaced.
    """
    if isinstance(applied, dict) and isinstance(live, dict):
        inner = schema.get("properties", {})
        there = {
            name: merged(live[name], value, inner.get(name, {})) if name in live else value
            for name, value in applied.items()
        }
        return {**live, **there}
    if isinstance(applied, list) and schema.get("x-kubernetes-list-type") == "map":
        (key,) = schema["x-kubernetes-list-map-keys"]
        old = {item[key]: item for item in live or []}
        return [merged(old.get(item[key], {}), item, schema["items"]) for item in applied]
    return applied


#: A pool with an evaluator, whose optional fields have defaults in the items of a list.
WITH_EVALUATOR: dict[str, Any] = changed(
    POOL,
    lambda pool: pool["spec"].update(
        evaluation={
            "evaluators": [{"name": "sums", "measure": "exactMatch", "store": "corpora", "path": "a.jsonl"}]
        }
    ),
)


@pytest.mark.parametrize("source", [*sorted(path.name for path in EXAMPLES.glob("*/")), "evaluator"])
def test_what_was_applied_is_as_a_second_apply_and_argo_cd_predict_it(
    cluster: LocalCluster, source: str
) -> None:
    namespace = f"synced-{source}"
    cluster.kubectl("create", "namespace", namespace)
    files = sorted((EXAMPLES / source).glob("*.yaml"))
    examples = [item for file in files for item in yaml.load_all(file.read_text(), yaml.CSafeLoader) if item]
    for manifest in examples or [WITH_EVALUATOR]:
        if manifest["kind"] not in SCHEMAS:
            continue
        applied = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
        live = synced(cluster, applied)
        assert synced(cluster, applied)["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        assert merged(live, applied, SCHEMAS[applied["kind"]]) == live


def synced(cluster: LocalCluster, manifest: dict[str, Any]) -> dict[str, Any]:
    """The object after a server-side apply by Argo CD."""
    path = path_of(manifest, manifest["metadata"]["name"]) + "?fieldManager=argocd-controller"
    answer = ApiServer(cluster).ask("PATCH", path, manifest, APPLY)
    assert not answer.refused
    return answer.object


def _sources(count: int = 1, **fields: Any) -> Change:
    return _spec(data={"sources": [{"store": "corpora", "path": "a.txt"} | fields] * count})


def _spec(**fields: Any) -> Change:
    return lambda manifest: manifest["spec"].update(fields)


def _checkpoint(path: str) -> Change:
    return _spec(base={"store": "hub", "path": path, "digest": "sha256:" + "0" * 64})


def _filter(**fields: Any) -> Change:
    return lambda manifest: manifest["spec"]["data"].update(filters=[fields])


def _schedule(cron: str = "0 3 * * 1-5", zone: str = "Europe/Berlin", **fields: Any) -> Change:
    schedule = {"cron": cron, "timeZone": zone}
    return lambda manifest: manifest["spec"]["data"].update(refreshSchedule=schedule, **fields)


def _gates(**gates: Any) -> Change:
    return lambda manifest: manifest["spec"]["data"].update(gates=gates)


def _replay(share: float = 0.1, **spec: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["data"]["replay"] = {"share": share}
        manifest["spec"].update(spec)

    return change


def _curriculum(*weights: float | None) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["training"] = {"curriculum": {}}
        manifest["spec"]["data"]["sources"] = [
            {"store": "corpora", "path": f"{number}/*.txt"} | ({} if weight is None else {"weight": weight})
            for number, weight in enumerate(weights)
        ]

    return change


def _name(name: str) -> Change:
    return lambda manifest: manifest["metadata"].update(name=name)


def _balancing(weight: float = 0, **fields: Any) -> Change:
    return _spec(training={"loadBalancingLossWeight": weight, "balancing": fields})


def _lora(**fields: Any) -> Change:
    return _spec(training={"method": "LoRA", "lora": fields})


def _bank(**fields: Any) -> Change:
    return _spec(training={"method": "ExpertBank", "bank": fields})


def _balanced_bank(manifest: dict[str, Any]) -> None:
    _spec(training={"method": "ExpertBank", "balancing": {"against": "Base"}})(manifest)


def _balanced_lora(manifest: dict[str, Any]) -> None:
    _spec(training={"method": "LoRA", "balancing": {"bias": "Sign"}})(manifest)


def _own_load_of_a_preset(manifest: dict[str, Any]) -> None:
    _spec(base={"preset": "tiny"}, training={"balancing": {"against": "Base"}})(manifest)


def _target_without_domain(manifest: dict[str, Any]) -> None:
    del manifest["spec"]["domain"]
    manifest["spec"]["targets"] = {"specializationScore": 0.9}


def _evaluator(**fields: Any) -> Change:
    evaluator = {"name": "mine", "store": "corpora", "path": "a.jsonl"} | fields
    return _spec(evaluation={"evaluators": [evaluator]})


def _resources(**resources: Any) -> Change:
    return _spec(training={"resources": resources})


def _unset(field: str) -> Change:
    return lambda manifest: manifest["spec"].pop(field)


def _approval(**fields: Any) -> Change:
    return _spec(approval={"decision": "Approved", "evidence": DIGEST} | fields)


def _unset_evidence(manifest: dict[str, Any]) -> None:
    manifest["spec"]["approval"] = {"decision": "Approved"}


#: What is wrong, with which manifest, the change that makes it so, and what is said.
REFUSED: list[tuple[str, dict[str, Any], Change, str]] = [
    ("a name of 41 characters", EXPERT, _name("a" * 41), "must have at most 40 characters"),
    ("a pool's name of 41 characters", POOL, _name("a" * 41), "must have at most 40 characters"),
    ("a name that starts with a digit", EXPERT, _name("1law"), "metadata.name is 1law: it must begin with a letter"),
    ("that name, with one that would do", EXPERT, _name("1law"), "For example: x-1law"),
    ("a pool's name with a dot", POOL, _name("law.v2"), "For example: law-v2"),
    ("a pool that cannot be", EXPERT, _spec(pool="My_Pool"), 'spec.pool: Invalid value: "My_Pool": must begin with'),
    ("a domain with capitals", EXPERT, _spec(domain="Law"), "digits and '-': for example, my-law-2"),
    ("a base that cannot be", EXPERT, _spec(base={"expert": "2nd"}), 'spec.base.expert: Invalid value: "2nd": must begin with'),
    ("a target of 1.2", EXPERT, _spec(targets={"specializationScore": 1.2}), "should be less than or equal to 1"),
    ("a target that needs a domain", EXPERT, _target_without_domain, "needs a domain: set spec.domain"),
    ("300 KB in a list", EXPERT, _sources(1200, path="a" * 250), "Too many: 1200: must have at most 32 items"),
    ("300 KB in a text", EXPERT, _spec(runID="r" * 300_000), "spec.runID: Too long"),
    ("a path with ..", EXPERT, _sources(path="law/../../etc/passwd"), "path must not contain '..'"),
    ("an absolute path", EXPERT, _sources(path="/etc/passwd"), "path must be relative"),
    ("a source of two kinds", EXPERT, _sources(claim="text"), "exactly one of store and claim"),
    ("a field of messages in text", EXPERT, _sources(messagesField="chat"), "belongs to format messages"),
    ("a field of text in messages", EXPERT, _sources(format="messages", textField="body"), "name messagesField"),
    ("no source", EXPERT, _sources(0), "should have at least 1 items"),
    ("a filter without bounds", EXPERT, _filter(name="length"), "the filter has no bound"),
    ("a filter with another's bound", EXPERT, _filter(name="length", min=1, threshold=0.8), "belongs to nearDuplicate"),
    ("an integer below a bound of 0.5", EXPERT, _filter(name="nearDuplicate", threshold=0), "must be at least 0.5"),
    ("a bound that a filter has not", EXPERT, _filter(name="codeParses", min=1), "min belongs to length"),
    ("a largest probability", EXPERT, _filter(name="language", languages=["en"], max=1), "max belongs to length"),
    ("no languages", EXPERT, _filter(name="language"), "filter language needs languages"),
    ("languages of another filter", EXPERT, _filter(name="length", min=1, languages=["en"]), "no other filter has"),
    ("a language by name", EXPERT, _filter(name="language", languages=["english"]), "languages[0]"),
    ("code of any language", EXPERT, _filter(name="codeParses", language="cobol"), "supported values"),
    ("weights of 0", EXPERT, _sources(2, weight=0), "all weights of the sources are 0"),
    ("a negative weight", EXPERT, _sources(weight=-1), "greater than or equal to 0"),
    ("two schedules", EXPERT, _schedule(refresh="daily"), "both say when the sources are read again"),
    ("a cron of four fields", EXPERT, _schedule(cron="0 3 * *"), "refreshSchedule.cron in body should match"),
    ("a time zone that is a path", EXPERT, _schedule(zone="../../passwd"), "refreshSchedule.timeZone in body should"),
    ("a period that has no name", EXPERT, _spec(data={"sources": [], "refresh": "yearly"}), "supported values"),
    ("a limit for what is no reason", EXPERT, _gates(maxDropped={"junk": 0.1}), "is no reason: name some of 'total'"),
    ("a limit that is no share", EXPERT, _gates(maxDropped={"total": 2}), "less than or equal to 1"),
    ("limits the wrong way round", EXPERT, _gates(minNewBytes=9, maxNewBytes=1), "minNewBytes is larger than"),
    ("a curriculum of one source", EXPERT, _curriculum(1.0), "training.curriculum moves weights between sources"),
    ("a curriculum without weights", EXPERT, _curriculum(None, None), "training.curriculum moves weights between sources"),
    ("a curriculum of one that is read", EXPERT, _curriculum(1.0, 0.0), "training.curriculum moves weights between sources"),
    ("replay of a preset", EXPERT, _replay(base={"preset": "tiny"}), "data.replay needs base.expert"),
    ("nothing but replay", EXPERT, _replay(share=1), "should be less than 1"),
    ("a filter the wrong way round", EXPERT, _filter(name="length", min=9, max=1), "min is larger than max"),
    ("no base", EXPERT, _spec(base={}), "exactly one of expert, preset and store"),
    ("two bases", EXPERT, _spec(base={"expert": "general", "preset": "tiny"}), "exactly one of expert, preset and"),
    ("a base outside of its store", EXPERT, _checkpoint("models/../../secrets"), "path must not contain '..'"),
    ("a checkpoint without its digest", EXPERT, _spec(base={"store": "hub", "path": "a"}), "give all three, or none"),
    ("a digest of another kind", EXPERT, _spec(base={"store": "hub", "path": "a", "digest": "md5:0"}), "base.digest"),
    ("a preset's own load", EXPERT, _own_load_of_a_preset, "training.balancing.against Base needs base.expert"),
    ("a load to keep without a loss", EXPERT, _balancing(against="Base"), "acts through the loss"),
    ("two aims of balancing", EXPERT, _balancing(1, against="Base", bias="Sign"), "leave out balancing.bias or"),
    ("a grid that is not full", EXPERT, _resources(nodes=3, expertParallelism=2), "must be a multiple of expertParallelism"),
    ("micro-batches above the batch", EXPERT, _spec(training={"microBatchTokens": 8192}), "larger than batchTokens"),
    ("a rule of balancing that nobody knows", EXPERT, _balancing(bias="Signs"), 'supported values: "None", "Sign"'),
    ("ranks without LoRA", EXPERT, _spec(training={"lora": {"rank": 8}}), "lora is for method LoRA"),
    ("a rank of 0", EXPERT, _spec(training={"method": "LoRA", "lora": {"rank": 0}}), "greater than or equal to 1"),
    ("a target twice", EXPERT, _lora(targets=["Attention", "Attention"]), "duplicate entries"),
    ("an adapter of nothing", EXPERT, _spec(base={"preset": "tiny"}, training={"method": "LoRA"}), "use method Full"),
    ("an adapter that moves routers", EXPERT, _balanced_lora, "moves the base's routers"),
    ("a bank without its method", EXPERT, _spec(training={"bank": {"experts": 2}}), "bank is for method ExpertBank"),
    ("a bank of nothing", EXPERT, _bank(experts=0), "greater than or equal to 1"),
    ("a bank that balances its base", EXPERT, _balanced_bank, "method ExpertBank does not train"),
    ("a schedule that nobody knows", EXPERT, _spec(training={"schedule": "Step"}), "supported values"),
    ("a quoted number", EXPERT, _spec(training={"learningRate": "0.1"}), "expected numeric"),
    ("a misspelt field", EXPERT, _spec(trainning={}), "spec.trainning: field not declared in schema"),
    ("two kinds of storage", POOL, _spec(storage={"size": "1Gi", "claim": "x"}), "exactly one of size and claim"),
    ("a size without a unit", POOL, _spec(storage={"size": "20"}), "spec.storage.size in body should match"),
    ("a grader of another measure", POOL, _evaluator(measure="codeParses", grader="pytest"), "the other measures take none"),
    ("no grader", POOL, _evaluator(measure="container"), "measure container needs a grader"),
    ("an image in a pool", POOL, _evaluator(measure="container", grader="a", image="b"), "field not declared"),
    ("keys in any Secret", POOL, _spec(gateway={"keysFrom": {"secret": "database"}}), "keysFrom.secret in body should match"),
    ("a limit of 0", POOL, _spec(gateway={"limits": {"maxTokens": 0}}), "should be greater than or equal to 1"),
    ("no request per minute", POOL, _spec(gateway={"limits": {"perKey": {"requestsPerMinute": 0}}}), "should be greater than"),
    ("a prior of 0", POOL, _spec(routing={"prior": {"code": 0}}), "prior.code in body should be greater than 0"),
    ("an origin with a path", POOL, _spec(gateway={"allowedOrigins": ["https://a/b"]}), "allowedOrigins[0] in body should"),
    ("segments of 1 KiB", POOL, _spec(evaluation={"segmentBytes": 1024}), 'supported values: "256", "3968"'),
    ("a holdout of 0", POOL, _spec(evaluation={"holdout": 0}), "should be greater than 0"),
    ("a mode that nobody knows", POOL, _spec(lifecycle={"default": "On"}), 'supported values: "Off", "Propose", "Auto"'),
    ("a mode of an act that nobody knows", POOL, _spec(lifecycle={"overrides": {"merge": "Auto"}}), "overrides.merge: field not"),
    ("a budget below 0", POOL, _spec(lifecycle={"budget": {"perPool": -1}}), "greater than or equal to 0"),
    ("a preset to follow", EXPERT, _spec(base={"preset": "tiny", "follow": "Auto"}), "follow belongs to base.expert"),
    ("an act that nobody knows", PROPOSAL, _spec(act="Merge"), 'supported values: "Refresh", "Respecialize", "Rebase"'),
    ("a way back to nowhere", PROPOSAL, _unset("revision"), "revision belongs to act RollBack: name the revision"),
    ("a revision of another act", PROPOSAL, _spec(act="Refresh"), "revision belongs to act RollBack"),
    ("an end that is no date", PROPOSAL, _spec(expires="tomorrow"), 'spec.expires: Invalid value: "tomorrow"'),
    ("an end that is no time", PROPOSAL, _spec(expires="2026-02-30T00:00:00Z"), "spec.expires: Invalid value"),
    ("a proposal for nobody", PROPOSAL, _unset("expert"), "spec.expert: Required value"),
    ("a decision that nobody knows", PROPOSAL, _approval(decision="Maybe"), 'supported values: "Approved", "Rejected"'),
    ("an approval of no evidence", PROPOSAL, _unset_evidence, "spec.approval.evidence: Required value"),
    ("an approval of a word", PROPOSAL, _approval(evidence="yes"), "spec.approval.evidence in body should match"),
    ("who approved, said by himself", PROPOSAL, _approval(by="me"), "spec.approval.by: field not declared in schema"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "change", "message"),
    [pytest.param(manifest, change, message, id=name) for name, manifest, change, message in REFUSED],
)
def test_a_bad_manifest_is_refused_with_the_field_and_the_fix(
    cluster: LocalCluster, manifest: dict[str, Any], change: Change, message: str
) -> None:
    assert message in refusal(cluster, changed(manifest, change))


@pytest.mark.parametrize(
    "change",
    [
        _schedule(),
        _schedule(cron="*/5 * L * MON-FRI", zone="Etc/GMT+5"),
        _schedule(refresh="never"),
        _gates(
            maxDropped={"total": 0.5, "perplexity": 0.1}, maxLost=0.1, maxNewBytes=10**12, maxLanguageShift=0
        ),
        _spec(data={"sources": [{"store": "corpora", "path": "a.txt"}], "refresh": "realTime"}),
    ],
)
def test_schedules_and_gates_are_accepted(cluster: LocalCluster, change: Change) -> None:
    assert refusal(cluster, changed(EXPERT, change)) == ""


@pytest.mark.parametrize("manifest", (POOL, EXPERT, PROPOSAL), ids=lambda manifest: manifest["kind"])
def test_the_same_manifests_unchanged_are_accepted(cluster: LocalCluster, manifest: dict[str, Any]) -> None:
    assert refusal(cluster, manifest) == ""


@pytest.fixture(scope="module")
def stored(cluster: LocalCluster) -> LocalCluster:
    """The pool, the Expert and the proposal, made for real."""
    for manifest in (POOL, EXPERT, PROPOSAL):
        assert apply(cluster, manifest).refused == ""
    return cluster


@pytest.mark.parametrize(
    ("manifest", "patch", "message"),
    [
        (EXPERT, {"pool": "other"}, "pool is immutable"),
        (EXPERT, {"domain": "physics"}, "domain is immutable"),
        (EXPERT, {"domain": None}, "domain is immutable"),
        (
            POOL,
            {"evaluation": {"salt": "other"}},
            "immutable, since every score depends on them",
        ),
        (POOL, {"evaluation": {"holdout": 0.2}}, "immutable, since every score depends on them"),
        (POOL, {"evaluation": {"segmentBytes": 3968}}, "evaluation.segmentBytes is immutable"),
        (POOL, {"storage": {"size": None, "claim": "x"}}, "storage.claim is immutable"),
        (POOL, {"storage": {"accessMode": "ReadWriteMany"}}, "accessMode are immutable"),
        (
            POOL,
            {"storage": {"storageClass": "fast"}},
            "storageClass and accessMode are immutable",
        ),
        (POOL, {"storage": {"size": "1000Mi"}}, "storage.size cannot shrink"),
        (PROPOSAL, {"expert": "physics"}, "only approval and undo of an ExpertProposal can be changed"),
        (PROPOSAL, {"pool": "other"}, "only approval and undo of an ExpertProposal can be changed"),
        (PROPOSAL, {"act": "Refresh", "revision": None}, "create another proposal instead"),
        (PROPOSAL, {"revision": "law-2"}, "only approval and undo"),
        (PROPOSAL, {"expires": "2030-01-01T00:00:00Z"}, "only approval and undo"),
        (PROPOSAL, {"comment": "better so"}, "only approval and undo"),
    ],
)
def test_what_scores_and_weights_rest_on_cannot_change(
    stored: LocalCluster, manifest: dict[str, Any], patch: dict[str, Any], message: str
) -> None:
    path = path_of(manifest, manifest["metadata"]["name"])
    assert message in ApiServer(stored).ask("PATCH", path, {"spec": patch}, MERGE).refused


def test_a_pools_storage_can_grow(stored: LocalCluster) -> None:
    body = json.dumps({"spec": {"storage": {"size": "2Gi"}}})
    stored.kubectl("patch", "-n", "team", "expertpool/pool", "--type=merge", "-p", body)
    path = "jsonpath={.spec.storage.size}"
    assert stored.kubectl("get", "-n", "team", "expertpool/pool", "-o", path).stdout == "2Gi"


def test_everything_else_of_an_expert_can_change(stored: LocalCluster) -> None:
    body = json.dumps({"spec": {"runID": "again", "seed": 7, "paused": True, "training": {"maxSteps": 10}}})
    stored.kubectl("patch", "-n", "team", "expert/law", "--type=merge", "-p", body)
    path = "jsonpath={.spec.runID} {.spec.seed} {.spec.paused} {.spec.training.maxSteps}"
    assert stored.kubectl("get", "-n", "team", "expert/law", "-o", path).stdout == "again 7 true 10"


def test_defaults_are_filled_in_at_every_depth(stored: LocalCluster) -> None:
    spec = json.loads(stored.kubectl("get", "-n", "team", "expert/law", "-o", "json").stdout)["spec"]
    assert spec["training"]["resources"] == {
        "profile": "cpu",
        "nodes": 1,
        "devicesPerNode": 1,
        "expertParallelism": 1,
    }
    assert spec["serving"] == {"profile": "cpu", "replicas": 1}
    path = "jsonpath={.spec.evaluation.segmentBytes}"
    assert stored.kubectl("get", "-n", "team", "expertpool/pool", "-o", path).stdout == "256"


def test_an_expert_scales_by_its_scale_subresource(stored: LocalCluster) -> None:
    stored.kubectl("scale", "-n", "team", "expert/law", "--replicas=3")
    path = "{.spec.serving.replicas}"
    assert stored.kubectl("get", "-n", "team", "expert/law", "-o", f"jsonpath={path}").stdout == "3"


def test_kubectl_lists_by_short_name_category_and_field(stored: LocalCluster) -> None:
    listed = stored.kubectl("get", "exp", "-n", "team").stdout
    assert listed.split()[:10] == [
        "NAME", "DOMAIN", "POOL", "PHASE", "READY", "PROGRESS", "ETA", "SCORE", "TARGETS", "REASON",
    ]  # fmt: skip
    assert "law" in stored.kubectl("get", "exp", "-n", "team", "--field-selector", "spec.domain=law").stdout
    assert "law" not in stored.kubectl("get", "exp", "-n", "team", "--field-selector", "spec.domain=x").stdout
    both = stored.kubectl("get", "moe", "-n", "team", "-o", "name").stdout
    assert both.split() == [
        "expertpool.moe-operator.dev/pool",
        "expertproposal.moe-operator.dev/law-back",
        "expert.moe-operator.dev/law",
    ]


def test_a_list_of_proposals_shows_what_is_promised_and_what_it_waits_for(stored: LocalCluster) -> None:
    status = {
        "phase": "Open",
        "reason": "AwaitingApproval",
        "effect": "promised -4.0 % [-6.1, -1.9]",
        "evidence": {"digest": DIGEST, "summary": "s", "expertUID": "u", "current": "law-2", "parent": "law-1", "time": "t"},
    }  # fmt: skip
    path = path_of(PROPOSAL, "law-back", "status")
    assert ApiServer(stored).ask("PATCH", path, {"status": status}, MERGE).refused == ""
    header, row = stored.kubectl("get", "eprop", "-n", "team").stdout.splitlines()
    assert header.split() == ["NAME", "ACT", "EXPERT", "EFFECT", "STATE", "REASON", "AGE"]
    cells = ["law-back", "RollBack", "law", "promised -4.0 % [-6.1, -1.9]", "Open", "AwaitingApproval"]
    assert re.split(r"\s{2,}", row.strip())[:-1] == cells
    wide = stored.kubectl("get", "eprop", "-n", "team", "-o", "wide").stdout.splitlines()
    assert DIGEST in wide[1], "it can be copied from there into an approval"
    for selector, found in (
        ("spec.expert=law", True),
        ("spec.expert=physics", False),
        ("spec.pool=pool,spec.act=RollBack", True),
        ("spec.act=Rebase", False),
    ):
        listed = stored.kubectl("get", "eprop", "-n", "team", "--field-selector", selector).stdout
        assert ("law-back" in listed) is found, selector


def test_an_undoing_cannot_be_taken_back(stored: LocalCluster) -> None:
    path = path_of(PROPOSAL, "law-back")
    for decision in ({"approval": {"decision": "Approved", "evidence": DIGEST}}, {"undo": True}):
        assert ApiServer(stored).ask("PATCH", path, {"spec": decision}, MERGE).refused == ""
    for undo in (False, None):
        refused = ApiServer(stored).ask("PATCH", path, {"spec": {"undo": undo}}, MERGE).refused
        assert "undo cannot be taken back: create another proposal instead" in refused


@pytest.mark.parametrize(
    ("base", "shown"),
    [
        ({"expert": "general", "follow": "Auto"}, "general"),
        ({"expert": "general"}, "general"),
        ({"preset": "tiny"}, "tiny"),
        ({"store": "hub", "path": "models/a", "digest": DIGEST}, "models/a"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_the_base_column_shows_what_the_expert_starts_from(
    stored: LocalCluster, base: dict[str, str], shown: str
) -> None:
    manifest = changed(changed(EXPERT, _name("based")), _spec(base=base))
    path = path_of(manifest, "based")
    assert apply(stored, manifest).refused == ""
    try:
        wide = stored.kubectl("get", "exp/based", "-n", "team", "-o", "wide").stdout.splitlines()
        assert wide[1][wide[0].index("BASE") :].split()[0] == shown
    finally:
        ApiServer(stored).ask("DELETE", path)


def test_a_default_that_changes_reaches_new_experts_alone(stored: LocalCluster) -> None:
    """Else an upgrade would train every Expert again: the weight below is part of a revision's identity."""
    before = weight_of(stored, EXPERT)
    change_default(stored, before + 0.5)
    try:
        deadline = time.monotonic() + 120
        while weight_of(stored, changed(EXPERT, _name("fresh"))) == before:
            assert time.monotonic() < deadline, "the API server goes on with the old schema"
        assert weight_of(stored, EXPERT) == before
    finally:
        change_default(stored, before)


def weight_of(cluster: LocalCluster, manifest: dict[str, Any]) -> float:
    """The weight of the load-balancing loss that an Expert has when its manifest is applied (again)."""
    spec = apply(cluster, manifest, "&dryRun=All").object["spec"]
    return float(spec["training"]["loadBalancingLossWeight"])


def change_default(cluster: LocalCluster, weight: float) -> None:
    """Change the default of the weight in the installed CRD, as an upgrade does."""
    at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/training"
    patch = [
        {"op": "replace", "path": f"{at}/{place}", "value": weight}
        for place in ("default/loadBalancingLossWeight", "properties/loadBalancingLossWeight/default")
    ]
    name = "crd/experts.moe-operator.dev"
    cluster.kubectl("patch", name, "--type=json", "-p", json.dumps(patch))


def test_kubectl_explains_fields_with_their_defaults(cluster: LocalCluster) -> None:
    text = " ".join(cluster.kubectl("explain", "expert.spec.training.learningRate").stdout.split())
    assert "Peak learning rate of AdamW" in text and "Default: 0.001" in text


def a_revision(name: str, training: dict[str, Any]) -> dict[str, Any]:
    """An ExpertRevision as the operator writes one, trained as given."""
    digest = "sha256:" + "0" * 64
    window = {"path": "w", "digest": digest, "clusters": 20, "segments": 20}
    inputs = {"data": {"path": "d", "digest": digest}, "training": training, "seed": 0}
    spec = {
        "expert": "law", "expertUID": "u", "pool": "pool", "number": 1, "cause": "SpecChanged", "inputs": inputs,
        "inputsDigest": digest, "anchor": window, "suiteDigest": digest,
    }  # fmt: skip
    return POOL | {"kind": "ExpertRevision", "metadata": {"name": name, "namespace": "team"}, "spec": spec}


def test_a_field_that_a_revision_lacks_has_the_value_of_the_frozen_table(cluster: LocalCluster) -> None:
    answer = apply(cluster, a_revision("law-2", {}), "&dryRun=All")
    training = answer.object["spec"]["inputs"]["training"]
    assert training["loadBalancingLossWeight"] == 0.01
    assert TrainingSpec.model_validate(training) == TrainingSpec()


def test_a_revision_is_immutable(cluster: LocalCluster) -> None:
    training = {
        "learningRate": 0.1, "maxEpochs": 1, "batchTokens": 64, "weightDecay": 0, "loadBalancingLossWeight": 0,
        "auxiliaryLossWeight": 0, "validationEvery": 1, "checkpointEvery": 1,
    }  # fmt: skip
    manifest = a_revision("law-1", training)
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))
    body = json.dumps({"spec": {"number": 2}})
    answer = cluster.kubectl("patch", "-n", "team", "exprev/law-1", "--type=merge", "-p", body, check=False)
    assert "an ExpertRevision is immutable: change the Expert instead" in answer.stderr
    status = json.dumps({"status": {"attempts": 1}})
    cluster.kubectl(
        "patch", "-n", "team", "exprev/law-1", "--subresource=status", "--type=merge", "-p", status
    )
