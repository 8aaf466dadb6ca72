#!/usr/bin/env python3
"""The hello stack from first `up` to nothing left, as root and as an ordinary user; and what a
stack withstands: mistakes, two hands at once, Ctrl-C, taken ports."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import system
from system import IMAGE, SOURCE, System, SystemTest, free_port, wait_until


def fetch(port, path=""):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return None


def hello_stack(folder, port):
    """The example, on a port that is free here."""
    target = pathlib.Path(folder) / "hello"
    shutil.copytree(SOURCE / "examples/stacks/hello", target, dirs_exist_ok=True)
    file = target / "compose.yaml"
    file.write_text(file.read_text().replace("8080:80", f"{port}:80"))
    return target


class Hello:
    """The whole story; the subclasses say who plays it."""

    def test_hello(self):
        home = self.system
        port = free_port()
        stack = hello_stack(home.folder, port)
        self.give_away(stack)

        plan = home.output("plan", cwd=stack)
        for address in ("service.web[1]", "service.visitor[1]"):
            self.assertIn(address, plan)
        self.assertEqual(home.containers(), {}, "plan changes nothing")

        home.run("up", "-d", cwd=stack)
        self.assertEqual({name: entry["status"] for name, entry in home.containers().items()},
                         {"hello-web-1": "running", "hello-visitor-1": "running"})
        self.assertIn("virtual machine of its own",
                      wait_until(lambda: fetch(port), "the published port to answer"))
        wait_until(lambda: "virtual machine of its own" in home.output("logs", "hello-visitor-1"),
                   "one service to fetch a page from the other by its name")
        self.assertIn("virtual machine of its own", home.output(
            "exec", "hello-visitor-1", "wget", "-q", "-O", "-", "http://web/"))

        again = home.output("plan", cwd=stack)
        self.assertIn("No changes", again)
        before = self.machines()
        home.run("up", "-d", cwd=stack)
        self.assertEqual(self.machines(), before, "an up without changes touches nothing")

        file = stack / "compose.yaml"
        file.write_text(file.read_text().replace("sleep 5", "sleep 6"))
        changed = home.output("plan", cwd=stack)
        self.assertIn("service.visitor[1]", changed)
        self.assertNotIn("service.web", changed)
        self.assertIn("command", changed)
        home.run("up", "-d", cwd=stack)
        after = self.machines()
        self.assertEqual(after["hello-web-1"], before["hello-web-1"], "web was not touched")
        self.assertNotEqual(after["hello-visitor-1"], before["hello-visitor-1"])

        home.run("down", cwd=stack)
        self.assertEqual(home.containers(), {})
        self.assertIsNone(fetch(port))
        home.run("system", "stop")
        wait_until(lambda: not home.processes(), "every process of the system to end")
        self.assertEqual([name for name in home.run_files() if not name.endswith(".lock")], [])
        self.assertEqual(list((home.app_root / "containers").glob("*")), [])

    def machines(self):
        """Of each container the process its machine is; two of them may begin in one second."""
        states = self.system.run_base.rglob("vms/*/state.json")
        return {path.parent.name: json.loads(path.read_text())["process"]["pid"]
                for path in states}


class HelloAsRoot(Hello, unittest.TestCase):
    def setUp(self):
        self.system = System()
        self.addCleanup(self.system.remove)
        self.system.start()

    def give_away(self, folder):
        del folder


@unittest.skipUnless(os.geteuid() == 0, "needs root to become another user")
class HelloAsOrdinaryUser(Hello, unittest.TestCase):
    def setUp(self):
        self.user = system.OrdinaryUser()
        self.addCleanup(self.user.remove)
        # The checkout may lie where another user cannot look: the programs go where all can.
        install = self.user.folder / "install"
        shutil.copytree(system.BUILD / "bin", install / "bin")
        shutil.copytree(system.BUILD / "guest", install / "guest",
                        ignore=shutil.ignore_patterns("CMakeFiles", "*.cmake"))
        self.system = self.user.system(install / "bin" / "container")
        self.addCleanup(self.system.remove)
        self.system.start(image=False)
        self.system.run("image", "load", "-i", self.user.archive())

    def give_away(self, folder):
        self.user.own(folder, *folder.rglob("*"))


TWENTY_MISTAKES = """\
name: Bad Name!
services:
  web:
    imgae: a
    image: localhost/hello:1
    ports: ["99999:80", "x:y"]
    cpus: many
    mem_limit: lots
    restart: sometimes
    depends_on: [ghost]
    networks: [nowhere]
    volumes: ["data:relative", "missing:/x"]
    environment: 5
    stop_grace_period: soon
    healthcheck: {tset: ["CMD", "x"]}
    cap_add: ["CAP_FLY"]
    user: {}
    read_only: perhaps
    labels: 7
    hostname: "a b"
  db:
    command: [1, {}]
    image: "UPPER CASE"
    ulimits: {nofile: {soft: 1}}
volumes: {data: {drvier: x}}
"""


class Mistakes(SystemTest):
    def write(self, text, name="compose.yaml"):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.system.folder))
        (folder / name).write_text(text)
        return folder

    def test_twenty_mistakes_are_told_in_one_run_and_nothing_is_changed(self):
        folder = self.write(TWENTY_MISTAKES)
        done = self.system.run("up", "-d", cwd=folder, check=False)
        self.assert_exit(done, 1)
        places = [line for line in done.stderr.splitlines() if "compose.yaml:" in line
                  and "error" in line]
        self.assertGreaterEqual(len(places), 20, done.stderr)
        self.assertIn("did you mean 'image'", done.stderr.replace("`", "'").replace('"', "'"))
        self.assertIn("^", done.stderr)
        self.assertEqual(self.system.containers(), {})

    def test_a_taken_port_is_named_and_the_container_taken_down_again(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.system.run("run", "-d", "--name", "late", "-p", f"{port}:80", IMAGE,
                                   "sleep", "100", check=False)
        self.assert_exit(done, 1)
        self.assertIn(str(port), done.stderr)
        self.assertNotEqual(self.system.status("late"), "running")

    def test_of_a_range_of_ports_each_replica_keeps_the_first_that_is_free(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            first = taken.getsockname()[1]
            text = (f"name: many\nservices: {{web: {{image: '{IMAGE}', command: httpd -f -h /etc, "
                    f"init: true, scale: 2, ports: ['{first}-{first + 30}:80']}}}}\n")
            folder = self.write(text)
            self.system.run("up", "-d", cwd=folder)

        def ports():
            return {name: entry["configuration"]["publishedPorts"][0]["hostPort"]
                    for name, entry in self.system.containers().items()}
        held = ports()
        self.assertEqual(len(set(held.values())), 2, held)
        for port in held.values():
            self.assertTrue(first < port <= first + 30, held)
            self.assertIn("root:", wait_until(lambda port=port: fetch(port, "passwd"), "an answer"))
        self.assertIn("No changes", self.system.output("plan", cwd=folder))
        (folder / "compose.yaml").write_text(text.replace("80']", "80', '0:443']"))
        self.system.run("up", "-d", cwd=folder)
        self.assertEqual(ports(), held, "a port that is held stays, though a lower one is free now")
        self.system.run("down", cwd=folder)

    def test_a_stack_without_its_image_says_how_to_get_it(self):
        folder = self.write("name: lost\nservices: {a: {image: localhost/absent:9}}\n")
        done = self.system.run("up", "-d", cwd=folder, check=False)
        self.assert_exit(done, 1)
        self.assertIn("localhost/absent:9", done.stderr)
        self.assertEqual(self.system.containers(), {})

    def test_a_saved_plan_is_refused_once_the_world_has_moved_on(self):
        folder = self.write(f"name: saved\nservices: {{a: {{image: '{IMAGE}', "
                            "command: sleep 1000, network_mode: none}}\n")
        self.system.run("plan", "-o", "one.plan", cwd=folder)
        self.system.run("up", "-d", "--plan", "one.plan", cwd=folder)
        self.assertEqual(self.system.status("saved-a-1"), "running")
        stale = self.system.run("up", "-d", "--plan", "one.plan", cwd=folder, check=False)
        self.assert_exit(stale, 1)
        self.assertIn("plan", stale.stderr)
        self.system.run("down", cwd=folder)

    def test_two_stacks_share_what_was_made_by_hand_and_leave_it_there(self):
        home = self.system
        stacks = {name: self.write(f"""\
name: {name}
services:
  a:
    image: '{IMAGE}'
    init: true
    command: sh -c 'echo {name} > /data/{name}; exec sleep 1000'
    networks: [meeting]
    volumes: ["shelf:/data"]
networks: {{meeting: {{external: true, name: by-hand}}}}
volumes: {{shelf: {{external: true}}}}
""") for name in ("left", "right")}
        for missing in ("network create by-hand", "volume create shelf"):
            refused = home.run("up", "-d", cwd=stacks["left"], check=False)
            self.assert_exit(refused, 1)
            self.assertIn(f"container {missing}", refused.stderr)
            home.run(*missing.split())
        for folder in stacks.values():
            home.run("up", "-d", cwd=folder)
        home.run("exec", "left-a-1", "ping", "-c", "1", "-W", "20", "right-a-1")
        self.assertEqual(wait_until(lambda: home.run("exec", "left-a-1", "cat", "/data/right",
                                                     check=False).stdout, "the other's file"),
                         "right\n")
        home.run("down", cwd=stacks["left"])
        kept = home.run("network", "rm", "-a")
        self.assertEqual(kept.stdout, "")
        self.assertIn("network 'by-hand' is used by container 'right-a-1'; kept", kept.stderr)
        home.run("down", "-v", cwd=stacks["right"])
        self.assertEqual(home.output("network", "rm", "by-hand"), "by-hand\n")
        self.assertEqual((home.app_root / "volumes/shelf/data/left").read_text(), "left\n")
        self.assertEqual(home.output("volume", "rm", "shelf"), "shelf\n")

    def test_two_ups_of_one_stack_end_as_one(self):
        folder = self.write(f"name: twice\nservices: {{a: {{image: '{IMAGE}', "
                            "command: sleep 1000, network_mode: none}}\n")
        both = [self.system.open("up", "-d", cwd=folder) for _ in range(2)]
        for child in both:
            _, problems = child.communicate(timeout=120)
            self.assertEqual(child.returncode, 0, problems)
        self.assertEqual(list(self.system.containers()), ["twice-a-1"])
        self.system.run("down", cwd=folder)

    def test_ctrl_c_stops_an_attached_up_and_a_second_one_kills(self):
        folder = self.write(f"name: shown\nservices: {{a: {{image: '{IMAGE}', init: true, command: "
                            "[sh, -c, 'trap \"\" TERM; echo ready; while :; do sleep 1; done'], "
                            "network_mode: none, stop_grace_period: 100s}}\n")
        child = self.system.open("up", cwd=folder)
        line = child.stdout.readline()
        while b"ready" not in line:
            self.assertNotEqual(line, b"", child.stderr.read() if child.poll() else "")
            line = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        with self.assertRaises(subprocess.TimeoutExpired):
            child.wait(timeout=3)  # It waits out the grace period of a service that ignores TERM.
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        wait_until(lambda: self.system.status("shown-a-1") == "stopped", "the kill")
        self.system.run("down", cwd=folder)

    def test_dependencies_are_waited_for_and_their_failure_is_told(self):
        folder = self.write(f"""\
name: chain
services:
  setup: {{image: '{IMAGE}', command: ["true"], network_mode: none}}
  broken: {{image: '{IMAGE}', command: ["false"], network_mode: none}}
  good:
    image: '{IMAGE}'
    command: sleep 1000
    network_mode: none
    depends_on: {{setup: {{condition: service_completed_successfully}}}}
  bad:
    image: '{IMAGE}'
    command: sleep 1000
    network_mode: none
    depends_on: {{broken: {{condition: service_completed_successfully}}}}
""")
        done = self.system.run("up", "-d", cwd=folder, check=False)
        self.assert_exit(done, 1)
        self.assertIn("broken", done.stderr)
        self.assertEqual(self.system.status("chain-good-1"), "running")
        self.assertNotEqual(self.system.status("chain-bad-1"), "running")
        self.system.run("down", cwd=folder)
        self.assertEqual(self.system.containers(), {})


if __name__ == "__main__":
    system.main()
