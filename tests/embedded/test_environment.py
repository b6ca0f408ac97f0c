import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedTritonError, environment

ENSURE = (
    "from gateway.embedded.environment import ensure_environment, ensure_backends\n"
    "path = ensure_environment(print)\nprint(path)\nprint(ensure_backends(path))\n"
)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISIONGATE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_is_made_once_by_two_at_once_and_reused(empty_cache: Path) -> None:
    half_made = environment.environment_path().with_suffix(".partial")
    (half_made / "bin").mkdir(parents=True)
    (half_made / "bin" / "python3").touch()

    both = [
        subprocess.Popen([sys.executable, "-c", ENSURE], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0][-2:] == outputs[1][-2:]
    made, backends = map(Path, outputs[0][-2:])
    messages = [line for output in outputs for line in output[:-2]]
    assert sum("Preparing" in message for message in messages) == 1
    assert not half_made.exists()
    assert sorted(path.name for path in empty_cache.iterdir()) == sorted(
        [backends.name, made.name, f"{made.name}.lock"]
    )

    before = made.stat().st_mtime_ns
    messages.clear()
    assert environment.ensure_environment(messages.append) == made
    assert environment.ensure_backends(made) == backends
    assert messages == []
    assert made.stat().st_mtime_ns == before


def test_backends_hold_the_current_model_file(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "cache" / "made"
    triton = environment.triton_folder(made)
    stub = triton / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in (stub, triton / "backends" / "python"):
        folder.mkdir(parents=True)
    (stub / "triton_python_backend_stub").touch()
    (triton / "backends" / "python" / "libtriton_python.so").write_bytes(b"\0/tmp/python_env_XXXXXX\0")

    first = environment.ensure_backends(made)
    assert (first / "python" / "triton_python_backend_stub").exists()
    # Where a killed Triton leaves a folder is a relative path, of the same length.
    assert (first / "python" / "libtriton_python.so").read_bytes() == b"\0./././python_envXXXXXX\0"
    changed = tmp_path / "model.py"
    changed.write_text("# changed")
    monkeypatch.setattr(environment, "_BACKEND_FOLDER", changed.parent)
    second = environment.ensure_backends(made)
    assert second != first
    assert (second / "onnxruntime" / "model.py").read_text() == "# changed"


def test_a_failed_installation_leaves_nothing_and_shows_the_installers_words(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_installer", lambda *_: ["sh", "-c", "echo no such package; exit 1"])
    with pytest.raises(EmbeddedTritonError, match=r"(?s)installing.*no such package"):
        environment.ensure_environment(lambda _: None)
    assert [path.suffix for path in empty_cache.iterdir()] == [".lock"]


def test_pip_is_used_without_uv_and_neither_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    present = {"pip"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in present or None)
    assert environment._installer(Path("python3"))[1:3] == ["-m", "pip"]
    present.clear()
    with pytest.raises(EmbeddedTritonError, match="uv or pip"):
        environment._installer(Path("python3"))


def test_a_cache_that_triton_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONGATE_CACHE_DIR", str(tmp_path / "with space"))
    with pytest.raises(EmbeddedTritonError, match="set VISIONGATE_CACHE_DIR"):
        environment.ensure_environment(lambda _: None)


PLACES = """
import sys
from gateway.embedded import EmbeddedTritonError, environment, runs, shared_memory
try:
    if sys.argv[1] == "cache":
        environment.ensure_environment(print)
    else:
        shared_memory.check(print)
        with runs.claim():
            pass
except EmbeddedTritonError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        ("cache", "ro", r"kept in \S+ \(Read-only file system\): set VISIONGATE_CACHE_DIR"),
        ("cache", "noexec", r"cannot be run from \S+ \(mounted noexec\): set VISIONGATE_CACHE_DIR"),
        (
            "cache",
            "size=4k,nr_inodes=1",
            r"kept in \S+ \(No space left on device\): set VISIONGATE_CACHE_DIR",
        ),
        (
            "cache",
            "size=20m",
            r"(?s)installing.* failed.*No space left.*The disk is full: set VISIONGATE_CACHE",
        ),
        ("memory", "ro", r"/dev/shm, .*cannot be used \(Read-only file system\).*--shm-size=1g"),
        (
            "memory",
            "size=8m",
            r"/dev/shm has 8 MiB free, too little for Triton: make it larger.*--shm-size=1g",
        ),
        ("memory", "size=64m", r"/dev/shm is under 256 MiB: large batches may fail.*--shm-size=1g"),
    ],
)
def test_places_that_cannot_be_used_say_what_to_do(
    tmp_path: Path, what: str, options: str, says: str
) -> None:
    place = tmp_path if what == "cache" else Path("/dev/shm")
    script = f'mount -t tmpfs -o "{options}" none "{place}" || exit 77\nexec "$1" -c "$2" "$3"\n'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, PLACES, what],
        env=os.environ | {"VISIONGATE_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this user may not mount")
    assert re.search(says, done.stdout), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_triton_is_told_a_containers_share_of_the_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "available_cpus", lambda: 3)
    assert environment.process_environment(tmp_path)[environment.CPUS_VARIABLE] == "3"
    assert (
        f'"{environment.CPUS_VARIABLE}"'
        in (environment._BACKEND_FOLDER / "visiongate_sessions.py").read_text()
    )
