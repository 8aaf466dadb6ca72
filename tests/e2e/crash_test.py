#!/usr/bin/env python3
"""The daemon is killed at random moments: machines live on, the next start finishes the plan, no
orphans, nothing that happened meanwhile is lost. The seed is printed and can be given back."""
import os
import pathlib
import random
import sys
import tempfile
import time

import system
from system import IMAGE, SystemTest, alive, wait_until

SEED = int(os.environ.get("CONTAINER_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("CONTAINER_TEST_ROUNDS") or 4)

STACK = f"""\
name: crashed
services:
  one: {{image: '{IMAGE}', init: true, command: sleep 10000, network_mode: none}}
  two: {{image: '{IMAGE}', init: true, command: sleep 10000, network_mode: none, depends_on: [one]}}
  three: {{image: '{IMAGE}', init: true, command: sleep 10000}}
"""


class Crash(SystemTest):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.system.folder))
        (self.folder / "compose.yaml").write_text(STACK)
        print(f"CONTAINER_TEST_SEED={SEED}", file=sys.stderr)
        self.random = random.Random(SEED)

    def crash_during(self, *words):
        child = self.system.open(*words, cwd=self.folder)
        time.sleep(self.random.uniform(0, 3))
        self.system.kill_daemon()
        child.communicate(timeout=60)
        self.system.run("system", "start")

    def test_up_and_down_survive_a_kill_at_any_moment(self):
        for _ in range(ROUNDS):
            self.crash_during("up", "-d")
            self.system.run("up", "-d", cwd=self.folder)
            self.assertEqual({name: entry["status"]
                              for name, entry in self.system.containers().items()},
                             {f"crashed-{name}-1": "running" for name in ("one", "two", "three")})
            self.assertEqual(len(self.system.machines()), 3)
            self.crash_during("down")
            self.system.run("down", cwd=self.folder)
            self.assertEqual(self.system.containers(), {})
            wait_until(lambda: not self.system.machines(), "every VM to be gone")
        self.assertEqual(list((self.system.app_root / "containers").glob("*")), [])

    def test_a_run_survives_a_kill_at_any_moment(self):
        for number in range(ROUNDS):
            name = f"r{number}x"
            self.crash_during("run", "-d", "--rm", "--name", name, "--network", "none", IMAGE,
                              "sleep", "10000")
            wait_until(lambda: self.system.status(name) in (None, "running", "stopped"),
                       "the interrupted run to settle")
            self.system.run("rm", "-f", name, check=False)
            self.assertNotIn(name, self.system.containers())
            wait_until(lambda: not self.system.machines(), "no orphan")

    def test_machines_outlive_the_daemon_and_are_taken_over(self):
        self.system.run("run", "-d", "--name", "survivor", "--network", "none", IMAGE, "sleep",
                        "10000")
        before = self.system.machines()
        self.assertEqual(len(before), 1)
        self.system.kill_daemon()
        self.assertTrue(alive(before[0]))
        self.system.run("system", "start")
        self.assertEqual(self.system.machines(), before)
        self.assertEqual(self.system.output("exec", "survivor", "echo", "here"), "here\n")

    def test_output_and_exit_code_of_the_daemons_absence_are_kept(self):
        shared = self.folder / "shared"
        shared.mkdir()
        self.system.run("run", "-d", "--name", "alone", "--network", "none", "-v",
                        f"{shared}:/shared", IMAGE, "sh", "-c",
                        "echo before; until [ -e /shared/alone ]; do sleep 0.1; done; "
                        "echo meanwhile; touch /shared/leaving; exit 21")
        wait_until(lambda: self.system.output("logs", "alone") == "before\n", "the first line")
        self.system.kill_daemon()
        (shared / "alone").touch()
        # What must not be lost happens now, with nobody there to see it.
        wait_until((shared / "leaving").exists, "the container to be at its end")
        self.system.run("system", "start")
        wait_until(lambda: self.system.status("alone") == "stopped", "the exit to be known")
        self.assertEqual(self.system.output("logs", "alone"), "before\nmeanwhile\n")
        self.assertEqual(self.system.containers()["alone"]["exitCode"], 21)


if __name__ == "__main__":
    system.main()
