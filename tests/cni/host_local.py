"""The executable that upstream's suites take for host-local: has its call translated, and becomes Berth's shim.

`tests/cni/adapter.py` copies this file, with an interpreter in front, to where the suites look; and it translates.
"""

import json
import os
import socket
import sys

if __name__ == "__main__":
    told = {name: value for name, value in os.environ.items() if name.startswith("CNI_")}
    with socket.socket(socket.AF_UNIX) as adapter:
        adapter.connect(os.environ["BERTH_ADAPTER"])
        adapter.sendall(json.dumps([told, sys.stdin.read()]).encode())
        adapter.shutdown(socket.SHUT_WR)
        with adapter.makefile() as answer:
            shim, environment, stdin = json.load(answer)
    place = os.memfd_create("stdin")
    os.write(place, stdin.encode())
    os.lseek(place, 0, os.SEEK_SET)
    os.dup2(place, 0)
    os.execve(shim, [shim], environment)
