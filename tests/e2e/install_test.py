#!/usr/bin/env python3
"""What `cmake --install` leaves is a whole system, wherever it is put; what `system stop` leaves is
nothing; and two systems, one found by CONTAINER_APP_ROOT and one by XDG_DATA_HOME, run side by side
and know nothing of each other."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.request

import system
from system import IMAGE, OrdinaryUser, System, Traces, host_network


def install(prefix):
    subprocess.run(["cmake", "--install", system.BUILD, "--prefix", prefix], check=True,
                   stdout=subprocess.DEVNULL)
    for path in [prefix, *prefix.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))


def fetch(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return answer.read().decode()


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
        used = {path for path in map(home.executable_of, home.processes()) if "container" in path}
        self.assertTrue(used)
        for path in used:
            self.assertTrue(path.startswith(f"{moved}/"), path)


STACK = f"""\
name: leaving
services:
  web: {{image: '{IMAGE}', init: true, command: sleep 1000, ports: ['0:80']}}
"""


class End(unittest.TestCase):
    """After `system stop` nothing of the system is left, whatever came before."""

    def setUp(self):
        self.host = host_network()
        self.home = System()
        self.addCleanup(self.home.remove)
        self.home.start()

    def network_processes(self):
        return [pid for pid in self.home.processes()
                if self.home.program_of(pid).endswith("/container-network")]

    def stop_and_look(self):
        traces = Traces(self.home)
        self.home.run("system", "stop")
        self.assertEqual(traces.left(), {})
        self.assertEqual(host_network(), self.host)
        return traces

    def test_containers_that_ran_and_the_networks_they_were_on_come_back(self):
        port = system.free_port()
        self.home.run("run", "-d", "--name", "web", "--init", "-p", f"{port}:80", IMAGE, "httpd",
                      "-f", "-h", "/etc")
        (self.home.folder / "compose.yaml").write_text(STACK)
        self.home.run("up", "-d")
        self.assertIn("root:", fetch(port, "passwd"))
        traces = self.stop_and_look()
        self.assertEqual(len(traces.namespaces), 2, "one for each network")
        self.assertGreater(traces.sockets, 0)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

        self.home.run("system", "start")
        self.assertEqual({each["id"]: each["state"]
                          for each in self.home.json("network", "ls", "--format", "json")},
                         {"default": "running", "leaving_default": "running"})
        self.assertEqual(self.network_processes(), [], "nobody is on a network yet")
        self.home.run("start", "web")
        self.assertIn("root:", fetch(port, "passwd"))
        self.assertNotIn("does not answer", self.home.daemon_log())
        self.home.run("down")
        self.home.run("rm", "-f", "web")
        self.stop_and_look()

    def test_a_daemon_that_was_killed_and_a_network_whose_process_was_too(self):
        self.home.run("run", "-d", "--init", "--name", "one", IMAGE, "sleep", "1000")
        traces = Traces(self.home)
        self.home.kill_daemon()
        for pid in self.network_processes():
            os.kill(pid, signal.SIGKILL)
        self.home.run("system", "start")
        self.stop_and_look()
        self.assertEqual(traces.left(), {}, "what the first daemon had")


    def test_a_stop_without_a_daemon_ends_what_a_killed_one_left(self):
        self.home.run("run", "-d", "--init", "--name", "web", IMAGE, "sh", "-c",
                      "trap 'exit 3' TERM; while :; do sleep 0.1; done")
        first = set(self.home.machines())
        self.home.run("run", "-d", "--init", "--name", "again", "--restart", "always", IMAGE,
                      "sleep", "1000")
        traces = Traces(self.home)
        self.home.kill_daemon()
        os.kill((set(self.home.machines()) - first).pop(), signal.SIGKILL)
        done = self.home.run("system", "stop")
        self.assertRegex(done.stderr, r"not running, but 2 virtual machines and 1 network .* there")
        self.assertEqual(traces.left(), {})
        self.assertEqual(host_network(), self.host)
        again = self.home.run("system", "stop")
        self.assertEqual(again.stderr, "container system is not running\n")
        self.home.run("system", "start")
        web = self.home.containers()["web"]
        self.assertEqual((web["status"], web["exitCode"]), ("stopped", 3), "ended in its own way")


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
        port = system.free_port()
        for home, archive in ((named, system.image_archive()), (found, user.archive())):
            home.start(image=False)
            home.run("image", "load", "-i", archive)
            published = system.free_port() if home is named else port
            home.run("run", "-d", "--init", "--name", "twin", "-p", f"{published}:80", IMAGE,
                     "httpd", "-f", "-h", "/etc")
        self.assertTrue((found.app_root / "state.db").exists(), "state below XDG_DATA_HOME")
        self.assertNotEqual(named.json("system", "status", "--format", "json")["appRoot"],
                            found.json("system", "status", "--format", "json")["appRoot"])
        ended, stays = Traces(named), Traces(found)
        self.assertFalse(ended.pids & stays.pids)
        self.assertFalse(ended.namespaces & stays.namespaces)
        self.assertEqual(len(named.machines()), 1)
        self.assertEqual(len(found.machines()), 1)

        named.run("rm", "-f", "twin")
        named.run("image", "rm", IMAGE)
        named.run("system", "stop")
        self.assertEqual(ended.left(), {})
        self.assertEqual(found.status("twin"), "running")
        self.assertEqual(found.output("exec", "twin", "echo", "untouched"), "untouched\n")
        self.assertIn("root:", fetch(port, "passwd"))
        found.run("run", "--rm", "--network", "none", IMAGE, "true")
        stays = Traces(found)
        found.run("system", "stop")
        self.assertEqual(stays.left(), {})


if __name__ == "__main__":
    system.main()
