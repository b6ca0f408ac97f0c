import ctypes.util
import json
import subprocess
import sys

from gateway.embedded import gpus


def test_one_line_of_json_says_what_is_here() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", gpus._PROBE], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    if ctypes.util.find_library("cuda"):
        assert found["cuda"] > 0
    else:
        assert "libcuda.so.1" in found["missing"]
