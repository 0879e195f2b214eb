"""A type is read by many threads at once from the first time on; without `prepare_type` this ends the process."""

import subprocess
import sys

PROGRAM = """
import sys, threading
import msgspec
from birthmark.msgspec_type_preparation import prepare_type

sys.setswitchinterval(1e-6)
struct = type(msgspec.Struct)

def a_type(number):
    inner = struct(f"Inner{number}", (msgspec.Struct,), {"__annotations__": {"x": int}, "__module__": "__main__"})
    fields = {"a": list[inner], "b": dict[str, inner]}
    return struct(f"Outer{number}", (msgspec.Struct,), {"__annotations__": fields, "__module__": "__main__"})

for number in range(200):
    kind, together = a_type(number), threading.Barrier(8)
    def read():
        together.wait()
        msgspec.convert({"a": [{"x": 1}], "b": {"k": {"x": 2}}}, prepare_type(kind))
    threads = [threading.Thread(target=read) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
"""


def test_threads_read_a_new_type_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
