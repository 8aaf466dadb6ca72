#!/usr/bin/env python3
"""What happens when the machine itself misbehaves: a VM that never answers, a full disk."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import system
from system import IMAGE, System, wait_until

SILENT_AGENT = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("this agent says nothing"); fflush(stdout); for (;;) pause(); }
"""


# It answers the greeting, and no more.
DYING_AGENT = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
static int agent_port(void) {
  DIR* ports = opendir("/sys/class/virtio-ports");
  for (struct dirent* each; ports && (each = readdir(ports));) {
    char path[300], name[64] = "";
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", each->d_name);
    FILE* file = fopen(path, "r");
    if (!file || !fgets(name, sizeof name, file) || strcmp(name, "container.agent\n")) continue;
    snprintf(path, sizeof path, "/dev/%s", each->d_name);
    return open(path, O_RDWR);
  }
  return -1;
}
int main(void) {
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  mount("sysfs", "/sys", "sysfs", 0, "");
  int port = agent_port();
  char byte = 0;
  while (byte != '\n')
    if (read(port, &byte, 1) == 1) write(port, &byte, 1);
    else usleep(1000);
  for (int heard = 0; heard < 200;) heard += read(port, &byte, 1) == 1;
}
"""


STACK = f"""\
name: full
services:
  a: {{image: '{IMAGE}', init: true, command: sleep 1000, volumes: ['data:/data']}}
volumes: {{data: }}
"""


class OddGuest:
    """A system whose guests have another agent."""

    def __init__(self, source):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-guest-"))
        install = self.folder / "install"
        shutil.copytree(system.BUILD / "bin", install / "bin")
        shutil.copytree(system.BUILD / "guest", install / "guest",
                        ignore=shutil.ignore_patterns("CMakeFiles", "*.cmake"))
        agent = self.folder / "agent"
        subprocess.run(["gcc", "-static", "-Os", "-x", "c", "-", "-o", agent], input=source,
                       text=True, check=True)
        image = install / "guest" / "initramfs.img"
        image.unlink()
        subprocess.run([system.SOURCE / "guest/initramfs/build.sh", agent, image], check=True)
        home = self.folder / "home"
        home.mkdir()
        self.system = System(home)
        self.system.program = install / "bin" / "container"
        self.system.start()

    def open_run(self):
        return self.system.open("run", "--name", "odd", "--network", "none", IMAGE, "true",
                                text=True)

    def remove(self):
        self.system.remove()
        shutil.rmtree(self.folder, True)


def setUpModule():
    """Half a minute of silence must pass: the other tests use it."""
    guest = OddGuest(SILENT_AGENT)
    unittest.addModuleCleanup(guest.remove)
    OddMachine.silent = guest
    OddMachine.waiting = guest.open_run()
    unittest.addModuleCleanup(OddMachine.waiting.communicate)
    unittest.addModuleCleanup(OddMachine.waiting.kill)


class OddMachine(unittest.TestCase):
    silent: OddGuest
    waiting: subprocess.Popen

    def assert_given_up(self, home, waiting, *words):
        """Told with the end of its console, and cleaned up."""
        _, problems = waiting.communicate(timeout=system.COMMAND_TIMEOUT_S)
        self.assertEqual(waiting.returncode, 1, problems)
        for each in words:
            self.assertIn(each, problems)
        self.assertNotEqual(home.status("odd"), "running")
        wait_until(lambda: home.machines() == [], "no VM to be left")

    def test_one_that_dies_of_being_told_what_it_is_says_so_with_its_last_words(self):
        guest = OddGuest(DYING_AGENT)
        self.addCleanup(guest.remove)
        self.assert_given_up(guest.system, guest.open_run(), "ended under it",
                             "Attempted to kill init")

    def test_one_that_is_silent_is_given_up(self):
        self.assert_given_up(self.silent.system, self.waiting, "this agent says nothing")


class SmallDisk(unittest.TestCase):
    """The app root on a small filesystem of its own."""
    size = "64m"

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-full-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "container-test",
                        str(self.folder)], check=True)
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.folder)], check=False)
        self.system = System(self.folder)
        self.addCleanup(self.system.remove)
        self.system.start()

    def fill(self, room=0):
        """To the last byte, but for `room` bytes."""
        ballast = self.folder / "ballast"
        with open(ballast, "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass
        os.truncate(ballast, ballast.stat().st_size - room)


@unittest.skipUnless(os.geteuid() == 0, "mounts a small filesystem")
class FullDisk(SmallDisk):
    def assert_told(self, done):
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"(?m)^Error: .*(No space left on device|disk is full)")
        self.assertIn("Make room on that disk, then run the same command again", done.stderr)

    def content(self):
        """All that a command might leave: files with their sizes, records, processes."""
        kept = ("log", "ballast", "state.db", "state.db-wal", "state.db.reserve")
        files = {str(path.relative_to(self.folder)): path.lstat().st_size
                 for path in self.folder.rglob("*") if not path.is_dir() and
                 not any(part in kept for part in path.relative_to(self.folder).parts)}
        lists = [self.system.json(*words, "--format", "json")
                 for words in (("ls", "-a"), ("volume", "ls"), ("network", "ls"), ("image", "ls"))]
        return files, lists, len(self.system.processes())

    def test_what_needs_room_fails_clearly_leaves_nothing_and_works_again_with_room(self):
        (self.folder / "compose.yaml").write_text(STACK)
        archive = self.folder.parent / f"{self.folder.name}.tar"
        self.addCleanup(archive.unlink)
        self.system.run("image", "save", "-o", archive, IMAGE)
        self.system.run("image", "rm", IMAGE)
        commands = [["image", "load", "-i", archive],
                    ["create", "--name", "late", "--network", "none", IMAGE, "true"],
                    ["up", "-d"],
                    ["run", "--rm", "--name", "brief", "-v", "more:/more", IMAGE, "echo", "fine"]]
        for command in commands:
            before = self.content()
            self.fill()
            self.assert_told(self.system.run(*command, check=False))
            self.assertEqual(self.content(), before, command)
            (self.folder / "ballast").unlink()
            done = self.system.run(*command)
        self.assertEqual(done.stdout, "fine\n")

    def test_however_little_room_there_is_a_container_is_whole_or_not_there(self):
        create = ["create", "--name", "tight", "--network", "none", IMAGE, "true"]
        self.system.run(*create)
        self.system.run("rm", "tight")
        before, failures = self.content(), 0
        for room in range(0, 1 << 20, 48 << 10):
            self.fill(room)
            done = self.system.run(*create, check=False)
            if done.returncode == 0:
                break
            failures += 1
            self.assert_told(done)
            self.assertEqual(self.content(), before, f"{room} bytes of room")
            (self.folder / "ballast").unlink()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(failures, 1, "no room, and a little")
        (self.folder / "ballast").unlink()
        self.assertEqual(self.system.run("start", "-a", "tight").returncode, 0)

    def test_what_makes_room_works_without_any_also_after_a_restart(self):
        self.system.run("run", "-d", "--init", "--name", "old", IMAGE, "sleep", "1000")
        self.system.run("create", "--name", "older", "--network", "none", IMAGE, "true")
        self.fill()
        self.system.kill_daemon()
        self.system.run("system", "start")
        self.assertEqual(self.system.output("exec", "old", "echo", "here"), "here\n")
        self.system.run("stop", "old")
        self.system.run("rm", "old", "older")
        self.assertEqual(self.system.containers(), {})
        self.system.run("image", "rm", IMAGE)
        self.system.run("system", "stop")
        self.system.run("system", "start")
        self.assertEqual(self.system.json("image", "ls", "--format", "json"), [])


WRITER = """\
while ! [ -e /go ]; do sleep 0.1; done
dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null && sync && echo written
sleep 1000
"""
# One that ends when it is asked to, and says so.
POLITE = """\
trap 'echo bye; exit 0' TERM
while ! [ -e /go ]; do sleep 0.1; done
dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null && sync && echo written
sleep 1000 & wait
"""
# The second time it tells what the first time has left.
ENDER = """\
[ -e /big ] && exec wc -c /big
while ! [ -e /go ]; do sleep 0.1; done
dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null
"""


@unittest.skipUnless(os.geteuid() == 0, "mounts a small filesystem")
class FullDiskUnderGuests(SmallDisk):
    size = "256m"

    def paused(self, name):
        entry = self.system.containers()[name]
        return entry.get("pausedReason", "") if entry["status"] == "paused" else ""

    def test_machines_that_find_no_room_wait_for_it_lose_nothing_and_can_be_ended(self):
        home = self.system
        for name in ("writer", "victim", "killed"):
            home.run("run", "-d", "--init", "--name", name, "--network", "none", IMAGE, "sh", "-c",
                     WRITER)
        self.fill()
        attached = home.open("exec", "victim", "sleep", "1000")
        for name in ("writer", "victim", "killed"):
            home.run("exec", "-d", name, "touch", "/go")
        for name in ("writer", "victim", "killed"):
            why = wait_until(lambda name=name: self.paused(name), f"{name} to be paused")
            self.assertIn("the host's disk is full", why)
            self.assertIn(str(self.folder), why)
        self.assertRegex(home.output("ls"), r"(?m)^writer .* paused ")
        refused = home.run("exec", "writer", "true", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("'writer' is paused: the host's disk is full", refused.stderr)

        began = time.monotonic()
        home.run("stop", "victim")
        home.run("rm", "victim")
        self.assertIn(b"Warning: container 'victim' is paused: the host's disk is full",
                      attached.communicate(timeout=20)[1])
        home.run("kill", "killed")
        wait_until(lambda: home.status("killed") == "stopped", "the killed one to end")
        self.assertLess(time.monotonic() - began, 10, "nobody waits for a guest that cannot run")

        home.kill_daemon()
        home.run("system", "start")
        wait_until(lambda: self.paused("writer"), "the next daemon to see it as well")
        wait_until(lambda: time.monotonic() - began > 5, "its clock to be far behind")
        (self.folder / "ballast").unlink()
        wait_until(lambda: home.status("writer") == "running", "it to go on by itself")
        wait_until(lambda: home.output("logs", "writer") == "written\n", "its write to end well")
        self.assertEqual(home.output("exec", "writer", "wc", "-c", "/big").split()[0],
                         str(24 << 20))
        self.assertIn("container 'writer' goes on", home.daemon_log())
        wait_until(lambda: abs(int(home.output("exec", "writer", "date", "+%s")) - time.time()) < 2,
                   "its clock to be put right")

    def test_a_stop_that_finds_room_again_lets_the_container_end_by_itself(self):
        home = self.system
        home.run("run", "-d", "--name", "polite", "--network", "none", IMAGE, "sh", "-c", POLITE)
        self.fill()
        home.run("exec", "-d", "polite", "touch", "/go")
        paused = time.monotonic()
        wait_until(lambda: self.paused("polite"), "it to be paused")
        # By now the daemon looks for room seldom: the stop is there first.
        wait_until(lambda: time.monotonic() - paused > 4, "some time to pass")
        (self.folder / "ballast").unlink()
        home.run("stop", "polite")
        self.assertEqual(home.output("logs", "polite"), "written\nbye\n")

    def test_what_a_container_wrote_last_waits_for_room_after_its_end(self):
        home = self.system
        for name in ("ender", "other"):
            home.run("run", "-d", "--name", name, "--network", "none", IMAGE, "sh", "-c", ENDER)
        self.fill()
        for name in ("ender", "other"):
            home.run("exec", "-d", name, "touch", "/go")
        for name in ("ender", "other"):
            wait_until(lambda name=name: home.status(name) == "stopped", "its process to end")
        ended = time.monotonic()
        held = home.run("start", "-a", "ender", check=False)
        self.assertEqual((held.returncode, held.stdout), (1, ""))
        self.assertIn("Make room on that disk", held.stderr)
        home.run("rm", "other")
        wait_until(lambda: time.monotonic() - ended > 6, "longer than a guest may take to end")
        self.assertEqual(len(home.machines()), 1, "only the one that still has to write")
        (self.folder / "ballast").unlink()
        self.assertEqual(home.output("start", "-a", "ender").split()[0], str(24 << 20))


if __name__ == "__main__":
    system.main()
