import os
from pathlib import Path

import pytest
from tests.sockets import make_socket

from moe_formats.beneath import LeadsOutError, RefusedError, Root, printable
from moe_formats.failure import JobError

#: Opening a pipe that nobody writes to would last for ever.
pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "claim"
    (made / "a" / "b").mkdir(parents=True)
    (made / "a" / "b" / "file").write_text("text")
    (tmp_path / "secret").write_text("SECRET")
    return made


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("path", ["a/b/file", "./a//b/./file", "a/b/../b/file"])
def test_a_file_beneath_is_read(folder: Path, path: str) -> None:
    with Root(folder) as root:
        assert root.read(path) == b"text"
        assert root.read(path, 2) == b"te"
        assert root.stat(path).st_size == 4


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "a/b/../../../claim/a/b/file"])
def test_no_path_leads_out(folder: Path, path: str) -> None:
    with Root(folder) as root, pytest.raises(LeadsOutError, match=r"PathNotAllowed.*leads out of 'claim'"):
        root.read(path)


@pytest.mark.parametrize(
    "target", ["../secret", "a/../../secret", "/etc/passwd", "{root}-else/x", "/proc/self/cwd"]
)
def test_no_link_leads_out(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target.format(root=folder))
    with Root(folder) as root, pytest.raises(LeadsOutError, match="claim/link is a link that leads out"):
        root.read("link")


@pytest.mark.parametrize("target", ["a/b/file", "./a/../a/b/file", "{root}/a/b/file", "other"])
def test_a_link_beneath_is_followed_unless_links_are_refused(folder: Path, target: str) -> None:
    (folder / "other").symlink_to("a/b/file")
    (folder / "link").symlink_to(target.format(root=folder))
    with Root(folder) as root:
        assert root.read("link") == b"text"
        with pytest.raises(RefusedError, match="claim/link is a link"):
            root.read("link", links=False)


def test_a_folder_on_the_way_may_be_a_link_beneath_but_none_if_links_are_refused(folder: Path) -> None:
    (folder / "way").symlink_to("a/b")
    with Root(folder) as root:
        assert root.read("way/file") == b"text"
        with pytest.raises(RefusedError, match="claim/way is a link"):
            root.read("way/file", links=False)


def test_a_root_stays_the_folder_that_it_was_when_its_name_goes_to_another(folder: Path) -> None:
    with Root(folder) as root, root.folder("a") as within:
        (folder / "a").rename(folder / "old")
        (folder / "a").symlink_to("/etc")
        assert within.read("b/file") == b"text"
        with pytest.raises(LeadsOutError):
            root.read("a/passwd")


def test_a_folder_beneath_is_a_root_of_its_own(folder: Path) -> None:
    (folder / "a" / "up").symlink_to("../outer")
    (folder / "outer").write_text("of the claim, but not of a")
    with Root(folder) as root, root.folder("a") as within:
        assert root.read("a/up") == b"of the claim, but not of a"
        with pytest.raises(LeadsOutError, match="claim/a/up is a link that leads out of 'claim/a'"):
            within.read("up")


def test_whatever_is_no_regular_file_is_refused_by_its_kind_and_nothing_waits(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    make_socket(folder / "socket")
    with Root(folder) as root:
        for path, kind in (
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("a/b", "a directory"),
            ("", "a directory"),
        ):
            with pytest.raises(RefusedError, match=f"is {kind}") as refused:
                root.read(path)
            assert not refused.value.retryable
        assert root.stat("pipe").st_size == 0  # which does not open it
    with Root(Path("/dev")) as devices, pytest.raises(RefusedError, match="is a device"):
        devices.read("zero", 1)


def test_what_is_missing_or_no_folder_is_told_as_open_does(folder: Path) -> None:
    with Root(folder) as root:
        with pytest.raises(FileNotFoundError, match="claim/a/none"):
            root.read("a/none")
        with pytest.raises(NotADirectoryError):
            root.read("a/b/file/more")


def test_no_descriptor_is_left_open(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "out").symlink_to("a/../../secret")
    (folder / "way").symlink_to("a/b")
    os.mkfifo(folder / "pipe")
    before = open_descriptors()
    for _ in range(3):
        with Root(folder) as root:
            root.read("way/file")
            root.stat("way")
            for path in ("loop", "out", "pipe", "way/../none"):
                with pytest.raises((RefusedError, FileNotFoundError)):
                    root.read(path)
    assert open_descriptors() == before


def test_a_name_that_is_no_text_can_be_told() -> None:
    assert printable("plain ü.txt") == "plain ü.txt"
    assert printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert printable("\udcff").isascii()
    JobError("DataUnreadable", "\udcff is broken").headline().to_json().encode()


def test_a_folder_that_is_reached_again_is_listed_on_its_own(folder: Path) -> None:
    (folder / "a" / "up").symlink_to("..")
    with Root(folder) as root, root.entries() as entries:
        first = next(entries).name
        with root.folder("a/up") as again, again.entries() as others:
            assert [entry.name for entry in others] == ["a"]
        assert [first, *(entry.name for entry in entries)] == [
            "a"
        ]  # and the first listing goes on where it was


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\udcff", r"\udcff"),
        ("\U000e0041é漢🙂 ", "\\U000e0041é漢🙂 "),
        ("\u2028\u200b\x7f\x9b", r"\u2028\u200b\x7f\x9b"),
    ],
)
def test_a_name_is_shown_without_what_changes_how_it_is_shown(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize("character", ["a", "é", "\x1b", "🙂", "/"])
def test_a_name_of_four_kilobytes_leaves_room_for_the_rest_of_a_message(character: str) -> None:
    shown = printable("begin-" + character * 4000 + "-end.txt")
    assert len(shown) <= 241 and shown.startswith("begin-") and shown.endswith("-end.txt") and "…" in shown


@pytest.mark.parametrize(
    "message",
    ["a\x1b]0;owned\x07b", "a\u202eb", "one\ntwo\r\n  three", "\x00\x85\u2029\u200f\ufeff", "\ud800 half"],
)
def test_no_message_of_an_error_holds_what_changes_how_it_is_shown(message: str) -> None:
    error = JobError("DataUnreadable", message)
    for text in (error.message, str(error), error.headline().message):
        assert text.isprintable()
    assert JobError("DataEmpty", "plain: 漢字, “é” 🙂").message == "plain: 漢字, “é” 🙂"
