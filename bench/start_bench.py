#!/usr/bin/env python3
"""How long from a typed `container run` to its exit code, and what an idle container costs, against
podman with crun, docker and gVisor in one run. Usage: bench/start_bench.py [BUILD_FOLDER] [RUNS] [PART…]

  run        without a network: at most 1.0 times podman, 0.6 times docker; on the default network:
             at most 0.6 times the faster of both
  exec       in a running container: at most 0.5 times the faster
  list       of 100 containers: at most 0.5 times docker; memory of the daemon that knows them:
             at most 0.15 times dockerd and containerd
  many       20 starts at once until the last has ended: at most 1.0 times podman; 10, 25 and 50
             machines at once: the time for each may not grow
  stack      `up` and `down` of 20 services: at most 0.5 times docker-compose
  memory     proportional set size of QEMU for 1, 10 and 50 idle containers: at most 60 MB each
             beyond the first; what they take of the processors
  cold       a boot without a template: at most 1.2 times bare QEMU

Peers come from the distribution's packages; what cannot run is told. Times are wall time; where a
row says so, the processor's time of everything it took.
"""
import concurrent.futures
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import peers  # noqa: E402
import system  # noqa: E402
from measure import Table, interleaved, proportional_kib, timed  # noqa: E402
from pipeline_bench import BareMachine  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
PARTS = sys.argv[3:]
AT_ONCE = 20
KNOWN = 100
SERVICES = 20
SETTLED_S = 60
WATCHED_S = 20
IMAGE = system.IMAGE
NO_NETWORK = ("--network", "none")


def at_once(run, count):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(run, number) for number in range(count)]:
            done.result()


def faster(times, names):
    """The one of `names` with the smaller median."""
    there = [times[name] for name in names if name in times]
    return min(there, key=lambda values: sorted(values)[len(values) // 2]) if there else None


class Bench:
    def __init__(self, ours, others, table):
        self.ours = ours
        self.others = others
        self.table = table

    def both(self, *words, only=("podman", "docker", "runsc")):
        """The same words to everybody."""
        calls = {"ours": lambda: self.ours.run(*words)}
        for name, peer in self.others.items():
            if name in only:
                calls[name] = lambda peer=peer: peer.run(*words)
        return calls

    def compare(self, name, times, limits):
        """`limits`: [(peers of which the faster counts, ratio)]."""
        for peer, values in times.items():
            if peer != "ours":
                self.table.row(f"{name}, {peer}", values)
        self.table.row(name, times["ours"])
        for against, limit in limits:
            base = faster(times, against)
            if base:
                self.table.row(f"{name}, to {' or '.join(against)}", times["ours"], against=base,
                               limit=limit)

    def run(self):
        calls = self.both("run", "--rm", *NO_NETWORK, IMAGE, "true")
        self.compare("run --network none", interleaved(calls, RUNS),
                     [(("podman",), 1.0), (("docker",), 0.6), (("runsc",), 1.0)])
        calls = self.both("run", "--rm", IMAGE, "true", only=("podman", "docker"))
        self.compare("run", interleaved(calls, RUNS), [(("podman", "docker"), 0.6)])
        self.processor_time()

    def processor_time(self):
        """Of all processes on the machine, since daemons and guests are nobody's children."""
        rows = {}
        for name, call in self.both("run", "--rm", *NO_NETWORK, IMAGE, "true").items():
            rows[name] = [busy_seconds(call) for _ in range(RUNS)]
        for name, values in rows.items():
            self.table.row(f"run --network none, processor's time, {name}", values)

    def exec(self):
        sleeper = ("run", "-d", "--name", "sleeper", *NO_NETWORK, IMAGE, "sleep", "9999")
        calls = self.both("exec", "sleeper", "true", only=("podman", "docker"))
        for peer in [self.ours, *(self.others[name] for name in calls if name != "ours")]:
            peer.run(*sleeper)
        self.compare("exec", interleaved(calls, RUNS), [(("podman", "docker"), 0.5)])
        for peer in [self.ours, *(self.others[name] for name in calls if name != "ours")]:
            peer.run("rm", "-f", "sleeper")

    def list(self):
        for number in range(KNOWN):
            for peer in [self.ours] + [self.others[name] for name in ("podman", "docker")
                                       if name in self.others]:
                peer.run("create", "--name", f"known{number}", *NO_NETWORK, IMAGE, "true")
        calls = {"ours": lambda: self.ours.run("ls", "-a")}
        for name in ("podman", "docker"):
            if name in self.others:
                calls[name] = lambda peer=self.others[name]: peer.run("ps", "-a")
        self.compare(f"list of {KNOWN}", interleaved(calls, RUNS), [(("docker",), 0.5)])
        mine = [resident_kib(self.ours.daemon_pid()) / 1024]
        docker = self.others.get("docker")
        theirs = docker and [sum(resident_kib(pid) for pid in docker.daemons()) / 1024]
        if theirs:
            self.table.row("dockerd and containerd, resident", theirs, unit="MB", scale=1)
        self.table.row(f"daemon that knows {KNOWN}, resident", mine, unit="MB", scale=1,
                       against=theirs, limit=0.15)
        for peer in [self.ours] + [self.others[name] for name in calls if name != "ours"]:
            peer.run("rm", *[f"known{number}" for number in range(KNOWN)])

    def many(self):
        words = ("run", "--rm", *NO_NETWORK, IMAGE, "true")
        calls = {"ours": lambda: at_once(lambda _: self.ours.run(*words), AT_ONCE)}
        if "podman" in self.others:
            calls["podman"] = lambda: at_once(lambda _: self.others["podman"].run(*words), AT_ONCE)
        self.compare(f"{AT_ONCE} runs at once", interleaved(calls, min(RUNS, 5)),
                     [(("podman",), 1.0)])
        each = {}
        for count in (10, 25, 50):
            def start(number):
                self.ours.run("run", "-d", "--name", f"many{number}", *NO_NETWORK, IMAGE, "sleep",
                              "9999")
            each[count] = [timed(lambda count=count: at_once(start, count)) / count]
            for number in range(count):
                if self.ours.output("exec", f"many{number}", "echo", number) != f"{number}\n":
                    raise RuntimeError(f"machine {number} of {count} is not what it should be")
            self.ours.run("rm", "-f", *[f"many{number}" for number in range(count)])
            self.table.row(f"{count} at once, for each", each[count], against=each[10],
                           limit=1.25 if count > 10 else None)

    def stack(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.ours.folder))
        file = folder / "compose.yaml"
        lines = ["version: '3'", "services:"]
        for number in range(SERVICES):
            lines += [f"  s{number}:", f"    image: '{IMAGE}'", "    command: sleep 100000",
                      "    stop_grace_period: 0s"]
        file.write_text("\n".join(lines) + "\n")
        calls = {"ours": lambda *words: self.ours.run(*words, cwd=folder)}
        for name in ("docker", "podman"):
            if name in self.others:
                calls[name] = lambda *words, peer=self.others[name]: peer.compose(file, *words)
        runs = {name: (RUNS if name != "podman" else 2) for name in calls}
        ups, downs = {}, {}
        for number in range(RUNS):
            for name, call in calls.items():
                if number < runs[name]:
                    ups.setdefault(name, []).append(timed(lambda call=call: call("up", "-d")))
                    downs.setdefault(name, []).append(timed(lambda call=call: call("down")))
        self.compare(f"up of {SERVICES} services", ups, [(("docker",), 0.5), (("podman",), 0.5)])
        self.compare(f"down of {SERVICES} services", downs, [(("docker",), 0.5)])

    def memory(self):
        for number in range(50):
            self.ours.run("run", "-d", "--name", f"idle{number}", *NO_NETWORK, IMAGE, "sleep",
                          "9999")
            if number + 1 not in (1, 10, 50):
                continue
            machines = self.ours.machines()
            sizes = [proportional_kib(pid) / 1024 for pid in machines]
            self.table.row(f"QEMU of an idle container, of {number + 1}", sizes, unit="MB", scale=1,
                           against=[60.0] if number else None, limit=1.0)
        time.sleep(SETTLED_S)
        begun = {pid: processor_seconds(pid) for pid in machines}
        time.sleep(WATCHED_S)
        self.table.row("processor time of each, a minute later",
                       [(processor_seconds(pid) - begun[pid]) / WATCHED_S for pid in machines],
                       unit="ms a second")
        self.ours.run("rm", "-f", *[f"idle{number}" for number in range(50)])

    def cold(self):
        with tempfile.TemporaryDirectory() as folder:
            bare = BareMachine(folder)
            times = interleaved({
                "bare QEMU": bare.boot,
                "ours": lambda: self.ours.run("run", "--rm", *NO_NETWORK, "--boot", "cold", IMAGE,
                                              "true"),
            }, RUNS)
        self.compare("run --boot cold", times, [(("bare QEMU",), 1.2)])


def busy_seconds(call):
    """What the processors of this machine did meanwhile, above what they did before."""
    def busy():
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(field) for field in file.readline().split()[1:]]
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
    begun = busy()
    call()
    return busy() - begun


def processor_seconds(pid):
    """What all threads of a process have had of the processors."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def main():
    system.BUILD = BUILD
    ours = system.System()
    table = Table()
    parts = PARTS or ["run", "exec", "list", "many", "stack", "memory", "cold"]
    with tempfile.TemporaryDirectory() as folder:
        others = {}
        try:
            others = peers.opened((peers.Podman, peers.Docker, peers.Runsc), folder,
                                  system.image_archive(), IMAGE)
            ours.start()
            templates = ours.app_root / "templates/machines"
            for flags in (NO_NETWORK, ()):
                ours.run("run", "--rm", *flags, IMAGE, "true")
            system.wait_until(lambda: len(list(templates.glob("*/template.json"))) == 2,
                              "the templates of both shapes")
            bench = Bench(ours, others, table)
            for part in parts:
                getattr(bench, part)()
        finally:
            ours.remove()
            for peer in others.values():
                peer.close()
    table.finish()


if __name__ == "__main__":
    main()
