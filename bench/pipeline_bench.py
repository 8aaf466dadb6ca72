#!/usr/bin/env python3
"""The pipeline against the bare machine under it: what does a container cost above booting the
same kernel and agent in the same QEMU? Usage: bench/pipeline_bench.py [BUILD_FOLDER] [RUNS]

  bare boot    wall time from the start of QEMU until the agent says it is ready, and the guest's own
               time of it: at most 0.35 s, on a machine where the distribution's kernel, in QEMU's
               usual machine, takes 1.49 s to its first program: so at most 0.235 of that one's
  run          `container run --rm --network none IMAGE true`, as users have it (a clone) and booted
               (`--boot cold`), each against the bare boot of the same round: at most 1.5
  up of 10     `container up -d` of ten services on a network, against ten bare boots spread over
               the processors, plus 20 %: at most 1.0
  planning     1,000 services from nothing and with one change: at most 50 ms each
  idle daemon  resident memory with nothing to do and with ten machines to watch: at most 30 MB
  idle VM      resident and proportional set size of its QEMU, recorded
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import guest_boot_test  # noqa: E402
import system  # noqa: E402
from measure import Table, interleaved, memory_kib, timed  # noqa: E402
from peers import CannotRun  # noqa: E402
from stock_machine import StockMachine  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
SERVICES = 10
GUEST_TIME_RATIO = 0.235  # 0.35 s to the 1.49 s of the distribution's kernel, on the same machine.


class BareMachine:
    """The same kernel, agent and devices with nothing asked of them."""

    def __init__(self, folder):
        guest_boot_test.GUEST = BUILD / "guest"
        self.machine = guest_boot_test.Machine(folder)
        initramfs = pathlib.Path(folder) / "initramfs.img"
        initramfs.unlink()
        initramfs.symlink_to(BUILD / "guest/initramfs.img")
        self.guest_seconds = []  # What the guest's own clock said at each boot.

    def boot(self):
        child = subprocess.Popen(self.machine.arguments(""), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in child.stdout:
            if ready := re.search(rb"ready after (\d+) ms", line):
                self.guest_seconds.append(int(ready.group(1)) / 1000)
                break
        else:
            raise RuntimeError("the bare guest ended before its agent was ready")
        child.kill()
        child.wait()
        child.stdout.close()


def stack_file(home):
    folder = pathlib.Path(tempfile.mkdtemp(dir=home.folder))
    lines = ["name: ten", "services:"]
    lines += [f"  s{number}: {{image: '{system.IMAGE}', command: sleep 100000}}"
              for number in range(SERVICES)]
    (folder / "compose.yaml").write_text("\n".join(lines) + "\n")
    return folder


def ups_and_downs(home, runs):
    folder = stack_file(home)
    ups, downs = [], []
    for _ in range(runs):
        ups.append(timed(lambda: home.run("up", "-d", cwd=folder)))
        downs.append(timed(lambda: home.run("down", cwd=folder)))
    return ups, downs


def planning():
    program = BUILD / "bench/planner_bench"
    subprocess.run(["cmake", "--build", BUILD, "--target", "planner_bench"], check=True,
                   stdout=subprocess.DEVNULL)
    done = subprocess.run([program, "--benchmark_format=json", "--benchmark_repetitions=5"],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = {}
    for entry in json.loads(done.stdout)["benchmarks"]:
        if entry["run_type"] == "iteration" and entry["name"].endswith("/1000"):
            found.setdefault(entry["name"], []).append(entry["real_time"])
    return found


def main():
    system.BUILD = BUILD
    home = system.System()
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        try:
            home.start()
            bare = BareMachine(folder)
            candidates = {"bare": bare.boot}
            try:
                stock = StockMachine(tempfile.mkdtemp(dir=folder), HERE.parent)
                candidates["stock"] = stock.boot
            except CannotRun as why:
                print(f"the distribution's kernel cannot be measured: {why}")
                stock = None
            times = interleaved(candidates | {
                "run": lambda: home.run("run", "--rm", "--network", "none", system.IMAGE, "true"),
                "cold": lambda: home.run("run", "--rm", "--network", "none", "--boot", "cold",
                                         system.IMAGE, "true"),
            }, RUNS)
            table.row("bare QEMU boot until the agent is ready", times["bare"])
            if stock:
                table.row("the distribution's kernel, to its first program", times["stock"])
                table.row("  the same by the guest's clock", stock.guest_seconds[-RUNS:])
                table.row("bare boot by the guest's clock, to that", bare.guest_seconds[-RUNS:],
                          against=stock.guest_seconds[-RUNS:], limit=GUEST_TIME_RATIO)
            table.row("bare boot by the guest's clock, to 0.35 s", bare.guest_seconds[-RUNS:],
                      against=[0.35])
            table.row("container run --rm IMAGE true", times["run"], against=times["bare"],
                      limit=1.5)
            table.row("container run --rm --boot cold IMAGE true", times["cold"],
                      against=times["bare"], limit=1.5)
            idle = [memory_kib(home.daemon_pid(), "Rss") / 1024]
            (first, *ups), (_, *downs) = ups_and_downs(home, 4)
            bound = [1.2 * value * SERVICES / os.cpu_count() for value in times["bare"]]
            table.row(f"up of {SERVICES} services, the first of its shape", [first], against=bound,
                      limit=1.0)
            table.row(f"up of {SERVICES} services (ratio to the bound)", ups, against=bound,
                      limit=1.0)
            table.row(f"down of {SERVICES} services", downs)
            for name, values in planning().items():
                table.row(f"planning {name}", values, scale=1, against=[50.0], limit=1.0)
            for number in range(SERVICES):
                home.run("run", "-d", "--name", f"idle{number}", "--network", "none",
                         system.IMAGE, "sleep", "1000")
            for name, megabytes in (("idle", idle), (f"with {SERVICES} machines", [
                    memory_kib(home.daemon_pid(), "Rss") / 1024])):
                table.row(f"daemon, {name}, resident", megabytes, unit="MB", scale=1,
                          against=[30.0], limit=1.0)
            for field, name in (("Rss", "resident"), ("Pss", "proportional set")):
                table.row(f"idle VM's QEMU, {name}",
                          [memory_kib(pid, field) / 1024 for pid in home.machines()], unit="MB",
                          scale=1)
        finally:
            home.remove()
    table.finish()


if __name__ == "__main__":
    main()
