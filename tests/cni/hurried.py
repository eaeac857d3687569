"""`berth` with an ADD's deadline of two seconds instead of 55: what a test need not wait for."""

import sys

import berth_cni.adding
import berth_cni.agent
from berth.cli.main import main

if __name__ == "__main__":
    berth_cni.adding.ADD_SECONDS = berth_cni.agent.ADD_SECONDS = 2.0  # type: ignore[attr-defined]
    sys.exit(main())
