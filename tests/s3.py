"""An S3 server on this machine, for tests: moto, in a virtual environment of its own.

Its dependencies do not fit those that requirements.lock pins.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import platformdirs
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from pyarrow import fs

_PACKAGES = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
_INSTALL_S = 120
_START_S = 60

# Run by the environment's own Python, which has boto3: two users, whose rights the server looks at from then.
_MAKE_USERS = """
import json, sys, urllib.request, boto3
endpoint = sys.argv[1]
iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1",
                   aws_access_key_id="any", aws_secret_access_key="any")
keys = {}
for name, actions in {"writer": ["s3:*"], "reader": ["s3:Get*", "s3:List*", "s3:Head*"]}.items():
    iam.create_user(UserName=name)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys[name] = [key["AccessKeyId"], key["SecretAccessKey"]]
enforce = urllib.request.Request(endpoint + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
urllib.request.urlopen(enforce).close()
print(json.dumps(keys))
"""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server. writer, reader: key ids and secrets of who may do all, and of who may only read."""

    endpoint: str
    writer: tuple[str, str]
    reader: tuple[str, str]

    def variables(self, *, may_write: bool = True) -> dict[str, str]:
        """Return the variables by which clients find this server, as a user who may or may not write."""
        key, secret = self.writer if may_write else self.reader
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            # No test may look for a cloud's own credentials.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def filesystem(self) -> "fs.S3FileSystem":
        """Return a file system whose paths begin with a bucket, for what a test prepares and looks at."""
        from pyarrow import fs

        key, secret = self.writer
        return fs.S3FileSystem(
            endpoint_override=self.endpoint,
            access_key=key,
            secret_key=secret,
            region="us-east-1",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def put(self, path: str, data: bytes) -> None:
        """Write an object, BUCKET/KEY, and make its bucket."""
        filesystem = self.filesystem()
        filesystem.create_dir(path.partition("/")[0])
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server. Skips the test where its package cannot be installed."""
    python = str(_environment() / "bin" / "python")
    command = (python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
    # A file, because the server writes a line for each request: a pipe that nobody reads would hold it up.
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            endpoint = _endpoint(process, log)
            users = (python, "-c", _MAKE_USERS, endpoint)
            made = subprocess.run(users, stdout=subprocess.PIPE, check=True, timeout=_START_S)
            keys = json.loads(made.stdout)
            yield S3Server(endpoint, tuple(keys["writer"]), tuple(keys["reader"]))
        finally:
            process.kill()


def _endpoint(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        log.seek(0)
        if found := re.search(r"Running on (http://\S+)\n", log.read()):
            return found[1]
        time.sleep(0.05)
    log.seek(0)
    raise AssertionError(f"the S3 server did not start: {log.read()}")


def _environment() -> Path:
    """Return the virtual environment, made once in the user's cache directory."""
    name = re.sub(r"[^a-z0-9.]+", "-", _PACKAGES[0]).strip("-")
    folder = (
        platformdirs.user_cache_path("visiongate-tests")
        / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder)
            (folder / "made").touch()
    return folder


def _make(folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    make = (str(uv), "venv", "--quiet", "--python", sys.executable, str(folder))
    install = (str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *_PACKAGES)
    try:
        for command in (make, install):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=_INSTALL_S)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no S3 server: {_PACKAGES[0]} cannot be installed: {error}")
