"""The distribution's own kernel in QEMU's usual machine: what a virtual machine's boot costs where
nobody has made it fast. Its guest time is the measure for ours, since it grows and shrinks with the
host as ours does.
"""
import pathlib
import re
import subprocess
import threading

from peers import CannotRun

METAPACKAGE = "linux-image-cloud-amd64"  # Names the kernel of today, and holds none itself.
INIT = r"""
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  printf("first program after %ld ms\n", now.tv_sec * 1000 + now.tv_nsec / 1000000);
  fflush(stdout);
  for (;;) pause();
}
"""
BOOT_TIMEOUT_S = 60


def run(words, **options):
    try:
        return subprocess.run(words, check=True, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, **options).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise CannotRun(f"{words[0]}: {said[-200:].strip()}") from error


class StockMachine:
    """Boots to its first program. `folder` keeps kernel and initramfs."""

    def __init__(self, folder, source):
        self.folder = pathlib.Path(folder)
        depends = run(["apt-cache", "depends", METAPACKAGE])
        package = re.search(r"Depends: (linux-image-\S+)", depends)
        if not package:
            raise CannotRun(f"{METAPACKAGE} is no package here")
        run(["apt-get", "download", package.group(1)], cwd=self.folder)
        archive = next(self.folder.glob("linux-image-*.deb"))
        run(["dpkg-deb", "-x", archive, self.folder / "kernel"])
        archive.unlink()
        self.kernel = next(self.folder.glob("kernel/boot/vmlinuz-*"))
        (self.folder / "init.c").write_text(INIT)
        run(["cc", "-static", "-O2", "-o", self.folder / "init", self.folder / "init.c"])
        self.initramfs = self.folder / "initramfs.img"
        run([source / "guest/initramfs/build.sh", self.folder / "init", self.initramfs])
        self.guest_seconds = []  # Of each boot, by the guest's own clock.

    def boot(self):
        words = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m",
                 "768", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
                 "-kernel", self.kernel, "-initrd", self.initramfs, "-append",
                 "console=ttyS0 quiet tsc=reliable no_timer_check panic=-1"]
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        too_late = threading.Timer(BOOT_TIMEOUT_S, child.kill)  # Its output ends, and so we do.
        too_late.start()
        try:
            for line in child.stdout:
                if ready := re.search(rb"first program after (\d+) ms", line):
                    self.guest_seconds.append(int(ready.group(1)) / 1000)
                    return
            raise CannotRun("the distribution's kernel does not reach its first program")
        finally:
            too_late.cancel()
            child.kill()
            child.wait()
            child.stdout.close()
