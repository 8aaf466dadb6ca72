#!/usr/bin/env python3
"""A context of a million files: bounded memory and sane time, against tar of the same folder.
Usage: bench/context_bench.py [BUILD_FOLDER] [FILES]

  one file of it copied      at most 1 s: nothing else of the context is read
  all of it copied           at most 6 times `tar | gzip -1`, which reads, hashes and packs the same
  the same again             at most 6 times `find`, which looks at each file once; we also open
                             its place, read its attributes and look its digest up
  the daemon's peak          at most 1.5 KB for each file and 128 MB besides
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import system  # noqa: E402
from measure import Table, timed  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
FILES = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
FOLDER_FILES = 1000


def fill(context):
    for number in range(FILES):
        if number % FOLDER_FILES == 0:
            part = context / f"all/part{number // FOLDER_FILES}"
            part.mkdir(parents=True)
        with open(part / f"file{number}", "w", encoding="ascii") as file:
            file.write(f"{number}\n")
    (context / "one").write_text("one")


def shell(words, cwd):
    subprocess.run(["sh", "-c", words], check=True, cwd=cwd, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)


def peak_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def main():
    system.BUILD = BUILD
    ours = system.System()
    context = pathlib.Path(tempfile.mkdtemp(prefix="context-bench-"))
    table = Table()
    try:
        ours.start(image=False)
        fill(context)

        def build(dockerfile):
            (context / "Dockerfile").write_text(f"FROM scratch\n{dockerfile}\n")
            ours.run("build", "-q", "-t", "bench:1", str(context), timeout=3600)

        table.row(f"one of {FILES} files", [timed(lambda: build("COPY one /"))], against=[1.0],
                  limit=1.0)
        find = timed(lambda: shell("find all -printf '%s %m %U %T@ %p\\n'", context))
        tar = timed(lambda: shell("tar -cf - all | gzip -1", context))
        table.row("find", [find])
        table.row("tar | gzip -1", [tar])
        table.row("all of them", [timed(lambda: build("COPY all /all"))], against=[tar], limit=6.0)
        table.row("the same again", [timed(lambda: build("COPY all /all"))], against=[find],
                  limit=6.0)
        table.row("the daemon's peak", [peak_mb(ours.daemon_pid())], unit="MB", scale=1,
                  against=[128 + 1.5 * FILES / 1024], limit=1.0)
        table.finish()
    finally:
        ours.remove()
        shutil.rmtree(context, ignore_errors=True)


if __name__ == "__main__":
    main()
