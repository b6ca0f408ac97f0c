"""What libraries write to file descriptor 2 is logged, in bounds, and never stops the process."""

import json
import subprocess
import sys
from typing import Any

# Run in processes of their own: pytest has file descriptor 2 for itself.
START = """
import ctypes, io, logging, os, random, sys, time
from gateway import library_output
line = '{"level": "%(levelname)s", "logger": "%(name)s", "message": "%(message)s"}'
logging.basicConfig(level=logging.INFO, format=line)
# With the interpreter's lock held, as libraries write that do not let it go.
write = ctypes.PyDLL(None).write
"""


def run(body: str, code: int = 0) -> list[str]:
    """The lines that a program leaves on standard error."""
    result = subprocess.run(
        [sys.executable, "-c", START + body], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == code, result.stderr
    return result.stderr.splitlines()


def records(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_a_line_of_a_library_is_a_record_of_the_log() -> None:
    lines = run(
        """
with library_output.logged():
    write(2, b"Fax4Decode: Bad code word\\n\\x1b[31m red\\n\\n", 39)
    logging.getLogger("gateway").info("ours")
write(2, b"as before\\n", 10)
logging.getLogger("gateway").info("after")
"""
    )
    assert lines[-2] == "as before"
    del lines[-2]
    found = {line["message"]: line for line in records(lines)}
    assert {"ours", "after"} <= set(found)
    library = found["a library says: Fax4Decode: Bad code word"]
    assert (library["level"], library["logger"]) == ("WARNING", "gateway.library_output")
    assert "a library says: [31m red" in found


def test_a_flood_is_counted_and_stops_nobody() -> None:
    lines = run(
        """
data = b"x" * 50_000 + b"\\n" + b"TIFFReadDirectory: Warning\\n" * 40_000
with library_output.logged():
    # Far more than a pipe holds, in one go.
    for _ in range(20):
        write(2, data, len(data))
    time.sleep(0.1)
    logging.getLogger("gateway").info("ours")
"""
    )
    found = records(lines)
    assert "ours" in [line["message"] for line in found]
    library = [line["message"] for line in found if line["logger"] == "gateway.library_output"]
    assert len(library) == 11
    assert library[-1].startswith("libraries wrote ")
    assert max(map(len, library)) < 400


def test_python_and_children_write_where_they_did() -> None:
    lines = run(
        """
import subprocess
with library_output.logged():
    print("printed", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo child >&2"], stderr=sys.stderr)
    raise SystemExit("the end")
""",
        code=1,
    )
    assert lines == ["printed", "child", "the end"]


def test_a_crash_leaves_its_stacks() -> None:
    lines = run("with library_output.logged(): os.abort()", code=-6)
    assert "Fatal Python error: Aborted" in lines
    assert any('File "<string>"' in line for line in lines)


def test_a_child_that_keeps_the_pipe_does_not_keep_the_process() -> None:
    lines = run(
        """
import subprocess
with library_output.logged():
    child = subprocess.Popen(["sleep", "30"])
child.kill()
child.wait()
"""
    )
    assert lines == []


def test_damaged_tiffs_leave_only_records() -> None:
    lines = run(
        """
from PIL import Image
from gateway import logs
from gateway.settings import Settings
logs.configure(Settings(log_format="json"))
from gateway.models import image as images
file = io.BytesIO()
noise = random.Random(0)
Image.frombytes("1", (200, 200), noise.randbytes(5000)).save(file, "TIFF", compression="group4")
data = bytearray(file.getvalue())
with library_output.logged():
    for _ in range(200):
        data[1000:5000] = noise.randbytes(4000)
        try:
            images.decode(bytes(data), max_pixels=10**6)
        except images.ImageError:
            pass
"""
    )
    found = records(lines)
    assert 0 < len(found) <= 11
    assert found[0]["logger"] == "gateway.library_output"
