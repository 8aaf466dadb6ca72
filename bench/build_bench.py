#!/usr/bin/env python3
"""Builds, against buildah and docker in one run. Usage: bench/build_bench.py [BUILD_FOLDER] [RUNS]

  5 x (COPY 1 MB + RUN), all cached   at most 0.1 times `buildah bud --layers`, 0.7 times
                                      `docker build`
  the same, nothing cached            at most 1.0 times docker
  20,000 files, one of them changed   at most 0.3 times buildah

docker builds with BuildKit and with its older builder; the faster one counts. What cannot run here
says why.
"""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import peers  # noqa: E402
import system  # noqa: E402
from measure import Table, interleaved, quiet  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
FILES = 20_000


class Buildah:
    """Its own store in a folder of ours, and the fastest runtime that runs here."""

    def __init__(self, folder, archive):
        self.folder = folder
        quiet(self.words("pull", f"oci-archive:{archive}"))
        probe = folder.parent / "probe of runtimes"
        probe.mkdir()
        (probe / "Dockerfile").write_text(f"FROM {system.IMAGE}\nRUN true\n")
        for self.runtime in filter(shutil.which, ("crun", "runc")):
            try:
                self.build(probe)
                return
            except subprocess.CalledProcessError:  # crun wants one kind of cgroups, not two
                print(f"buildah with {self.runtime} runs nothing here", flush=True)
        raise FileNotFoundError("buildah finds no runtime that runs here")

    def words(self, *words):
        return ["buildah", "--root", str(self.folder / "root"), "--runroot",
                str(self.folder / "run"), "--storage-driver", "overlay", *map(str, words)]

    def build(self, context, *flags):
        quiet(self.words("bud", "--isolation", "oci", "--runtime", self.runtime, "--network", "none",
                         "--layers", *flags, "-t", "bench", str(context)))


def unmount_below(folder):
    """buildah leaves its store mounted."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        places = [line.split()[1] for line in file]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=False, stdin=subprocess.DEVNULL)


def five_steps(folder):
    folder.mkdir()
    lines = [f"FROM {system.IMAGE}"]
    for number in range(5):
        (folder / f"file{number}").write_bytes(os.urandom(1 << 20))
        lines += [f"COPY file{number} /data/", f"RUN echo {number} > /made{number}"]
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    return folder


def many_files(folder):
    for number in range(FILES):
        part = folder / f"{number % 100}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"file{number}").write_text(f"{number}\n" * 20)
    (folder / "Dockerfile").write_text(f"FROM {system.IMAGE}\nCOPY . /src\n")
    return folder


def compare(table, name, builds, limits):
    """`builds`: {who: call}; `limits`: {the beginning of whose name: at most so many times}."""
    times = interleaved(builds, RUNS)
    table.row(name, times["ours"])
    for engine, limit in limits.items():
        theirs = {who: each for who, each in times.items() if who.startswith(engine)}
        if not theirs:
            continue
        for who, each in theirs.items():
            table.row(f"  {who}", each)
        fastest = min(theirs.values(), key=statistics.median)
        table.row(f"  ours to {engine}", times["ours"], against=fastest, limit=limit)


def measure(table, folder, builds):
    """`builds`: {who: function of a context and further flags}."""
    steps = five_steps(folder / "steps")

    def of(context, *flags, before=lambda: None):
        def call(build):
            before()
            build(context, *flags)
        return {who: (lambda build=build: call(build)) for who, build in builds.items()}

    compare(table, "5 x (COPY 1 MB + RUN), cached", of(steps), {"buildah": 0.1, "docker": 0.7})
    compare(table, "the same, no cache", of(steps, "--no-cache"), {"buildah": None, "docker": 1.0})
    many = many_files(folder / "many")
    compare(table, f"{FILES} files, one changed",
            of(many, before=lambda: (many / "7/file7").write_bytes(os.urandom(64))),
            {"buildah": 0.3, "docker": None})


def open_peers(folder, builds):
    """Adds those that run here; the engines to close at the end."""
    opened = peers.opened((peers.Docker,), folder, system.image_archive(), system.IMAGE)
    for docker in opened.values():
        for buildkit, name in ((True, "docker with BuildKit"), (False, "docker, older builder")):
            builds[name] = lambda context, *flags, kit=buildkit: docker.build(context, kit, *flags)
    try:
        peers.install({"buildah": "buildah", "runc": "runc"})
        builds["buildah"] = Buildah(folder / "buildah", system.image_archive()).build
    except (peers.CannotRun, FileNotFoundError) as error:
        print(f"no ratios against buildah, it cannot run here: {error}", flush=True)
    for name in [name for name in builds if name != "ours"]:
        probe = folder / f"probe {name}"
        probe.mkdir()
        (probe / "Dockerfile").write_text(f"FROM {system.IMAGE}\nRUN true\n")
        try:
            builds[name](probe)
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or b"").decode(errors="replace")[-300:].strip()
            print(f"no ratios against {name}, it builds nothing here: {reason}", flush=True)
            del builds[name]
    return opened.values()


def main():
    system.BUILD = BUILD
    folder = pathlib.Path(tempfile.mkdtemp(prefix="build-bench-"))
    ours = system.System()
    engines = []
    builds = {"ours": lambda context, *flags: ours.run("build", "-q", "--network", "none", *flags,
                                                       "-t", "bench:1", str(context))}
    try:
        ours.start()
        engines = open_peers(folder, builds)
        table = Table()
        measure(table, folder, builds)
        table.finish()
    finally:
        ours.remove()
        for engine in engines:
            engine.close()
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
