"""What kopf is told, seen from outside: which kinds it watches, with which selectors, and what it must not do."""

from moe_operator.cluster.resources import WATCHED
from moe_operator.handlers import registry_of, settings_of


class Connection:
    """A connection that nobody asks."""

    def for_kopf(self):
        raise AssertionError("nothing is connected yet")


def name_of(handler):
    """Return the plural name that a handler selects."""
    return handler.selector.any_name or handler.selector.plural


def test_every_watched_kind_has_one_event_handler_and_no_other():
    registry = registry_of(Connection(), lambda *_: None, lambda: None)
    handlers = registry._watching.get_all_handlers()
    assert sorted(map(name_of, handlers)) == sorted(resource.plural for resource in WATCHED)
    for other in (registry._indexing, registry._spawning, registry._changing):
        assert not list(other.get_all_handlers())


def test_children_are_selected_by_the_server():
    selectors = settings_of().watching.label_selectors
    assert set(selectors.values()) == {"app.kubernetes.io/managed-by=moe-operator"}
    assert len(selectors) == sum(resource.owned for resource in WATCHED)


def test_kopf_posts_nothing_and_waits_for_nothing_without_end():
    settings = settings_of()
    assert not settings.posting.enabled
    for limit in (
        settings.watching.server_timeout,
        settings.watching.client_timeout,
        settings.watching.connect_timeout,
    ):
        assert limit
    assert settings.networking.request_timeout < 120


async def test_an_event_reaches_the_observer_with_its_kind_and_whether_it_was_deleted():
    seen = []
    registry = registry_of(Connection(), lambda *what: seen.append(what), lambda: None)
    handler = next(
        h
        for h in registry._watching.get_all_handlers()
        if h.selector.plural == "jobs" or h.selector.any_name == "jobs"
    )
    for kind in (None, "ADDED", "MODIFIED", "DELETED"):
        await handler.fn(event={"type": kind, "object": {"metadata": {"name": "a"}}}, anything="else")
    assert [(resource.kind, deleted) for resource, _, deleted in seen] == [("Job", False)] * 3 + [
        ("Job", True)
    ]
