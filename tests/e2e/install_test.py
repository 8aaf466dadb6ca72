#!/usr/bin/env python3
"""What `cmake --install` leaves is a whole system, wherever it is put; and two systems, one found by
CONTAINER_APP_ROOT and one by XDG_DATA_HOME, run side by side and know nothing of each other."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import system
from system import IMAGE, OrdinaryUser, System, wait_until


def install(prefix):
    subprocess.run(["cmake", "--install", system.BUILD, "--prefix", prefix], check=True,
                   stdout=subprocess.DEVNULL)
    for path in [prefix, *prefix.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))


class Installed(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-install-"))
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder, True)

    def test_a_moved_installation_works_without_its_build_tree_and_under_another_name(self):
        first, moved = self.folder / "prefix", self.folder / "elsewhere" / "opt"
        install(first)
        moved.parent.mkdir()
        first.rename(moved)
        self.assertEqual(sorted(path.name for path in (moved / "bin").iterdir()), ["container"])
        link = self.folder / "link"
        link.symlink_to(moved / "bin" / "container")
        home = System()
        self.addCleanup(home.remove)
        home.program = link
        home.start()
        done = home.run("run", "--rm", IMAGE, "uname", "-r")
        self.assertEqual(done.stdout.strip(), (moved / "share/container/version").read_text().strip())
        used = {path for pid in home.processes()
                for path in [os.readlink(f"/proc/{pid}/exe")] if "container" in path}
        self.assertTrue(used)
        for path in used:
            self.assertTrue(path.startswith(f"{moved}/"), path)


@unittest.skipUnless(os.geteuid() == 0, "needs root to be two users")
class SideBySide(unittest.TestCase):
    def test_two_systems_know_nothing_of_each_other(self):
        user = OrdinaryUser()
        self.addCleanup(user.remove)
        prefix = user.folder / "prefix"
        install(prefix)
        named, found = System(), user.system(prefix / "bin" / "container", data_home=True)
        for home in (named, found):
            self.addCleanup(home.remove)
        named.program = found.program
        for home, archive in ((named, system.image_archive()), (found, user.archive())):
            home.start(image=False)
            home.run("image", "load", "-i", archive)
            home.run("run", "-d", "--name", "twin", "-p", f"{system.free_port()}:80", IMAGE,
                     "sleep", "1000")
        self.assertTrue((found.app_root / "state.db").exists(), "state below XDG_DATA_HOME")
        self.assertNotEqual(named.json("system", "status", "--format", "json")["appRoot"],
                            found.json("system", "status", "--format", "json")["appRoot"])
        self.assertFalse(set(named.processes()) & set(found.processes()))
        self.assertEqual(len(named.machines()), 1)
        self.assertEqual(len(found.machines()), 1)

        named.run("rm", "-f", "twin")
        named.run("image", "rm", IMAGE)
        named.run("system", "stop")
        wait_until(lambda: not named.machines() and named.daemon_pid() is None,
                   "the one system to end")
        self.assertEqual(found.status("twin"), "running")
        self.assertEqual(found.output("exec", "twin", "echo", "untouched"), "untouched\n")
        found.run("run", "--rm", "--network", "none", IMAGE, "true")
        found.run("system", "stop")
        wait_until(lambda: found.daemon_pid() is None, "the other system to end")


if __name__ == "__main__":
    system.main()
