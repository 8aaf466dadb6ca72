#!/usr/bin/env python3
"""What happens when the machine itself misbehaves: a VM that never answers, a full disk."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import system
from system import IMAGE, System, wait_until

SILENT_AGENT = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("this agent says nothing"); fflush(stdout); for (;;) pause(); }
"""


class SilentMachine(unittest.TestCase):
    """A guest whose agent never speaks."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-silent-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        install = self.folder / "install"
        shutil.copytree(system.BUILD / "bin", install / "bin")
        shutil.copytree(system.BUILD / "guest", install / "guest",
                        ignore=shutil.ignore_patterns("CMakeFiles", "*.cmake"))
        agent = self.folder / "agent"
        subprocess.run(["gcc", "-static", "-Os", "-x", "c", "-", "-o", agent], input=SILENT_AGENT,
                       text=True, check=True)
        image = install / "guest" / "initramfs.img"
        image.unlink()
        subprocess.run([system.SOURCE / "guest/initramfs/build.sh", agent, image], check=True)
        home = self.folder / "home"
        home.mkdir()
        self.system = System(home)
        self.system.program = install / "bin" / "container"
        self.addCleanup(self.system.remove)
        self.system.start()

    def test_it_is_given_up_with_the_end_of_its_console_and_cleaned_up(self):
        done = self.system.run("run", "--name", "mute", "--network", "none", IMAGE, "true",
                               check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("this agent says nothing", done.stderr)
        self.assertNotEqual(self.system.status("mute"), "running")
        wait_until(lambda: self.system.machines() == [], "no VM to be left")


@unittest.skipUnless(os.geteuid() == 0, "mounts a small filesystem")
class FullDisk(unittest.TestCase):
    """The app root on a filesystem of 48 MiB, in a mount namespace the daemon inherits."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-full-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "container-test",
                        str(self.folder)], check=True)
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.folder)], check=False)
        self.system = System(self.folder)
        self.addCleanup(self.system.remove)
        self.system.start()

    def test_creating_fails_clearly_and_everything_works_again_with_room(self):
        ballast = self.folder / "ballast"
        with open(ballast, "wb") as file:
            try:
                while True:
                    file.write(b"x" * 65536)
            except OSError:
                pass
        done = self.system.run("create", "--name", "late", "--network", "none", IMAGE, "true",
                               check=False)
        if done.returncode != 0:
            self.assertRegex(done.stderr, "No space left|disk is full|no space")
        self.system.run("rm", "-f", "late", check=False)
        ballast.unlink()
        done = self.system.run("run", "--rm", "--name", "after", "--network", "none", IMAGE,
                               "echo", "fine")
        self.assertEqual(done.stdout, "fine\n")


if __name__ == "__main__":
    system.main()
