#!/usr/bin/env python3
"""How long from a typed `container run` to its exit code, against podman with crun in one run.
Usage: bench/start_bench.py [BUILD_FOLDER] [RUNS]

  run             a clone, without a network and on the default one: at most 1.0 times podman
  run, cold       the same with `--boot cold`
  exec            in a running container: at most 0.5 times podman
  20 at once      until the last has ended
  memory          proportional set size of QEMU for 1 and 10 idle containers
"""
import concurrent.futures
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import system  # noqa: E402
from measure import Table, interleaved, proportional_kib, timed  # noqa: E402
from podman import CannotRun, Podman  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
AT_ONCE = 20
IDLE = 10


def at_once(run):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(run) for _ in range(AT_ONCE)]:
            done.result()


def candidates(ours, peer, flags, words=("true",)):
    """The same container by both, `flags` before the image."""
    found = {"ours": lambda: ours.run("run", "--rm", *flags, system.IMAGE, *words)}
    if peer:
        found["podman"] = lambda: peer.run("run", "--rm", *flags, system.IMAGE, *words)
    return found


def compare(table, name, times, limit):
    if "podman" in times:
        table.row(f"{name}, podman", times["podman"])
    table.row(name, times["ours"], against=times.get("podman"), limit=limit)


def starts(table, ours, peer):
    for name, flags in (("run --network none", ("--network", "none")), ("run", ())):
        compare(table, name, interleaved(candidates(ours, peer, flags), RUNS), 1.0)
    cold = ("--network", "none", "--boot", "cold")
    table.row("run --network none --boot cold",
              interleaved({"ours": candidates(ours, None, cold)["ours"]}, RUNS)["ours"])
    both = candidates(ours, peer, ("--network", "none"))
    times = {name: [timed(lambda run=run: at_once(run)) for _ in range(3)]
             for name, run in both.items()}
    compare(table, f"{AT_ONCE} runs at once", times, 1.0)


def execs(table, ours, peer):
    sleeper = ("run", "-d", "--name", "sleeper", "--network", "none", system.IMAGE, "sleep", "9999")
    both = {"ours": lambda: ours.run("exec", "sleeper", "true")}
    ours.run(*sleeper)
    if peer:
        peer.run(*sleeper)
        both["podman"] = lambda: peer.run("exec", "sleeper", "true")
    compare(table, "exec", interleaved(both, RUNS), 0.5)
    ours.run("rm", "-f", "sleeper")


def memory(table, ours):
    for number in range(IDLE):
        ours.run("run", "-d", "--name", f"idle{number}", "--network", "none", system.IMAGE,
                 "sleep", "9999")
        if number + 1 in (1, IDLE):
            sizes = [proportional_kib(pid) / 1024 for pid in ours.machines()]
            table.row(f"QEMU of an idle container, of {number + 1}", sizes, unit="MB", scale=1,
                      against=[60.0] if number else None, limit=1.0)


def main():
    system.BUILD = BUILD
    ours = system.System()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        peer = Podman(folder, system.image_archive(), system.IMAGE)
        try:
            try:
                peer.open()
            except CannotRun as error:
                print(f"no ratios, podman cannot run here: {error}")
                peer.close()
                peer = None
            ours.start()
            templates = ours.app_root / "templates/machines"
            for flags in (("--network", "none"), ()):
                ours.run("run", "--rm", *flags, system.IMAGE, "true")
            system.wait_until(lambda: len(list(templates.glob("*/template.json"))) == 2,
                              "the templates of both shapes")
            starts(table, ours, peer)
            execs(table, ours, peer)
            memory(table, ours)
        finally:
            ours.remove()
            if peer:
                peer.close()
    table.finish()


if __name__ == "__main__":
    main()
