#!/usr/bin/env python3
"""How host folders reach a machine: our file server behind the guest's FUSE against 9p and virtiofs
of the same QEMU, with the same kernel. Usage: bench/files_bench.py [BUILD_FOLDER] [RUNS]

  workload   500 small files made, looked at, read and removed; 4 KiB writes each followed by
             fdatasync; 64 MiB written and read back. Milliseconds for each
  start      what a shared folder adds to `container run`; for virtiofs, which a template cannot
             hold: a boot, and what a copy of the memory a clone has touched would cost instead
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import guest_boot_test  # noqa: E402
import system  # noqa: E402
from measure import Table, interleaved, timed  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 15
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
FIGURES = ("create_ms", "stat_ms", "read_ms", "unlink_ms", "sync_ms", "write_ms_per_mib",
           "read_ms_per_mib")
GUEST_SECONDS_MAX = 60
MEMORY = "1104M"  # As much as a container that asks for nothing gets.


class CannotRun(Exception):
    pass


class Guest:
    """A bare machine whose first process mounts `kind` and does the work."""

    def __init__(self, folder, program):
        self.folder = folder
        self.khz = guest_boot_test.tsc_khz()
        self.initramfs = folder / "initramfs.img"
        subprocess.run([HERE.parent / "guest/initramfs/build.sh", program, self.initramfs],
                       check=True)

    def arguments(self, kind, shared):
        line = (f"console=ttyS0 quiet loglevel=4 reboot=t panic=-1 tsc_early_khz={self.khz} "
                f"tsc=reliable lpj={self.khz * 4} lapic_timer_hz=1000000000 no_timer_check "
                f"share={kind}")
        if kind == "9p":
            share = ["-fsdev", f"local,id=share,path={shared},security_model=none",
                     "-device", "virtio-9p-device,fsdev=share,mount_tag=share"]
        else:
            share = ["-chardev", f"socket,id=share,path={self.folder}/virtiofs.sock",
                     "-device", "vhost-user-fs-device,chardev=share,tag=share"]
        return ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-machine", "microvm,acpi=off,pit=off,pic=off,rtc=on,isa-serial=on,"
                "x-option-roms=off,auto-kernel-cmdline=on,memory-backend=ram",
                "-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on",
                "-accel", "tcg,tb-size=64", "-cpu", "max", "-m", MEMORY,
                "-kernel", str(BUILD / "guest/vmlinux"), "-initrd", str(self.initramfs),
                "-append", line, "-chardev", "stdio,id=console,signal=off",
                "-serial", "chardev:console", "-blockdev",
                json.dumps({"driver": "file", "node-name": "modules", "read-only": True,
                            "filename": str(BUILD / "guest/modules.erofs")}),
                "-device", "virtio-blk-device,drive=modules", *share]

    def run(self, kind, shared):
        server = None
        if kind == "virtiofs":
            if not os.path.exists(VIRTIOFSD):
                raise CannotRun(f"there is no {VIRTIOFSD}; it comes with qemu-system-common")
            read_end, write_end = os.pipe()
            server = subprocess.Popen(
                [VIRTIOFSD, f"--socket-path={self.folder}/virtiofs.sock", "-o",
                 f"source={shared}", "-o", "sandbox=chroot", "-o", "cache=none", "-f",
                 "--thread-pool-size=1"], stdin=subprocess.DEVNULL, stdout=write_end,
                stderr=write_end)
            os.close(write_end)
            os.read(read_end, 1)  # Its first words come when it listens.
            system.wait_until(lambda: (self.folder / "virtiofs.sock").exists(), "virtiofsd")
        try:
            done = subprocess.run(self.arguments(kind, shared), check=False, timeout=GUEST_SECONDS_MAX,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise CannotRun(f"its guest does not end: {said[-300:].strip()}") from error
        finally:
            if server:
                server.kill()
                server.wait()
                os.close(read_end)
        if "end" not in done.stdout.split():
            raise CannotRun(done.stdout[-300:].strip())
        return figures(done.stdout)


def figures(text):
    return {words[1]: float(words[2]) for words in map(str.split, text.splitlines())
            if words[:1] == ["figure"]}


def workloads(table, home, folder, program):
    shared = {name: folder / name for name in ("ours", "9p", "virtiofs")}
    for path in shared.values():
        path.mkdir()
    shutil.copy(program, shared["ours"] / "workload")
    guest = Guest(folder, program)

    def ours():
        return figures(home.output("run", "--rm", "--network", "none", "-v",
                                   f"{shared['ours']}:/share", system.IMAGE, "/share/workload",
                                   "/share"))
    calls = {"ours": ours}
    for kind in ("9p", "virtiofs"):
        try:
            guest.run(kind, shared[kind])
            calls[kind] = lambda kind=kind: guest.run(kind, shared[kind])
        except (CannotRun, system.Failed) as error:
            print(f"no ratios against {kind}, it cannot run here: {error}")
    seen = {kind: [] for kind in calls}
    for _ in range(RUNS):
        for kind, call in calls.items():
            seen[kind].append(call())
    for figure in FIGURES:
        values = {kind: [run[figure] for run in runs] for kind, runs in seen.items()}
        for kind in values:
            if kind != "ours":
                table.row(f"{figure}, {kind}", values[kind], scale=1)
                table.row(f"{figure}, ours to {kind}", values["ours"], scale=1,
                          against=values[kind], limit=1.0)


def starts(table, home, folder):
    shared = folder / "start"
    shared.mkdir()
    plain = ("run", "--rm", "--network", "none")
    times = interleaved({
        "without": lambda: home.run(*plain, system.IMAGE, "true"),
        "with": lambda: home.run(*plain, "-v", f"{shared}:/share", system.IMAGE, "true"),
        "boot": lambda: home.run(*plain, "--boot", "cold", system.IMAGE, "true"),
    }, RUNS)
    table.row("run", times["without"])
    table.row("run with a shared folder", times["with"], against=times["without"])
    table.row("run that boots, as with virtiofs it must", times["boot"], against=times["without"])
    memory = next(home.app_root.glob("templates/machines/*/memory"))

    def copy():
        source = os.open(memory, os.O_RDONLY)
        target = os.memfd_create("copy")
        at, size = 0, os.fstat(source).st_size
        os.truncate(target, size)
        while True:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(source, at, os.SEEK_HOLE)
            while at < end:
                at += os.pwrite(target, os.pread(source, min(1 << 20, end - at), at), at)
        os.close(source)
        os.close(target)
    table.row("copying a template's memory for one machine", [timed(copy) for _ in range(RUNS)])


def main():
    system.BUILD = BUILD
    home = system.System()
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = folder / "workload"
        subprocess.run(["gcc", "-static", "-O2", "-o", program, HERE / "files_workload.c"],
                       check=True)
        try:
            home.start()
            home.run("run", "--rm", "--network", "none", system.IMAGE, "true")
            templates = home.app_root / "templates/machines"
            system.wait_until(lambda: len(list(templates.glob("*/template.json"))) == 2,
                              "the templates of both shapes")
            workloads(table, home, folder, program)
            starts(table, home, folder)
        finally:
            home.remove()
    table.finish()


if __name__ == "__main__":
    main()
