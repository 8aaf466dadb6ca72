#!/usr/bin/env python3
"""Boots the guest kernel for real, under emulation, with the device set every container's VM has.

What must hold: it finds one image disk made of many files, a scratch disk, a port, a NIC; it ends
the VM when told to and when it panics; and it never hangs on a busy host (the clock options see to
that). Usage: guest_boot_test.py GUEST_FOLDER, with vmlinux in it.
"""
import concurrent.futures
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
import zlib

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
GUEST = pathlib.Path()
SECTOR = 512
BOOT_TIMEOUT_S = 60
LAYERS = 24
BUSY_BOOTS = 50
BOOTS_AT_ONCE = 2


def tsc_khz():
    """The rate of the host's time stamp counter, which is also that of an emulated guest."""
    source = '#include <stdio.h>\n#include <time.h>\n#include <x86intrin.h>\n' \
        'static long long now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC_RAW,&t);' \
        'return t.tv_sec*1000000000LL+t.tv_nsec;}\n' \
        'int main(void){long long a=now(),b;unsigned long long x=__rdtsc();' \
        'do b=now();while(b-a<100000000);printf("%llu",(__rdtsc()-x)*1000000ULL/(b-a));}\n'
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "tsc")
        subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", program], input=source, text=True,
                       check=True)
        return int(subprocess.check_output([program]))


def partition_table(layer_sectors, total_sectors):
    """Protective MBR and GPT: (bytes before the first layer, bytes at the end of the disk)."""
    first = (1 << 20) // SECTOR
    entries, position = b"", first
    kind = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    for number, sectors in enumerate(layer_sectors, 1):
        entries += kind + uuid.UUID(int=number).bytes_le
        entries += struct.pack("<QQQ", position, position + sectors - 1, 0) + b"\0" * 72
        position += sectors
    entries = entries.ljust(128 * 128, b"\0")

    def header(own, other, table):
        raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, own, other, first,
                          total_sectors - 34, uuid.UUID(int=0).bytes_le, table, 128, 128,
                          zlib.crc32(entries))
        return (raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]).ljust(SECTOR, b"\0")

    mbr = b"\0" * 446 + struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, 0xFFFFFFFF)
    mbr = mbr.ljust(510, b"\0") + b"\x55\xaa"
    head = (mbr + header(1, total_sectors - 1, 2) + entries).ljust(first * SECTOR, b"\0")
    return head, entries + header(total_sectors - 1, 1, total_sectors - 33)


class Machine:
    """Files and arguments of one VM, made once for all tests."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.khz = tsc_khz()
        probe = self.folder / "probe"
        subprocess.run(["gcc", "-static", "-Os", "-Wall", "-Wextra", "-Werror", "-o", probe,
                        HERE / "boot_probe.c"], check=True)
        subprocess.run([SOURCE / "guest/initramfs/build.sh", probe, self.folder / "initramfs.img"],
                       check=True)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", self.folder / "scratch.img", "64M"],
                       check=True)
        self.make_image_disk(LAYERS)

    def make_image_disk(self, count):
        names = []
        for number in range(1, count + 1):
            content = self.folder / f"layer-{number}"
            content.mkdir()
            (content / "name").write_text(f"layer-{number}")
            (content / "data").write_bytes(bytes([number]) * (5000 * (number % 5)))
            names.append(self.folder / f"layer-{number}.erofs")
            subprocess.run(["mkfs.erofs", "--quiet", "-T0", names[-1], content], check=True)
        self.describe_image_disk(names)

    def describe_image_disk(self, names):
        sectors = [name.stat().st_size // SECTOR for name in names]
        total = (1 << 40) // SECTOR
        head, tail = partition_table(sectors, total)
        (self.folder / "head").write_bytes(head)
        (self.folder / "tail").write_bytes(tail)
        (self.folder / "pad").touch()
        extents = [(len(head) // SECTOR, "head")]
        extents += [(size, name.name) for size, name in zip(sectors, names)]
        tail_sectors = len(tail) // SECTOR
        extents += [(total - sum(size for size, _ in extents) - tail_sectors, "pad"),
                    (tail_sectors, "tail")]
        lines = ["# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff",
                 'createType="twoGbMaxExtentFlat"']
        lines += [f'RW {size} FLAT "{self.folder / name}" 0' for size, name in extents]
        (self.folder / "image.vmdk").write_text("\n".join(lines) + "\n")

    def arguments(self, extra):
        def block(**options):
            return ["-blockdev", json.dumps({k.replace("_", "-"): v for k, v in options.items()})]

        def device(**options):
            return ["-device", json.dumps(options)]

        command_line = (f"console=ttyS0 quiet loglevel=4 reboot=t panic=-1 "
                        f"tsc_early_khz={self.khz} tsc=reliable lpj={self.khz * 4} "
                        f"lapic_timer_hz=1000000000 no_timer_check "
                        f"{extra}")
        return ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-M", "microvm,acpi=off,pit=off,pic=off,rtc=on,isa-serial=on,"
                "x-option-roms=off,auto-kernel-cmdline=on", "-accel", "tcg,tb-size=64",
                "-cpu", "max,erms=off,fsrm=off", "-m", "256M", "-kernel", str(GUEST / "vmlinux"),
                "-initrd", str(self.folder / "initramfs.img"), "-append", command_line,
                "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
                *block(driver="file", node_name="image-file", read_only=True,
                       filename=str(self.folder / "image.vmdk")),
                *block(driver="vmdk", node_name="image", file="image-file", read_only=True),
                *block(driver="file", node_name="scratch-file", locking="off",
                       filename=str(self.folder / "scratch.img")),
                *block(driver="raw", node_name="scratch", file="scratch-file"),
                *device(driver="virtio-blk-device", drive="image", serial="image"),
                *device(driver="virtio-blk-device", drive="scratch", serial="scratch"),
                *device(driver="virtio-serial-device", id="serial", max_ports=4),
                "-chardev", "null,id=agent",
                *device(driver="virtserialport", bus="serial.0", nr=1, chardev="agent",
                        name="container.agent"),
                "-chardev", "null,id=files",
                *device(driver="virtserialport", bus="serial.0", nr=2, chardev="files",
                        name="container.files"),
                *device(driver="virtio-balloon-device", **{"free-page-reporting": True}),
                "-netdev", "hubport,hubid=0,id=net0",
                *device(driver="virtio-net-device", netdev="net0")]

    def boot(self, extra=""):
        """(facts, console text, seconds). A VM that does not end by itself is a TimeoutExpired."""
        begun = time.monotonic()
        ended = subprocess.run(self.arguments(extra), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               timeout=BOOT_TIMEOUT_S, check=False)
        text = ended.stdout.decode(errors="replace")
        facts = [line.strip().split(" ", 2)[1:] for line in text.splitlines()
                 if line.startswith("probe ")]
        return facts, text, time.monotonic() - begun


class GuestBoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="container-boot-")
        cls.machine = Machine(cls.folder.name)
        cls.seen = cls.machine.boot()[:2]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_the_guest_finds_what_every_container_needs(self):
        facts, text = self.seen
        self.assertIn(["end"], facts, text)
        release = (GUEST / "version").read_text().strip()
        for fact in (["release", release], ["config", "yes"], ["scratch", "ok"],
                     ["network", "yes"], ["port", "container.agent"]):
            self.assertIn(fact, facts, text)
        for name in ("overlay", "ext4", "erofs", "tmpfs", "cgroup2", "fuse", "bpf"):
            self.assertIn(["filesystem", f"{name} yes"], facts, text)

    def test_one_disk_of_many_files_shows_each_as_a_partition(self):
        facts, text = self.seen
        self.assertIn(["partitions", str(LAYERS)], facts, text)
        for number in range(1, LAYERS + 1):
            self.assertIn(["partition", f"{number} layer-{number}"], facts, text)

    def test_the_table_can_be_read_again_as_a_clone_will_need(self):
        facts, text = self.seen
        self.assertIn(["reread", "ok"], facts, text)
        self.assertIn(["again", str(LAYERS)], facts, text)

    def test_a_panic_ends_the_machine_and_is_on_the_console(self):
        facts, text, _ = self.machine.boot("probe.panic")
        self.assertIn(["end"], facts, text)
        self.assertIn("Kernel panic - not syncing: Attempted to kill init", text)

    def test_no_boot_hangs_beside_busy_loops(self):
        processors = os.cpu_count() or 1
        # Whoever boots is one of several on each processor, so it is put aside again and again.
        loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(processors)]
        try:
            with concurrent.futures.ThreadPoolExecutor(BOOTS_AT_ONCE * processors) as pool:
                boots = list(pool.map(self.machine.boot, ["probe.boot_only"] * BUSY_BOOTS))
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        firsts = []
        for facts, text, _ in boots:
            self.assertIn(["end"], facts, text)
            firsts.append(float(next(fact[1] for fact in facts if fact[0] == "first")))
        print(f"guest time to the first process, a busy loop and {BOOTS_AT_ONCE} boots on each "
              f"processor: median {statistics.median(firsts):.3f} s of {len(firsts)}, "
              f"longest boot {max(seconds for _, _, seconds in boots):.1f} s", file=sys.stderr)


if __name__ == "__main__":
    GUEST = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
