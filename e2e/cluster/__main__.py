"""`python3 -m e2e.cluster`: the cluster from the command line. It stays up until `down`, whoever started it."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from e2e.cluster import binaries, cleanup, kind, shell
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.process import marked

DEFAULT = Path(__file__).parents[2] / "run" / "cluster"


def main(argv: list[str] | None = None) -> int:
    chosen = _parser().parse_args(argv)
    # A polite end is an interruption, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        COMMANDS[chosen.command](chosen)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def up(chosen: argparse.Namespace) -> None:
    """start a cluster and leave it running"""
    begin = time.monotonic()
    if kind.wanted():
        kubeconfig = kind.KindCluster(chosen.dir, nodes=chosen.nodes, owned=False).start()
    else:
        cluster = Cluster(chosen.dir, nodes=chosen.nodes, subnet=chosen.subnet, owned=False)
        cluster.start()
        if chosen.bridge:
            cluster.use_bridge_cni()
            cluster.wait_nodes_ready()
        kubeconfig = cluster.kubeconfig
    print(f"up in {time.monotonic() - begin:.0f} s; export KUBECONFIG={kubeconfig}")


def down(chosen: argparse.Namespace) -> None:
    """end the cluster and remove all traces of it, also after `up` was killed"""
    if chosen.when_orphaned:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.read(0, 1)
        cleanup.end_orphan(chosen.dir)
    elif kind.wanted():
        kind.KindCluster(chosen.dir).stop()
    else:
        cleanup.remove(chosen.dir)
        if left := cleanup.leftovers(chosen.dir):
            raise ClusterError(f"left behind: {'; '.join(left)}")


def status(chosen: argparse.Namespace) -> None:
    """what runs, and what a killed run left behind"""
    state, processes = cleanup.read_state(chosen.dir), marked(chosen.dir)
    print(f"{chosen.dir}: {state['nodes']} nodes on {state['subnet']}, {len(processes)} processes")
    if not processes:
        raise ClusterError(f"it ended, or was killed: remove what is left with `down --dir {chosen.dir}`")
    kubectl = binaries.ensure("kubectl") / "kubectl"
    print(
        shell.run(kubectl, f"--kubeconfig={chosen.dir / 'admin.kubeconfig'}", "get", "nodes,pods", "-A", "-o", "wide")
    )


def kubeconfig(chosen: argparse.Namespace) -> None:
    """print the path of the administrator's kubeconfig"""
    cleanup.read_state(chosen.dir)
    print(chosen.dir / "admin.kubeconfig")


def build(_: argparse.Namespace) -> None:
    """build the binaries and print their folder"""
    print(binaries.ensure(*binaries.names()))


def packages(_: argparse.Namespace) -> None:
    """print the Debian packages that this machine lacks, for apt-get install"""
    print(" ".join(shell.absent_packages()))


COMMANDS = {command.__name__: command for command in (up, down, status, kubeconfig, build, packages)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.__doc__)
        if name not in ("build", "packages"):
            sub.add_argument("--dir", type=lambda text: Path(text).absolute(), default=DEFAULT, help="its folder")
        if name == "up":
            sub.add_argument("--nodes", type=int, default=2)
            sub.add_argument("--subnet", help="of the bridge that joins the nodes (default: one that is free)")
            sub.add_argument("--bridge", action="store_true", help="give nodes the bridge plugin, so Pods run at once")
        if name == "down":
            sub.add_argument("--when-orphaned", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
