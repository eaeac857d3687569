"""How long the CNI plugin takes to start: fork, exec, answer VERSION, exit; /bin/true beside it, as the floor.

The two alternate, so that a busy machine slows both alike, and the ratio means something where milliseconds do not.
The plugin's name is given, or it is the one that was built for this machine.
"""

import os
import statistics
import sys
import time
from pathlib import Path

ROUNDS = 200
BUILT = Path(__file__).parents[1] / "cni-plugin" / "bin"


def start(program: Path, answers: int, question: int) -> float:
    """Seconds from the start of `program` to its end; by posix_spawn: subprocess costs more than the plugin."""
    os.lseek(question, 0, os.SEEK_SET)
    files = [(os.POSIX_SPAWN_DUP2, question, 0), (os.POSIX_SPAWN_DUP2, answers, 1)]
    began = time.perf_counter()
    child = os.posix_spawn(program, [str(program)], {"CNI_COMMAND": "VERSION"}, file_actions=files)
    _, status = os.waitpid(child, 0)
    took = time.perf_counter() - began
    if status != 0:
        sys.exit(f"{program} ended with {status}")
    return took


def medians(programs: list[Path]) -> list[float]:
    question = os.memfd_create("question")
    os.write(question, b'{"cniVersion":"1.1.0"}')
    answers = os.open(os.devnull, os.O_WRONLY)
    for program in programs:
        start(program, answers, question)
    rounds = [[start(program, answers, question) for program in programs] for _ in range(ROUNDS)]
    os.close(question)
    os.close(answers)
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    plugin = Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT / "berth"
    ours, floor = medians([plugin, Path("/bin/true")])
    for built in sorted(BUILT.glob("*/berth")):
        print(f"size    {built.parent.name}  {built.stat().st_size / 1024:6.1f} KiB")
    print(f"start   berth      {ours * 1000:6.3f} ms   (median of {ROUNDS})")
    print(f"start   /bin/true  {floor * 1000:6.3f} ms")
    print(f"ratio              {ours / floor:6.2f}")


if __name__ == "__main__":
    main()
