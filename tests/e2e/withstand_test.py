#!/usr/bin/env python3
"""What containers do that nobody planned for: output without end or reader, bytes that are no text,
zombies, names that are paths, layers with holes, Ctrl-C, two hands at once."""
import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import tarfile
import tempfile
import threading

import system
from system import IMAGE, SystemTest, wait_until

BUSYBOX = pathlib.Path("/bin/busybox")


class Connection(http.client.HTTPConnection):
    """To the daemon itself, past everything the command checks."""

    def __init__(self, home):
        super().__init__("localhost", timeout=60)
        self.path = next(str(path) for path in home.run_base.rglob("*.sock") if path.is_socket())

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def ask(home, method, target, body=None):
    connection = Connection(home)
    connection.request(method, target, body and json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def memory_kib(pid, field="RssAnon"):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith(field)), 0)


class Output(SystemTest):
    def test_detached_output_that_nobody_reads_holds_nobody_up(self):
        self.system.run("run", "-d", "--name", "host", "--network", "none", IMAGE, "sleep", "1000")
        for flags in ([], ["-t"]):
            self.system.run("exec", "-d", *flags, "host", "sh", "-c",
                            "yes 0123456789abcdef | head -c 2000000; echo over > /done")
            wait_until(lambda: self.system.run("exec", "host", "cat", "/done",
                                               check=False).stdout == "over\n",
                       f"a detached process ({flags}) to write 2 MB and go on")
            self.system.run("exec", "host", "rm", "/done")

    def test_an_exec_whose_daemon_was_killed_goes_on_without_its_reader(self):
        self.system.run("run", "-d", "--name", "host", "--network", "none", IMAGE, "sleep", "1000")
        child = self.system.open("exec", "host", "sh", "-c",
                                 "echo begun; sleep 1; yes 0123456789abcdef | head -c 2000000; "
                                 "echo over > /done")
        self.assertEqual(child.stdout.readline(), b"begun\n")
        self.system.kill_daemon()
        child.communicate(timeout=60)
        self.assertNotEqual(child.returncode, 0)
        self.system.run("system", "start")
        wait_until(lambda: self.system.run("exec", "host", "cat", "/done",
                                           check=False).stdout == "over\n",
                   "the process to write 2 MB and go on")

    def test_bytes_that_are_no_text_are_stored_and_shown_as_they_are(self):
        script = r"printf '\xff\xfe\x00\x1b[31m\x80\xc3(\r\n'; printf 'no end of line \xf0'"
        self.system.run("run", "-d", "--name", "bytes", "--network", "none", IMAGE, "sh", "-c",
                        script)
        wait_until(lambda: self.system.status("bytes") == "stopped", "it to end")
        self.assertEqual(self.system.run("logs", "bytes", text=False).stdout,
                         b"\xff\xfe\x00\x1b[31m\x80\xc3(\r\nno end of line \xf0")
        self.assertIn("bytes", self.system.containers(), "JSON of the list stays valid")

    def test_a_slow_reader_holds_the_writer_back_and_no_memory_grows(self):
        # More than the log keeps, and far more than all that is buffered on the way.
        size = int(os.environ.get("CONTAINER_TEST_OUTPUT_BYTES") or 48 << 20)
        child = self.system.open("run", "--name", "loud", "--network", "none", "-m", "128M", IMAGE,
                                 "sh", "-c", f"yes 0123456789abcde | head -c {size}")
        wait_until(self.system.machines, "the machine")
        watched = [self.system.daemon_pid(), *self.system.machines()]
        received, check, peaks = 0, hashlib.sha256(), dict.fromkeys(watched, 0)
        while block := child.stdout.read(1 << 20):
            if received == 0:
                # The reader sleeps until the writer has stopped moving.
                last = None
                while last != (last := self.system.run("exec", "loud", "cat", "/proc/1/io",
                                                       check=False).stdout):
                    threading.Event().wait(0.2)
            received += len(block)
            check.update(block)
            for pid in watched:
                if system.alive(pid):
                    peaks[pid] = max(peaks[pid], memory_kib(pid))
        self.assertEqual(child.wait(timeout=60), 0, child.stderr.read())
        child.stdout.close()
        child.stderr.close()
        expected = hashlib.sha256()
        block = b"0123456789abcde\n" * (1 << 16)
        for _ in range(size // len(block)):
            expected.update(block)
        self.assertEqual(received, size)
        self.assertEqual(check.hexdigest(), expected.hexdigest(), "nothing lost, nothing twice")
        daemon, *machines = watched
        self.assertLess(peaks[daemon], 64 << 10, "the daemon's own memory, KiB")
        for machine in machines:
            self.assertLess(peaks[machine], 512 << 10, "QEMU with a guest of 128 MiB, KiB")


class Processes(SystemTest):
    def test_zombies_without_an_init_harm_nobody(self):
        # The main process never waits for its children; 300 of them die beside it.
        self.system.run("run", "-d", "--name", "graveyard", "--network", "none", IMAGE, "sh", "-c",
                        "for i in $(seq 300); do (exit 0) & done; exec sleep 1000")
        count = "grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
        wait_until(lambda: int(self.system.output("exec", "graveyard", "sh", "-c", count)) >= 250,
                   "the zombies")
        self.assertEqual(self.system.output("exec", "graveyard", "echo", "well"), "well\n")
        self.system.run("stop", "-t", "1", "graveyard")
        self.assertEqual(self.system.status("graveyard"), "stopped")

    def test_more_processes_than_allowed_end_in_an_error_inside_and_nowhere_else(self):
        self.system.run("run", "-d", "--name", "bomb", "--network", "none", "--pids-limit", "40",
                        IMAGE, "sh", "-c", "while :; do sleep 1000 & done; wait", check=False)
        wait_until(lambda: "bomb" in self.system.containers(), "the container")
        self.system.run("rm", "-f", "bomb")
        self.assertEqual(self.system.machines(), [])


class Names(SystemTest):
    PATHS = ("../../x", "..", ".", "a/b", "/etc/passwd", "a\0b", "-x", "x" * 64, "né")

    def everything(self):
        return sorted(str(path) for root in (self.system.app_root, self.system.run_base,
                                             self.system.folder)
                      for path in root.rglob("*")
                      if not {"log", "templates", "zygotes"} & set(path.parts))

    def commands(self, name):
        service = {"image": IMAGE, "network_mode": "none"}
        return [
            {"command": "create", "start": False,
             "stack": {"name": "run", "services": {name: service}}},
            {"command": "create", "start": False, "stack": {"name": "run", "services": {"first": {
                **service, "volumes": [{"type": "volume", "source": name, "target": "/data"}]}}}},
            {"command": "up", "stack": {"name": name, "services": {"only": service}},
             "options": {"no_start": True}},
            {"command": "down", "project": name, "options": {"volumes": True}},
            {"command": "start", "ids": [name]},
            {"command": "remove", "ids": [name], "force": True, "volumes": True}]

    def test_the_daemon_itself_refuses_names_that_are_paths(self):
        def refused(command):
            status, text = ask(self.system, "POST", "/v1/apply", command)
            return text if status >= 400 or '"success":false' in text else None
        before = self.everything()
        for name in self.PATHS:
            for command in self.commands(name):
                self.assertTrue(refused(command), command)
        self.assertEqual(self.everything(), before)
        self.assertEqual(self.system.containers(), {})
        creates, _, *others = self.commands("second")  # The same with a name that is one.
        for command in (creates, *others):
            self.assertIsNone(refused(command), command)

    def test_paths_in_addresses_reach_no_file(self):
        for name in ("..%2f..%2fx", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%00b"):
            for target in (f"/v1/containers/{name}", f"/v1/containers/{name}/logs",
                           f"/v1/containers/{name}/logs?boot=1"):
                status, text = ask(self.system, "GET", target)
                self.assertIn(status, (400, 404), f"{target}: {text}")
                self.assertNotIn("root:", text)


def tar_of(*members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode, owner, content in members:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid = mode, owner, owner
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return raw.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def oci_archive(path, reference, layers):
    """An image of these tars, lowest first."""
    blobs = {}

    def blob(data, kind):
        blobs[digest(data)] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data),
                "size": len(data)}
    descriptors = [blob(gzip.compress(layer, 1), "layer.v1.tar+gzip") for layer in layers]
    config = blob(json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}).encode(),
        "config.v1+json")
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": descriptors}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": reference,
                               "io.containerd.image.name": reference}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
             "index.json": json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode(),
             **{"blobs/" + name.replace(":", "/"): data for name, data in blobs.items()}}
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


class Layers(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        base = tar_of(("./", 0o751, 3, None), ("bin", 0o755, 0, None),
                      ("bin/sh", 0o755, 0, BUSYBOX.read_bytes()),
                      ("bin/stat", 0o755, 0, BUSYBOX.read_bytes()),
                      ("bin/ls", 0o755, 0, BUSYBOX.read_bytes()),
                      ("bin/chmod", 0o755, 0, BUSYBOX.read_bytes()),
                      ("srv", 0o1777, 7, None), ("srv/deep", 0o700, 8, None),
                      ("gone", 0o700, 9, None), ("gone/old", 0o644, 9, b"old"))
        holes = tar_of(("srv/deep/new/file", 0o640, 5, b"new"), ("gone/.wh..wh..opq", 0o644, 0, b""),
                       ("gone/young", 0o644, 0, b"young"))
        listed = tar_of(("srv/deep", 0o711, 6, None), ("srv/deep/more", 0o600, 0, b"more"))
        archive = cls.system.folder / "holes.tar"
        oci_archive(archive, "localhost/holes:1", [base, holes, listed])
        cls.system.run("image", "load", "-i", archive)

    def test_a_folder_that_a_layer_does_not_list_keeps_the_owner_and_mode_it_had_below(self):
        self.system.run("create", "--name", "holes", "--network", "none", "localhost/holes:1",
                        "/bin/sh", "-c",
                        "stat -c '%a %u %n' / /srv /srv/deep /srv/deep/new /gone; ls /gone; "
                        "chmod 750 /srv")
        expected = ["751 3 /", "1777 7 /srv", "711 6 /srv/deep", "755 0 /srv/deep/new",
                    "755 0 /gone", "young"]
        for run in (expected, [expected[0], "750 7 /srv", *expected[2:]]):
            done = self.system.run("start", "-a", "holes")
            self.assertEqual(done.stdout.splitlines(), run,
                             "what the container changed itself stays")
            # The exit code is told a moment before the record says so.
            wait_until(lambda: self.system.status("holes") != "running", "its end")

    def test_a_build_on_such_layers_keeps_them_too(self):
        context = pathlib.Path(tempfile.mkdtemp(dir=self.system.folder))
        (context / "file").write_text("copied")
        look = "stat -c '%a %u %n' / /srv /srv/deep /srv/deep/new /gone"
        (context / "Dockerfile").write_text(
            "FROM localhost/holes:1\nCOPY file /srv/deep/new/copied\n"
            f"RUN {look} > /seen && echo x > /srv/deep/by-step && echo x > /gone/by-step && "
            "chmod 600 /srv/deep/new/file\n")
        expected = ["751 3 /", "1777 7 /srv", "711 6 /srv/deep", "755 0 /srv/deep/new", "755 0 /gone"]
        self.system.run("build", "--network", "none", "-t", "localhost/built:1", str(context))
        done = self.system.output("run", "--rm", "--network", "none", "localhost/built:1", "/bin/sh",
                                  "-c", f"read a < /seen; {look}; while read line; do echo $line; "
                                  "done < /seen; ls /gone /srv/deep/new")
        self.assertEqual(done.splitlines(), expected + expected +
                         ["/gone:", "by-step", "young", "", "/srv/deep/new:", "copied", "file"])
        # The same by the host's eyes, which make what COPY and `--output` see.
        files = self.system.folder / "built.tar"
        self.system.run("build", "--network", "none", "-o", f"type=tar,dest={files}", str(context))
        with tarfile.open(files) as tar:
            facts = {member.name.strip("/"): f"{member.mode & 0o7777:o} {member.uid}"
                     for member in tar if member.isdir()}
        self.assertEqual([facts[name] for name in ("srv", "srv/deep", "srv/deep/new", "gone")],
                         [line.rsplit(" ", 1)[0] for line in expected[1:]])


class Hands(SystemTest):
    def stack(self, name, text):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.system.folder))
        (folder / "compose.yaml").write_text(f"name: {name}\n{text}")
        return folder

    def test_ctrl_c_once_stops_what_an_attached_up_started_in_its_own_time(self):
        folder = self.stack("polite", f"""\
services:
  a:
    image: '{IMAGE}'
    network_mode: none
    stop_grace_period: 100s
    command: [sh, -c, 'trap "echo leaving; exit 0" TERM; echo ready; while :; do sleep 0.1; done']
""")
        child = self.system.open("up", cwd=folder)
        seen = b""
        while b"ready" not in seen:
            line = child.stdout.readline()
            self.assertNotEqual(line, b"", seen)
            seen += line
        child.send_signal(signal.SIGINT)
        rest, problems = child.communicate(timeout=60)
        self.assertIn(b"leaving", rest, problems)
        self.assertEqual(self.system.status("polite-a-1"), "stopped")
        self.assertEqual(self.system.containers()["polite-a-1"]["exitCode"], 0)
        self.system.run("down", cwd=folder)

    def test_a_second_up_waits_for_the_first_and_both_files_end_as_the_last(self):
        first = self.stack("shared", f"services: {{a: {{image: '{IMAGE}', network_mode: none, "
                                     "init: true, command: sleep 1000}, b: "
                                     "{image: 'localhost/hello:1', network_mode: none, init: true, "
                                     "command: sleep 1001, depends_on: [a]}}\n")
        second = self.stack("shared", f"services: {{a: {{image: '{IMAGE}', network_mode: none, "
                                      "init: true, command: sleep 2000}}\n")
        children = [self.system.open("up", "-d", cwd=first)]
        wait_until(lambda: "shared-a-1" in self.system.containers(), "the first to be at work")
        children.append(self.system.open("up", "-d", cwd=second))
        for child in children:
            _, problems = child.communicate(timeout=120)
            self.assertEqual(child.returncode, 0, problems)
        found = self.system.containers()
        self.assertEqual(found["shared-a-1"]["status"], "running")
        self.assertIn("2000", json.dumps(found["shared-a-1"]["configuration"]))
        self.assertEqual(len(self.system.machines()),
                         sum(each["status"] == "running" for each in found.values()))
        self.system.run("down", "--remove-orphans", cwd=second)
        self.assertEqual(self.system.containers(), {})


if __name__ == "__main__":
    system.main()
