from itertools import permutations

import pytest
from pydantic import ValidationError

from moe_formats.resources.expert import Expert
from moe_operator.cluster.cache import Cache
from moe_operator.cluster.sound import Unreadable


def test_a_newer_version_replaces_and_an_older_one_does_not(cache, make):
    assert cache.put(make("Job", "a", version=9))
    assert not cache.put(make("Job", "a", version=8, spec={"suspend": True}))
    assert cache.put(make("Job", "a", version=10))
    assert cache.get("Job", "ns", "a")["metadata"]["resourceVersion"] == "10"


def test_versions_compare_as_numbers(cache, make):
    cache.put(make("Job", "a", version=9))
    assert cache.put(make("Job", "a", version=10))


def test_late_news_does_not_revive_a_deleted_object(cache, make):
    cache.put(make("Job", "a", version=5))
    assert cache.remove("Job", "ns", "a", "uid-a", 7)
    assert not cache.put(make("Job", "a", version=6))
    assert cache.get("Job", "ns", "a") is None


def test_an_object_that_left_the_selector_comes_back_with_newer_news(cache, make):
    cache.put(make("Job", "a", version=5))
    cache.remove("Job", "ns", "a", "uid-a", 7)  # Its label was taken away: the watch says deleted.
    assert cache.put(make("Job", "a", version=8))


def test_the_end_of_a_namesake_leaves_the_new_object(cache, make):
    cache.put(make("Job", "a", uid="new", version=9))
    assert not cache.remove("Job", "ns", "a", "old", 8)
    assert cache.get("Job", "ns", "a")["metadata"]["uid"] == "new"


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_order_of_news_does_not_matter(make, order):
    """Made, changed, deleted, made again under the same name: whatever comes first, the last state holds."""
    news = [
        lambda cache: cache.put(make("Job", "a", uid="1", version=1)),
        lambda cache: cache.put(make("Job", "a", uid="1", version=2)),
        lambda cache: cache.remove("Job", "ns", "a", "1", 3),
        lambda cache: cache.put(make("Job", "a", uid="2", version=4)),
    ]
    cache = Cache()
    for index in order:
        news[index](cache)
    assert cache.get("Job", "ns", "a")["metadata"]["uid"] == "2"


def test_objects_are_found_by_pool_and_controller(cache, make, expert):
    cache.put(expert("e", pool="p"))
    cache.put(make("ExpertRevision", "e-1", spec={"pool": "p", "expert": "e"}, owner="uid-e"))
    cache.put(make("Job", "e-1-a1", pool="p", expert="e", owner="uid-e"))
    cache.put(make("Pod", "e-1-a1-x", pool="p", expert="e", owner="uid-e-1-a1"))
    cache.put(make("Job", "other", pool="q", expert="z"))
    assert [item["metadata"]["name"] for item in cache.of_pool("Expert", "ns", "p")] == ["e"]
    assert [item["metadata"]["name"] for item in cache.of_controller("ExpertRevision", "ns", "uid-e")] == [
        "e-1"
    ]
    assert [item["metadata"]["name"] for item in cache.of_pool("Job", "ns", "p")] == ["e-1-a1"]
    assert [item["metadata"]["name"] for item in cache.of_controller("Pod", "ns", "uid-e-1-a1")] == [
        "e-1-a1-x"
    ]


def test_a_changed_label_moves_an_object_in_the_index(cache, make):
    cache.put(make("Job", "a", pool="p", version=1))
    cache.put(make("Job", "a", pool="q", version=2))
    assert not cache.of_pool("Job", "ns", "p")
    assert len(cache.of_pool("Job", "ns", "q")) == 1
    cache.remove("Job", "ns", "a", "uid-a")
    assert not cache.of_pool("Job", "ns", "q")
    assert not list(cache.all("Job"))


def test_listeners_hear_the_object_before_and_after(cache, make):
    heard = []
    cache.listen(lambda old, new: heard.append((old and old["metadata"]["resourceVersion"], new is not None)))
    cache.put(make("Job", "a", version=1))
    cache.put(make("Job", "a", version=1))
    cache.put(make("Job", "a", version=2))
    cache.remove("Job", "ns", "a", "uid-a")
    assert heard == [(None, True), ("1", True), ("2", False)]


def test_models_are_parsed_once_per_version(cache, expert):
    cache.put(expert("e", version=1))
    first = cache.model(cache.get("Expert", "ns", "e"), Expert)
    assert cache.model(cache.get("Expert", "ns", "e"), Expert) is first
    cache.put(expert("e", version=2))
    assert cache.model(cache.get("Expert", "ns", "e"), Expert) is not first


def test_an_invalid_object_raises_each_time(cache, expert):
    cache.put(expert("e", spec={"training": {"learningRate": -1}}))
    for _ in range(2):
        with pytest.raises(ValidationError, match="learningRate"):
            cache.model(cache.get("Expert", "ns", "e"), Expert)


def test_an_object_that_cannot_be_told_from_others_leaves_the_cache_as_it_was(cache, make):
    cache.put(make("Job", "a", version=1, pool="p"))
    broken = make("Job", "a", version=2, pool="q")
    del broken["metadata"]["uid"]
    with pytest.raises(Unreadable, match="uid"):
        cache.put(broken)
    assert cache.get("Job", "ns", "a")["metadata"]["resourceVersion"] == "1"
    assert len(cache.of_pool("Job", "ns", "p")) == 1 and not cache.of_pool("Job", "ns", "q")


def test_a_listener_that_fails_keeps_the_next_one_from_nothing(cache, make):
    heard = []

    def fail(old, new):
        raise KeyError("pool")

    cache.listen(fail)
    cache.listen(lambda old, new: heard.append(new["metadata"]["name"]))
    assert cache.put(make("Job", "a"))
    assert cache.put(make("Job", "b"))
    assert heard == ["a", "b"]


def test_only_so_many_deleted_objects_are_remembered(cache, make, monkeypatch):
    monkeypatch.setattr("moe_operator.cluster.cache.REMEMBERED", 3)
    for number in range(5):
        cache.put(make("Job", f"j{number}", owner="E"))
        cache.remove("Job", "ns", f"j{number}", f"uid-j{number}", 9)
    assert [former.name for former in cache.former_of_controller("Job", "ns", "E")] == ["j2", "j3", "j4"]


def test_only_so_many_objects_are_held_as_models_those_looked_at_last(cache, expert, monkeypatch):
    monkeypatch.setattr("moe_operator.cluster.cache.MODELS", 2)
    for name in ("a", "b", "c"):
        cache.put(expert(name))

    def model(name):
        return cache.model(cache.get("Expert", "ns", name), Expert)

    first = model("a")
    model("b")
    assert model("a") is first, "now b is the one that was looked at longest ago"
    model("c")
    assert model("a") is first
    again = model("b")
    assert again.metadata.name == "b" and model("b") is again
