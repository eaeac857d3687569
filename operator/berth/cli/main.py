"""`berth operator | agent | webhook | explain | pools | who`: reads the command line, and nothing else.

Each command is imported only when it is called: the agent's 45 MB have no room for kopf. An error of configuration is
one line on stderr that names the field and the remedy, and exit code 2; nothing has been changed then.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from berth.kube.errors import BadConfiguration

EXIT_BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except BadConfiguration as error:
        print(f"berth: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berth", description="IP address management for Kubernetes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_operator, _add_agent, _add_webhook, _add_explain, _add_pools, _add_who):
        add(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    """Its own --help begins with what it does, too."""
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, the service account, ~/.kube/config"
    )
    levels = ("debug", "info", "warning", "error")
    command.add_argument("--log-level", default="info", choices=levels, help="default: %(default)s")


def _add_operator(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "operator", "grants addresses; one leads, others stand by")
    _common(command)
    command.add_argument(
        "--namespace", default="berth-system", help="where the leader's Lease is (default: %(default)s)"
    )
    command.add_argument("--identity", help="this replica's name in the Lease (default: host name and a random part)")
    command.add_argument("--health-port", type=int, default=0, metavar="PORT", help="/healthz and /metrics; 0: none")
    _seconds(command, "--reclaim-grace", 10, "before a Pod that is gone without a DEL is looked at again")
    _seconds(command, "--recheck-interval", 30, "between two looks at a Pod that is gone from a node not Ready")
    _seconds(command, "--comparison-interval", 600, "between two full comparisons of memory with the API")
    _seconds(command, "--reassertion-time", 10, "agents have to assert what they hold, after a restore")
    command.set_defaults(command=_operator)


def _seconds(command: argparse.ArgumentParser, flag: str, default: int, what: str) -> None:
    """A setting, from the command line or the environment."""
    variable = "BERTH_" + flag.removeprefix("--").replace("-", "_").upper()

    def read(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} (or ${variable}) is no number of seconds, as 30 or 0.5 are")
        return seconds

    told = os.environ.get(variable, str(default))
    help_text = f"seconds {what} (default {default}, or ${variable})"
    command.add_argument(flag, type=read, default=told, metavar="SECONDS", help=help_text)


def _add_agent(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "agent", "answers the CNI calls of one node")
    _common(command)
    command.add_argument("--node", required=True, metavar="NAME", help="the Node object's name")
    command.add_argument(
        "--socket",
        type=Path,
        default=Path("/run/berth/berth.sock"),
        metavar="PATH",
        help="where the shim finds the agent (default: %(default)s)",
    )
    command.add_argument(
        "--state-dir",
        type=Path,
        default=Path("/var/lib/berth"),
        metavar="DIR",
        help="where DELs are kept that the API server could not be told of yet (default: %(default)s)",
    )
    command.add_argument("--install-shim", type=Path, metavar="DIR", help="copy the shim there first, by rename")
    command.add_argument("--health-port", type=int, default=0, metavar="PORT", help="/healthz and /metrics; 0: none")
    command.set_defaults(command=_agent)


def _add_webhook(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "webhook", "refuses pools that cannot be, and says why")
    _common(command)
    command.add_argument("--cert", type=Path, metavar="FILE", help="TLS certificate (PEM); default: from --secret")
    command.add_argument("--key", type=Path, metavar="FILE", help="its key (PEM)")
    command.add_argument("--port", type=int, default=9443, help="where it serves (default: %(default)s)")
    command.add_argument("--namespace", default="berth-system", help="where --secret and --service are")
    command.add_argument("--secret", default="berth-webhook", help="makes and renews its own certificate there")
    command.add_argument("--service", default="berth-webhook", help="the Service the certificate is for")
    command.add_argument(
        "--configuration", default="berth", help="the ValidatingWebhookConfiguration to give the CA to"
    )
    command.add_argument("--health-port", type=int, default=0, metavar="PORT", help="/healthz; 0: none")
    command.set_defaults(command=_webhook)


def _looking(command: argparse.ArgumentParser) -> None:
    command.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, ~/.kube/config")
    command.add_argument("-o", "--output", default="table", choices=("table", "json"), help="default: %(default)s")


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(
        commands,
        "explain",
        "which pools were looked at for a Pod, and what it gets or waits for; exit code 3: no address",
    )
    _looking(command)
    command.add_argument("pod", metavar="POD", help="its name; of the past, too, while an Endpoint of it is there")
    command.add_argument("-n", "--namespace", default="default", help="the Pod's (default: %(default)s)")
    command.add_argument(
        "--interface",
        default="",
        metavar="NAME",
        help="of those without an Endpoint this one (default: all it speaks of)",
    )
    command.add_argument(
        "--network",
        default="",
        metavar="NAME",
        help="name of the CNI configuration, for an interface without an Endpoint",
    )
    command.set_defaults(command=_explain)


def _add_pools(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "pools", "every pool: whether it serves, how full it is, for whom it is")
    _looking(command)
    command.set_defaults(command=_pools)


def _add_who(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = _command(commands, "who", "who holds an address, and which pools hand it out")
    _looking(command)
    command.add_argument("address", metavar="ADDRESS", help="10.0.0.5 or fd00::5, without a prefix length")
    command.set_defaults(command=_who)


def _operator(arguments: argparse.Namespace) -> int:
    from berth.controller.main import run

    return run(arguments)


def _agent(arguments: argparse.Namespace) -> int:
    from berth_cni.main import run

    return run(arguments)


def _webhook(arguments: argparse.Namespace) -> int:
    from berth_webhook.main import run

    return run(arguments)


def _explain(arguments: argparse.Namespace) -> int:
    from berth.cli.explain import run

    return run(arguments)


def _pools(arguments: argparse.Namespace) -> int:
    from berth.cli.pools import run

    return run(arguments)


def _who(arguments: argparse.Namespace) -> int:
    from berth.cli.who import run

    return run(arguments)
