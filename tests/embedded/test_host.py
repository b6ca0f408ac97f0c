import os
import platform

import pytest

from gateway.embedded import EmbeddedTritonError, host


def test_other_systems_are_sent_to_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    host.check_host()
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(EmbeddedTritonError, match=r"aarch64 Linux.*visiongate serve --triton HOST:PORT"):
            host.check_host()
    for version, words in (("glibc 2.31", "has glibc 2.31"), (None, "has no glibc")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "confstr", lambda _, version=version: version)
            with pytest.raises(EmbeddedTritonError, match=words):
                host.check_host()
    with monkeypatch.context() as patch:
        patch.setattr(host, "PYTHON", "3.14")
        with pytest.raises(EmbeddedTritonError, match=r"not on CPython 3\.14"):
            host.check_host()
