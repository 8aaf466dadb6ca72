"""What the benchmark scripts share: interleaved runs, medians, ratios, one table at the end."""
import statistics
import subprocess
import sys
import time


def timed(call):
    """Seconds of wall time that `call` took."""
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def interleaved(candidates, runs):
    """{name: [seconds]} of `runs` rounds; each round runs every candidate once, so that a change of
    the machine's mood touches all of them. One round before is not counted."""
    times = {name: [] for name in candidates}
    for round_number in range(runs + 1):
        for name, call in candidates.items():
            seconds = timed(call)
            if round_number > 0:
                times[name].append(seconds)
    return times


class Table:
    """Rows of what was measured against what; prints minimum, median and maximum, and the ratio of
    the medians with its limit."""

    def __init__(self):
        self.missed = []
        print(f"{'what':44} {'min':>9} {'median':>9} {'max':>9} {'ratio':>7} {'limit':>7}")

    def row(self, name, values, unit="ms", scale=1000, against=None, limit=None):
        low, middle, high = (scale * value for value in
                             (min(values), statistics.median(values), max(values)))
        text = f"{name:44} {low:9.1f} {middle:9.1f} {high:9.1f}"
        if against is not None:
            base = scale * statistics.median(against)
            ratio = middle / base
            text += f" {ratio:7.2f}"
            if limit is not None:
                text += f" {limit:7.2f}{'' if ratio <= limit else '  MISSED'}"
                if ratio > limit:
                    self.missed.append(name)
        print(f"{text}  {unit} of {len(values)}", flush=True)

    def finish(self):
        """Exit code 0 whether or not a goal was met: a benchmark informs, it does not judge."""
        if self.missed:
            print("goals missed: " + ", ".join(self.missed))
        sys.stdout.flush()


def quiet(arguments, **options):
    subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, **options)


def memory_kib(pid, field):
    """A field of the kernel's own sums: Rss, Pss (shared pages by their share), Private_Dirty…"""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


def proportional_kib(pid):
    """Proportional set size: shared pages count by their share."""
    return memory_kib(pid, "Pss")
