"""The base of the images: the Dockerfiles' own, or Debian where that cannot be pulled.

Debian is made by debootstrap, and like python:3.11-slim it has no compiled modules of Python's library. The
building machine's certificates and package index are put into it: the Dockerfiles need not know of either.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images.buildah import PROJECT, buildah, exists

BASE = "localhost/visiongate-base"
_PACKAGES = "python3,python3-venv,ca-certificates"
_RELEASE = "bookworm"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def ensure_base() -> str:
    """Return the tag of a base that is in the storage. It is pulled or made where there is none yet."""
    default = _default()
    if exists(default):
        return default
    if exists(BASE):
        return BASE
    try:
        buildah("pull", "--quiet", "--policy=missing", default)
    except subprocess.CalledProcessError:
        print(f"{default} cannot be pulled: debootstrap makes a base instead", flush=True)
        _make()
        return BASE
    return default


def _default() -> str:
    text = (PROJECT / "deploy/docker/gateway.Dockerfile").read_text()
    return f"docker.io/library/{re.findall(r'^ARG BASE=(.+)$', text, re.MULTILINE)[0]}"


def _make() -> None:
    if shutil.which("debootstrap") is None:
        sys.exit("there is no debootstrap (Debian's package of that name), and no registry can be reached")
    with tempfile.TemporaryDirectory(prefix="visiongate-base-") as name:
        root = Path(name)
        root.chmod(0o755)
        options = ("--variant=minbase", f"--include={_PACKAGES}")
        with (PROJECT / "build/images/debootstrap.log").open("w") as log:
            subprocess.run(("debootstrap", *options, _RELEASE, root), stdout=log, stderr=log, check=True)
        for folder in root.glob("usr/**/__pycache__"):
            shutil.rmtree(folder)
        for caches in ("var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(root / caches)
            (root / caches).mkdir()
        _trust_as_here(root)
        container = buildah("from", "scratch")
        buildah("copy", "--quiet", container, root, "/")
        buildah(
            "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        buildah("commit", "--quiet", "--rm", container, BASE)


def _trust_as_here(root: Path) -> None:
    """Let pip and uv in the base use the certificates and the package index that pip uses here."""
    settings = _pip_settings()
    certificates = settings.pop("cert", None) or os.environ.get("SSL_CERT_FILE")
    if certificates is not None:
        shutil.copyfile(certificates, root / _CERTIFICATES)
        settings["cert"] = f"/{_CERTIFICATES}"
    pip = configparser.ConfigParser(interpolation=None)
    pip["global"] = settings
    with (root / "etc/pip.conf").open("w") as file:
        pip.write(file)
    index = settings.get("index-url")
    uv = "system-certs = true\n" + (f'[[index]]\nurl = "{index}"\ndefault = true\n' if index else "")
    folder = root / "etc/uv"
    folder.mkdir()
    (folder / "uv.toml").write_text(uv)


def _pip_settings() -> dict[str, str]:
    """Return pip's index and certificates as its configuration and its environment have them."""
    listed = subprocess.check_output(
        (sys.executable, "-m", "pip", "config", "list"), text=True, stderr=subprocess.DEVNULL
    )
    found: dict[str, str] = {}
    for name, value in re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        if name in {"index-url", "cert"}:
            found.setdefault(name, value)
    return found
