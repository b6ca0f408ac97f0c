from pathlib import Path

import pytest

from gateway.embedded import EmbeddedTritonError, environment
from gateway.embedded.cache_folder import is_plain, made_whole


def test_no_home_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's user has it who is in no list of users."""
    monkeypatch.delenv("VISIONGATE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(EmbeddedTritonError, match=r"no home folder.*set VISIONGATE_CACHE_DIR"):
        environment.ensure_environment(lambda _: None)


@pytest.mark.parametrize("folder", ["/proc/none", "/dev/null"])
def test_a_cache_that_cannot_be_made_says_what_to_do(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("VISIONGATE_CACHE_DIR", folder)
    with pytest.raises(EmbeddedTritonError, match=rf"kept in {folder} \(.+\): set VISIONGATE_CACHE_DIR"):
        environment.ensure_environment(lambda _: None)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "made"
    with pytest.raises(EmbeddedTritonError, match="cannot be kept in"), made_whole(folder) as partial:
        (partial / "missing" / "file").touch()
    assert list(folder.parent.iterdir()) == []
    # Of two that are made at a time the first stays.
    with made_whole(folder) as partial:
        assert not folder.exists()
        with made_whole(folder) as other:
            (other / "first").touch()
        (partial / "second").touch()
    assert [path.name for path in folder.iterdir()] == ["first"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("path", "plain"), [("/a/b-1_c.d", True), ("/a b", False), ("/a'b", False), ("/$a", False)]
)
def test_paths_that_a_shell_reads_as_they_are(path: str, plain: bool) -> None:
    assert is_plain(Path(path)) is plain
