#!/usr/bin/env python3
"""Machines are clones of a template: each is its own all the same, and a template that is not what
it should be costs time, never a container."""
import concurrent.futures
import os
import pathlib
import re
import signal
import time

import system
from system import IMAGE, SystemTest, alive, wait_until

CLONES = 12
# What must be a machine's own: random numbers of kernel and libraries, ids, address, clock.
PERSONAL = """
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id
cat /sys/class/net/eth0/address
od -An -tx1 /proc/self/auxv | md5sum | cut -d' ' -f1
hostname
date +%s
"""
NAMES = ("urandom", "uuid", "boot id", "MAC address", "auxiliary vector", "host name", "clock")


def templates_of(home):
    return home.app_root / "templates/machines"


def made(home):
    return sorted(path.parent for path in templates_of(home).glob("*/template.json")
                  if not path.parent.name.startswith("making-"))


def wait_for_templates(home, count):
    return wait_until(lambda: len(made(home)) == count and made(home), f"{count} templates")


def is_clone(home, pid):
    return "-incoming" in home.command_line(pid)


class Clones(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        wait_for_templates(cls.system, 1)

    def run_quiet(self, *words, **options):
        return self.system.run("run", "--rm", *words, **options)

    def test_each_clone_is_its_own(self):
        before = time.time()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            said = list(pool.map(lambda _: self.run_quiet(IMAGE, "sh", "-c", PERSONAL).stdout,
                                 range(CLONES)))
        after = time.time()
        answers = [lines.split("\n")[:len(NAMES)] for lines in said]
        for place, name in enumerate(NAMES[:-1]):
            values = [answer[place] for answer in answers]
            self.assertNotIn("", values, name)
            if name == "MAC address":
                # One that has left gives its own back; two beside each other never share one.
                self.assertGreaterEqual(len(set(values)), 2, values)
            else:
                self.assertEqual(len(set(values)), CLONES, f"{name}: {values}")
        for answer in answers:
            self.assertGreaterEqual(int(answer[-1]), int(before) - 1)
            self.assertLessEqual(int(answer[-1]), after + 1)

    def test_clones_beside_each_other_have_addresses_of_their_own(self):
        names = [f"beside{number}" for number in range(4)]
        for name in names:
            self.system.run("run", "-d", "--name", name, IMAGE, "sleep", "1000")
        self.assertTrue(all(is_clone(self.system, pid) for pid in self.system.machines()))
        script = "cat /sys/class/net/eth0/address; ip -4 addr show eth0 | grep inet"
        said = [self.system.output("exec", name, "sh", "-c", script) for name in names]
        self.assertEqual(len(set(said)), len(names), said)
        self.assertEqual(len({answer.split()[0] for answer in said}), len(names), said)

    def test_a_cold_boot_is_there_for_those_who_want_it(self):
        self.system.run("run", "-d", "--name", "cold", "--boot", "cold", IMAGE, "sleep", "1000")
        self.assertEqual([is_clone(self.system, pid) for pid in self.system.machines()], [False])
        self.system.run("rm", "-f", "cold")
        folder = self.system.folder / "cold"
        folder.mkdir()
        (folder / "compose.yaml").write_text(
            f"name: cold\nservices:\n  one: {{image: '{IMAGE}', command: sleep 1000, "
            "x-boot: cold}\n  two: {image: '" + IMAGE + "', command: sleep 1000}\n")
        self.system.run("up", "-d", cwd=folder)
        kinds = sorted(is_clone(self.system, pid) for pid in self.system.machines())
        self.assertEqual(kinds, [False, True])
        self.system.run("down", cwd=folder)

    def test_machines_are_forked_and_show_what_they_are(self):
        self.system.run("run", "-d", "--name", "forked", IMAGE, "sleep", "1000")
        (machine,) = self.system.machines()
        self.assertIn("-uuid", self.system.command_line(machine))
        status = pathlib.Path(f"/proc/{machine}/status").read_text()
        self.assertIn("NoNewPrivs:\t1", status)
        self.assertIn("Seccomp:\t2", status)
        self.assertRegex(status, r"CapEff:\t0{16}")
        if os.geteuid() == 0:
            self.assertNotRegex(status, r"Uid:\t0\t")
        seeds = [pid for pid in self.system.processes()
                 if self.system.command_line(pid)[1:2] == ["--seed=" + "-" * (16 << 10)]]
        self.assertEqual(len(seeds), 1)
        os.kill(seeds[0], signal.SIGKILL)
        wait_until(lambda: not alive(seeds[0]), "the seed to be gone")
        self.assertTrue(alive(machine))
        self.assertEqual(self.run_quiet(IMAGE, "echo", "on").stdout, "on\n")

    def test_machines_are_forked_from_one_that_was_rehearsed(self):
        def zygote():
            return [pid for pid in self.system.processes()
                    if self.system.command_line(pid)[1:] == ["--seed=rehearsed"]]
        wait_until(lambda: "was rehearsed" in self.system.daemon_log(), "a rehearsed machine")
        self.system.run("run", "-d", "--name", "child", IMAGE, "sh", "-c", "echo here; sleep 1000")
        (machine,) = self.system.machines()
        status = pathlib.Path(f"/proc/{machine}/status").read_text()
        rehearsed = int(re.search(r"PPid:\t(\d+)", status)[1])
        self.assertIn(rehearsed, zygote())
        for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"):
            self.assertIn(line, status)
        for status in thread_statuses(machine):
            self.assertIn("Seccomp:\t2", status)
        self.system.kill_daemon()
        self.system.start(image=False)
        wait_until(lambda: not alive(rehearsed), "the rehearsed machine to end with its daemon")
        self.assertEqual(self.system.output("exec", "child", "echo", "on"), "on\n")
        (rehearsed,) = wait_until(zygote, "another rehearsed machine")
        os.kill(rehearsed, signal.SIGKILL)
        self.assertEqual(self.run_quiet(IMAGE, "echo", "all the same").stdout, "all the same\n")
        self.assertTrue(alive(machine))

    def test_a_clone_does_not_announce_itself_on_its_network(self):
        # Cloned from the template, since nothing is rehearsed yet: QEMU asks what has migrated to.
        self.system.run("system", "stop")
        self.system.run("system", "start")
        script = ("cd /sys/class/net/eth0/statistics; before=$(cat tx_packets); sleep 1.5; "
                  "echo $(($(cat tx_packets) - before))")
        sent = self.run_quiet("--sysctl", "net.ipv6.conf.all.disable_ipv6=1", IMAGE, "sh", "-c",
                              script).stdout
        self.assertEqual(sent, "0\n")

    def test_an_end_is_known_to_whoever_asks_after_it(self):
        self.system.run("run", "--name", "brief", "--network", "none", IMAGE, "true")
        self.assertEqual(self.system.status("brief"), "stopped")
        self.system.run("start", "-a", "brief")
        self.assertEqual(self.system.status("brief"), "stopped")
        self.system.run("rm", "brief")
        self.assertEqual(self.system.containers(), {})

    def test_a_name_is_free_again_when_the_prompt_is_back(self):
        for _ in range(3):
            self.run_quiet("--name", "again", "--network", "none", IMAGE, "true")

    def test_nothing_of_it_is_seen_when_the_prompt_is_back(self):
        for _ in range(3):
            self.run_quiet("--network", "none", IMAGE, "true")
            self.assertEqual(self.system.output("ls", "-a", "-q"), "")
        self.run_quiet("--network", "none", IMAGE, "true")
        self.system.run("image", "rm", IMAGE)  # refused while a container was made from it
        self.system.run("image", "load", "-i", system.image_archive())

    def test_what_a_guest_frees_returns_to_the_host(self):
        self.system.run("run", "-d", "--name", "eater", "--network", "none", "--tmpfs", "/m", IMAGE,
                        "sleep", "1000")
        (machine,) = self.system.machines()
        fill = "head -c 300m /dev/zero > /m/much; sync"
        self.system.run("exec", "eater", "sh", "-c", fill)
        full = system_memory_kib(machine)
        self.assertGreater(full, 300 * 1024)
        self.system.run("exec", "eater", "rm", "/m/much")
        wait_until(lambda: system_memory_kib(machine) < full - 270 * 1024,
                   "what it freed to return")
        self.assertEqual(self.run_quiet(IMAGE, "echo", "whole").stdout, "whole\n")

    def test_a_start_tells_what_took_how_long(self):
        done = self.run_quiet("--trace", "--network", "none", IMAGE, "true")
        lines = re.findall(r"^ *(\d+\.\d+) +(-?\d+\.\d+)  (\w+) +(.+)$", done.stderr, re.M)
        places = {where for _, _, where, _ in lines}
        self.assertEqual(places, {"command", "daemon", "qemu", "guest"}, done.stderr)
        self.assertEqual(lines[-1][3], "it is removed", done.stderr)
        begins = [float(begin) for begin, _, _, _ in lines]
        self.assertEqual(begins, sorted(begins))
        self.assertTrue(all(float(took) > -0.5 for _, took, _, _ in lines), done.stderr)
        self.assertEqual(self.run_quiet("--network", "none", IMAGE, "true").stderr, "")


def thread_statuses(pid):
    """Of those that are still there when it is their turn: QEMU's workers come and go."""
    statuses = []
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            statuses.append((thread / "status").read_text())
        except OSError:
            continue
    return statuses


def system_memory_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


class BadTemplates(SystemTest):
    """Each test has a template of the usual shape at its beginning."""

    @classmethod
    def setUpClass(cls):
        cls.system = system.System()
        cls.system.start()

    def setUp(self):
        self.template = wait_for_templates(self.system, 1)[0]

    def restart(self, meanwhile=lambda: None):
        self.system.run("system", "stop")
        meanwhile()
        self.system.run("system", "start")

    def assert_runs(self):
        done = self.system.run("run", "--rm", IMAGE, "echo", "runs")
        self.assertEqual(done.stdout, "runs\n")
        self.assertEqual(done.stderr, "")

    def damage(self, name, content, offset):
        (self.template / name).chmod(0o600)
        with open(self.template / name, "r+b") as file:
            file.seek(offset)
            file.write(content)

    def test_one_that_does_not_verify_is_made_anew(self):
        old = (self.template / "template.json").read_text()
        # The first bytes of the kernel's own memory: no guest lives without them.
        self.restart(lambda: self.damage("memory", b"\xff" * 4096, 16 << 20))
        self.assert_runs()
        self.assertIn("its checksum is wrong", self.system.daemon_log())
        wait_until(lambda: len(made(self.system)) == 1
                   and (made(self.system)[0] / "template.json").read_text() != old,
                   "another template")
        self.assert_runs()

    def test_one_whose_files_are_gone_is_made_anew(self):
        self.restart((self.template / "state").unlink)
        self.assert_runs()
        wait_for_templates(self.system, 1)
        self.assert_runs()

    def test_one_that_was_half_made_is_cleaned_up(self):
        self.system.run("system", "stop")
        for path in self.template.iterdir():
            path.unlink()
        self.template.rmdir()
        self.system.run("system", "start")
        half = wait_until(lambda: list(templates_of(self.system).glob("making-*/memory")),
                          "a template being made")
        self.assertTrue(self.system.kill_daemon())
        self.assertTrue(half[0].exists())
        self.system.run("system", "start")
        wait_for_templates(self.system, 1)
        self.assertEqual(list(templates_of(self.system).glob("making-*")), [])
        wait_until(lambda: self.system.machines() == [], "the guest of the half-made one to end")
        self.assert_runs()

    def test_containers_that_ask_at_once_get_one_template(self):
        shape = ("--network", "none", "-m", "200M")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            runs = [pool.submit(self.system.run, "run", "--rm", *shape, IMAGE, "true")
                    for _ in range(3)]
            for run in runs:
                run.result()
        wait_for_templates(self.system, 2)
        self.system.run("run", "-d", "--name", "third", *shape, IMAGE, "sleep", "1000")
        self.assertEqual([is_clone(self.system, pid) for pid in self.system.machines()], [True])
        self.system.run("rm", "-f", "third")
        for folder in made(self.system):
            if folder != self.template:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
        self.restart()


class TemplatesThatFail(SystemTest):
    def test_one_that_gives_no_clone_is_dropped_and_the_container_boots(self):
        (template,) = wait_for_templates(self.system, 1)
        self.system.run("run", "--rm", IMAGE, "true")  # verified now, and trusted
        memory = template / "memory"
        memory.chmod(0o600)
        with open(memory, "r+b") as file:
            for offset in range(1 << 20, 64 << 20, 1 << 20):
                file.seek(offset)
                file.write(b"\xf4" * (1 << 20))  # HLT: a guest that never answers
        done = self.system.run("run", "--rm", IMAGE, "echo", "runs")
        self.assertEqual((done.stdout, done.stderr), ("runs\n", ""))
        self.assertIn("its clones do not come up", self.system.daemon_log())
        self.assertFalse(template.exists())
        self.system.run("run", "--rm", IMAGE, "true")


if __name__ == "__main__":
    system.main()
