import os
import socket
import subprocess
import sys

from gateway.bench import cpu

# A process that starts another, which works for as long as it is told and then waits.
PARENT = """
import subprocess, sys
child = "import sys, time\\nend = time.process_time() + float(sys.argv[1])\\n"
child += "while time.process_time() < end: pass\\n"
child += "print('done', flush=True)\\nsys.stdin.read()"
process = subprocess.Popen([sys.executable, "-c", child, sys.argv[1]], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
sys.stdin.read()
"""


def start(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PARENT, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_children_count_and_a_tree_inside_another_counts_once() -> None:
    with start(0.4) as process:
        assert process.stdin
        assert process.stdout
        split = cpu.Split({"outer": [process.pid]})
        child = int(process.stdout.readline())
        assert cpu.tree([process.pid]) == {process.pid, child}
        assert cpu.tree([process.pid], without=[child]) == {process.pid}
        assert split.look()["outer"] >= 0.35
        assert split.look()["outer"] < 0.1
        inside = cpu.Split({"outer": [process.pid], "inner": [child]})._now()
        assert inside["inner"] >= 0.35 > inside["outer"]
        process.stdin.close()


def test_a_process_that_is_gone_has_taken_nothing() -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as process:
        process.wait()
    assert cpu.seconds([process.pid]) == 0
    assert cpu.Split({"nobody": []}).look() == {}


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert cpu.listeners(port) == {os.getpid()}
    assert cpu.listeners(port) == set()
