"""`python3 -m e2e.cluster`: the cluster from the command line."""

import argparse
import sys
from pathlib import Path

from e2e.cluster import binaries
from e2e.cluster.errors import ClusterError
from e2e.cluster.process import kill_marked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m e2e.cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    down = commands.add_parser("down")
    down.add_argument("--dir", type=Path)
    down.add_argument("--when-orphaned", action="store_true")
    chosen = parser.parse_args()
    try:
        if chosen.command == "build":
            print(binaries.ensure(*binaries.names()))
        else:
            if chosen.when_orphaned:
                sys.stdin.read()
            kill_marked(chosen.dir)
    except ClusterError as error:
        print(f"berth cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
