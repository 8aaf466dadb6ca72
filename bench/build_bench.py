#!/usr/bin/env python3
"""Builds, against buildah in one run.
Usage: bench/build_bench.py [BUILD_FOLDER] [RUNS]

  5 x (COPY 1 MB + RUN), all cached   at most 0.1 times `buildah bud --layers`
  the same, nothing cached            at most 1.0 times
  20,000 files, one of them changed   at most 0.3 times
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
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
        probe = folder / "probe"
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


def compare(table, name, ours, peer, limit):
    candidates = {"ours": ours, **({"peer": peer} if peer else {})}
    times = interleaved(candidates, RUNS)
    if peer:
        table.row(f"{name}, buildah", times["peer"])
    table.row(name, times["ours"], against=times.get("peer"), limit=limit)


def measure(table, folder, ours, peer):
    steps = five_steps(folder / "steps")

    def our_build(context, *flags):
        ours.run("build", "-q", "--network", "none", *flags, "-t", "bench:1", str(context))

    compare(table, "5 x (COPY 1 MB + RUN), cached", lambda: our_build(steps),
            peer and (lambda: peer.build(steps)), 0.1)
    compare(table, "the same, no cache", lambda: our_build(steps, "--no-cache"),
            peer and (lambda: peer.build(steps, "--no-cache")), 1.0)
    many = many_files(folder / "many")

    def change(build):
        (many / "7/file7").write_bytes(os.urandom(64))
        build(many)

    compare(table, f"{FILES} files, one changed", lambda: change(our_build),
            peer and (lambda: change(peer.build)), 0.3)


def main():
    system.BUILD = BUILD
    folder = pathlib.Path(tempfile.mkdtemp(prefix="build-bench-"))
    ours = system.System()
    peer = None
    try:
        ours.start()
        if shutil.which("buildah") and os.geteuid() == 0:
            peer = Buildah(folder / "buildah", system.image_archive())
        else:
            print("buildah is not here: install buildah and crun, and run as root")
        table = Table()
        measure(table, folder, ours, peer)
        table.finish()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        sys.exit(f"{error}")
    finally:
        ours.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
