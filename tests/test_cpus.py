import os
from pathlib import Path

import pytest

from gateway.cpus import available_cpus


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 7})


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000\n", 4),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 4),
        ("", 4),
        ("nonsense", 4),
    ],
)
def test_a_containers_share_counts(text: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert available_cpus(tmp_path / "cpu.max") == count


@pytest.mark.usefixtures("four")
def test_without_a_container_it_is_what_the_process_may_use(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none") == 4
