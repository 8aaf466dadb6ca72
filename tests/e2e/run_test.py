#!/usr/bin/env python3
"""`container run` and its kin, as somebody typing them sees them."""
import json
import os
import pty
import select
import signal
import subprocess
import time

import system
from system import IMAGE, SystemTest, wait_until


class Run(SystemTest):
    def run_once(self, *words, **options):
        return self.system.run("run", "--rm", "--network", "none", *words, check=False, **options)

    def test_output_goes_where_the_process_wrote_it(self):
        done = self.run_once(IMAGE, "sh", "-c", "echo out; echo err >&2")
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout, "out\n")
        self.assertIn("err\n", done.stderr)

    def test_the_exit_code_is_the_one_of_the_process(self):
        self.assert_exit(self.run_once(IMAGE, "sh", "-c", "exit 42"), 42)

    def test_a_signal_is_an_exit_code_above_128(self):
        self.assert_exit(self.run_once("--init", IMAGE, "sh", "-c", "kill -TERM $$"), 128 + 15)

    def test_a_missing_program_is_named(self):
        done = self.run_once(IMAGE, "/no/such/program")
        self.assert_exit(done, 1)
        self.assertIn("failed to find target executable /no/such/program", done.stderr)

    def test_a_missing_image_says_how_to_get_it(self):
        done = self.run_once("--pull", "never", "localhost/absent:1", "true")
        self.assert_exit(done, 1)
        self.assertIn("localhost/absent:1", done.stderr)
        self.assertIn("image load", done.stderr)

    def test_bytes_of_every_value_pass_both_ways(self):
        everything = bytes(range(256)) * 4096
        done = self.run_once("-i", IMAGE, "cat", input=everything, text=False)
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout, everything)

    def test_stdin_is_empty_unless_asked_for(self):
        done = self.run_once(IMAGE, "cat", input="unseen")
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout, "")

    def test_what_the_flags_say_is_what_the_process_finds(self):
        script = "id -u; id -g; pwd; echo $COLOR; hostname; cat /proc/self/status | grep CapEff"
        done = self.run_once("--user", "1000:1000", "-w", "/tmp/deep/er", "-e", "COLOR=blue",
                             "--hostname", "small", "--cap-drop", "ALL", IMAGE, "sh", "-c", script)
        self.assert_exit(done, 0)
        lines = done.stdout.split("\n")
        self.assertEqual(lines[:5], ["1000", "1000", "/tmp/deep/er", "blue", "small"])
        self.assertEqual(lines[5].split(), ["CapEff:", "0000000000000000"])

    def test_limits_are_those_of_the_machine_the_process_sees(self):
        done = self.run_once("-c", "1", "-m", "256M", IMAGE, "sh", "-c",
                             "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo")
        self.assert_exit(done, 0)
        processors, memory = done.stdout.split()
        self.assertEqual(processors, "1")
        self.assertLess(int(memory), 400 * 1024)

    def test_its_kernel_reads_ahead_and_leaves_idle_machines_alone(self):
        done = self.run_once(IMAGE, "cat", "/sys/block/vda/queue/read_ahead_kb",
                             "/proc/sys/vm/compaction_proactiveness")
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout.split(), ["1024", "0"])

    def test_a_read_only_root_refuses_writes_but_tmpfs_takes_them(self):
        done = self.run_once("--read-only", "--tmpfs", "/scratch", IMAGE, "sh", "-c",
                             "touch /scratch/ok && echo yes; touch /nope 2>&1")
        self.assertIn("yes\n", done.stdout)
        self.assertIn("Read-only file system", done.stdout)
        self.assertNotEqual(done.returncode, 0)

    def test_a_host_folder_is_shared_both_ways(self):
        folder = self.system.folder / "shared"
        folder.mkdir(exist_ok=True)
        (folder / "from-host").write_text("hello\n")
        done = self.run_once("-v", f"{folder}:/data", IMAGE, "sh", "-c",
                             "cat /data/from-host; echo back > /data/from-guest")
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout, "hello\n")
        self.assertEqual((folder / "from-guest").read_text(), "back\n")

    def test_a_read_only_share_cannot_be_written(self):
        folder = self.system.folder / "sealed"
        folder.mkdir(exist_ok=True)
        done = self.run_once("-v", f"{folder}:/data:ro", IMAGE, "touch", "/data/x")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_network_and_a_volume_made_by_hand_serve_until_they_are_deleted(self):
        home = self.system
        made = home.output("network", "create", "--internal", "--label", "tier=1", "--subnet",
                           "10.91.0.0/24", "--gateway", "10.91.0.254", "by-hand")
        self.assertEqual(made, "by-hand\n")
        self.assertEqual(home.output("volume", "create", "filled"), "filled\n")
        network = home.json("network", "inspect", "by-hand")[0]
        self.assertEqual(network["status"]["address"], "10.91.0.0/24")
        self.assertEqual(network["status"]["gateway"], "10.91.0.254")
        self.assertEqual(network["configuration"]["labels"], {"tier": "1"})
        self.assertEqual(network["configuration"]["mode"], "hostOnly")
        joined = ("--network", "by-hand", "-v", "filled:/data", IMAGE)
        home.run("run", "--name", "user", *joined, "sh", "-c", "echo word > /data/w")
        for kind, name in (("network", "by-hand"), ("volume", "filled")):
            again = home.run(kind, "create", name, check=False)
            self.assert_exit(again, 1)
            self.assertIn("exists already", again.stderr)
            refused = home.run(kind, "rm", name, check=False)
            self.assert_exit(refused, 1)
            self.assertIn("used by container 'user'", refused.stderr)
            self.assertEqual(refused.stdout, "")
        home.run("rm", "user")
        self.assertEqual(home.output("run", "--rm", *joined, "cat", "/data/w", "/etc/resolv.conf"),
                         "word\nnameserver 10.91.0.254\n")
        # The container of `run --rm` is in nobody's way.
        self.assertEqual(home.output("network", "rm", "by-hand"), "by-hand\n")
        self.assertEqual(home.output("volume", "delete", "filled"), "filled\n")
        gone = home.run("volume", "rm", "filled", check=False)
        self.assert_exit(gone, 1)
        self.assertIn("volume not found: filled", gone.stderr)
        self.assertFalse((home.app_root / "volumes/filled").exists())

    def reclaimable_volume_bytes(self):
        return self.system.json("system", "df", "--format", "json")["volumes"]["reclaimable"]

    def test_a_prune_takes_what_no_container_uses(self):
        home = self.system
        home.run("volume", "prune")
        home.run("run", "--name", "leaver", "--network", "none", "-v", "/left", IMAGE,
                 "dd", "if=/dev/zero", "of=/left/file", "bs=1M", "count=3")
        home.run("rm", "leaver")
        # `system df` says what a prune would give back: the data, not our folder around it.
        before = self.reclaimable_volume_bytes()
        home.run("volume", "create", "named")
        empty = home.app_root / "volumes/named/data"
        self.assertEqual(self.reclaimable_volume_bytes() - before, empty.stat().st_blocks * 512)
        home.run("network", "create", "unused")
        first = home.run("volume", "prune")
        self.assertRegex(first.stdout, "^leaver-[^\n]+\n$")
        self.assertRegex(first.stderr, r"Reclaimed 3\.\d MB in disk space")
        self.assertIn("named\n", home.output("volume", "ls", "-q"))
        self.assertIn("named\n", home.output("volume", "prune", "--all"))
        self.assertEqual(home.output("volume", "ls", "-q"), "")
        self.assertEqual(home.output("network", "prune"), "unused\n")
        self.assertEqual(home.output("network", "rm", "--all"), "")
        builtin = home.run("network", "rm", "default", check=False)
        self.assert_exit(builtin, 1)
        self.assertIn("cannot delete a builtin network: default", builtin.stderr)

    def test_a_named_volume_outlives_its_container(self):
        self.assert_exit(self.run_once("-v", "keep:/data", IMAGE, "sh", "-c", "echo 1 > /data/n"),
                         0)
        done = self.run_once("-v", "keep:/data", IMAGE, "cat", "/data/n")
        self.assertEqual(done.stdout, "1\n")

    def test_a_name_with_slashes_is_refused_and_makes_nothing(self):
        def everything():  # Templates are made in the background, as of the tests before.
            return sorted(str(path) for path in self.system.app_root.rglob("*")
                          if "templates" not in path.parts and "log" not in path.parts)
        before = everything()
        for name in ("../../x", "a/b", ".hidden", "", "-x", "a" * 64, "né"):
            done = self.run_once(f"--name={name}", IMAGE, "true")
            self.assertIn(done.returncode, (1, 64), name)
        self.assertEqual(everything(), before)

    def test_nothing_is_left_after_rm(self):
        self.assert_exit(self.run_once("--name", "brief", IMAGE, "true"), 0)
        wait_until(lambda: "brief" not in self.system.containers(), "--rm to remove it")
        self.assertEqual(list((self.system.app_root / "containers").glob("*brief*")), [])

    def test_only_usual_devices_can_be_opened(self):
        script = r'''
            set -- $(grep 'vdb$' /proc/partitions)
            mknod /run/disk b "$1" "$2" && mknod /run/null c 1 3 || exit 9
            echo nothing > /run/null || exit 8
            head -c 1 /run/disk > /dev/null || exit 1'''
        refused = self.system.run("run", "--rm", "--network", "none", IMAGE, "sh", "-c", script,
                                  check=False)
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertIn("Operation not permitted", refused.stderr)
        self.system.run("run", "--rm", "--network", "none", "--privileged", IMAGE, "sh", "-c", script)

    def test_zombies_are_reaped(self):
        done = self.run_once("--init", IMAGE, "sh", "-c",
                             "for i in $(seq 50); do (sleep 0.01 &) ; done; sleep 2; "
                             "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l")
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout.strip(), "0")

    def test_signals_reach_the_process_through_the_command(self):
        child = self.system.open("run", "--rm", "--network", "none", "--name", "polite", IMAGE,
                                 "sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; "
                                 "while :; do sleep 0.1; done")
        self.assertEqual(child.stdout.readline(), b"up\n")
        child.send_signal(signal.SIGTERM)
        rest, problems = child.communicate(timeout=60)
        self.assertEqual((rest, child.returncode), (b"bye\n", 7), problems)


class Terminal(SystemTest):
    def test_a_terminal_behaves_like_one(self):
        controller, terminal = pty.openpty()
        child = subprocess.Popen(
            self.system.arguments("run", "--rm", "-it", "--network", "none", IMAGE, "sh"),
            env={**self.system.environment, "TERM": "xterm"}, stdin=terminal, stdout=terminal,
            stderr=terminal, start_new_session=True)
        os.close(terminal)
        seen = b""

        def read_until(mark):
            nonlocal seen
            deadline = time.monotonic() + 60
            while mark not in seen:
                ready, _, _ = select.select([controller], [], [], deadline - time.monotonic())
                self.assertTrue(ready, f"waited for {mark!r}, saw {seen!r}")
                seen += os.read(controller, 4096)
            before, seen = seen.split(mark, 1)
            return before

        read_until(b"# ")
        os.write(controller, b"test -t 0 && echo is-a-ter''minal\n")
        read_until(b"is-a-terminal\r\n")
        os.write(controller, b"sleep 100\n")
        time.sleep(0.5)  # Let it be the foreground process that the key below interrupts.
        os.write(controller, b"\x03")
        read_until(b"# ")
        os.write(controller, b"exit 5\n")
        self.assertEqual(child.wait(timeout=60), 5)
        os.close(controller)


class Lifecycle(SystemTest):
    def test_a_container_is_created_started_stopped_and_removed(self):
        run = self.system.run
        created = run("create", "--name", "one", "--network", "none", IMAGE, "sh", "-c",
                      "trap 'exit 3' TERM; echo started; while :; do sleep 0.1; done")
        self.assertEqual(created.stdout, "one\n")
        self.assertEqual(self.system.status("one"), "stopped")
        self.assertEqual(run("start", "one").stdout, "one\n")
        self.assertEqual(self.system.status("one"), "running")
        wait_until(lambda: self.system.output("logs", "one") == "started\n", "its first line")
        self.assertEqual(run("stop", "one").stdout, "one\n")
        self.assertEqual(self.system.status("one"), "stopped")
        self.assertIn("Linux version", self.system.output("logs", "--boot", "one")
                      + "Linux version")
        self.assertEqual(run("rm", "one").stdout, "one\n")
        self.assertEqual(self.system.containers(), {})

    def test_exec_runs_beside_the_main_process(self):
        self.system.run("run", "-d", "--name", "host", "--network", "none", "-e", "A=1", IMAGE,
                        "sleep", "1000")
        done = self.system.run("exec", "-e", "B=2", "-w", "/tmp", "-u", "1000", "host", "sh", "-c",
                               "echo $A$B $(pwd) $(id -u); exit 9", check=False)
        self.assert_exit(done, 9)
        self.assertEqual(done.stdout, "12 /tmp 1000\n")
        piped = self.system.run("exec", "-i", "host", "wc", "-c", input="12345")
        self.assertEqual(piped.stdout.strip(), "5")

    def test_logs_follow_until_the_end(self):
        self.system.run("run", "-d", "--name", "talker", "--network", "none", IMAGE, "sh", "-c",
                        "for i in 1 2 3; do echo $i; sleep 0.2; done")
        followed = self.system.run("logs", "-f", "talker")
        self.assertEqual(followed.stdout, "1\n2\n3\n")
        self.assertEqual(self.system.output("logs", "-n", "1", "talker"), "3\n")

    def test_kill_ends_at_once_and_a_running_container_is_not_removed(self):
        self.system.run("run", "-d", "--name", "stubborn", "--network", "none", IMAGE, "sh", "-c",
                        "trap '' TERM; while :; do sleep 1; done")
        refused = self.system.run("rm", "stubborn", check=False)
        self.assert_exit(refused, 1)
        self.assertIn("running", refused.stderr)
        self.system.run("kill", "stubborn")
        wait_until(lambda: self.system.status("stubborn") == "stopped", "the kill")

    def test_inspect_is_an_array_with_the_id_inside(self):
        self.system.run("create", "--name", "seen", "--network", "none", IMAGE, "true")
        document = json.loads(self.system.output("inspect", "seen"))
        self.assertEqual(document[0]["configuration"]["id"], "seen")
        usual = document[0]["configuration"]["resources"]
        self.assertGreaterEqual(usual["cpus"], 1)
        self.assertEqual(usual["memoryInBytes"], 1 << 30)
        self.system.run("create", "--name", "sized", "-c", "2", "-m", "256M", "--network", "none",
                        IMAGE, "true")
        sized = json.loads(self.system.output("inspect", "sized"))[0]["configuration"]["resources"]
        self.assertEqual(sized, {"cpus": 2, "memoryInBytes": 256 << 20})
        absent = self.system.run("inspect", "seen", "absent", check=False)
        self.assert_exit(absent, 1)
        self.assertEqual(absent.stdout, "")
        self.assertIn("container not found: absent", absent.stderr)

    def test_a_quota_is_set_where_it_is_one(self):
        for cpus, processors, quota in (("0.5", 1, "50000"), ("1.5", 2, "150000"), ("2", 2, "max")):
            with self.subTest(cpus):
                self.assertEqual(
                    self.system.output("run", "--rm", "--network", "none", "--cpus", cpus, IMAGE,
                                       "sh", "-c", "nproc; cat /sys/fs/cgroup/cpu.max"),
                    f"{processors}\n{quota} 100000\n")

    def test_a_restart_policy_starts_it_again(self):
        self.system.run("run", "-d", "--name", "again", "--restart", "on-failure:2", "--network",
                        "none", "-v", "again:/n", IMAGE, "sh", "-c", "echo x >> /n/n; exit 1")
        self.addCleanup(self.system.run, "rm", "-f", "again", check=False)
        volume = self.system.app_root / "volumes/again/data/n"
        wait_until(lambda: volume.exists() and volume.read_text() == "x\n" * 3, "two restarts")


class SystemStop(SystemTest):
    def test_containers_that_end_meanwhile_do_not_hold_it_up(self):
        ending = [self.system.open("run", "--rm", "--network", "none", IMAGE, "sleep", str(length))
                  for length in (0, 0, 0.1, 0.2)]
        wait_until(lambda: self.system.json("ls", "-a", "--format", "json"), "a container")
        self.assert_exit(self.system.run("system", "stop", "-t", "1", check=False), 0)
        for each in ending:
            each.communicate(timeout=60)
        self.system.run("system", "start")


if __name__ == "__main__":
    system.main()
