from moe_operator.cluster.managed_fields import handed_to_apply


def entry(manager, operation, fields, **more):
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def live(*entries):
    return {"metadata": {"managedFields": list(entries)}}


def test_what_was_created_counts_as_applied_with_what_was_applied_already():
    others = entry("kubectl-edit", "Update", {"f:data": {"f:theirs": {}}})
    scale = entry("moe-operator", "Update", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    fields = handed_to_apply(
        live(
            others,
            entry("moe-operator", "Update", {"f:spec": {"f:a": {}, "k:{}": {".": {}, "f:b": {}}}}),
            scale,
            entry("moe-operator", "Apply", {"f:spec": {"k:{}": {"f:c": {}}}, "f:data": {}}),
        )
    )
    assert fields is not None
    assert fields[:2] == [others, scale], "only what the operator set in the object itself is handed over"
    (ours,) = fields[2:]
    assert ours["operation"] == "Apply"
    assert ours["fieldsV1"] == {
        "f:spec": {"k:{}": {"f:c": {}, ".": {}, "f:b": {}}, "f:a": {}},
        "f:data": {},
    }


def test_nothing_is_handed_over_twice():
    assert handed_to_apply(live(entry("moe-operator", "Apply", {}))) is None
    assert handed_to_apply(live(entry("kubectl", "Update", {}))) is None
    assert handed_to_apply({"metadata": {}}) is None
