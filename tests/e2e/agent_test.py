#!/usr/bin/env python3
"""Runs containers in a real VM through the agent's control port, as the daemon will.

Usage: agent_test.py GUEST_FOLDER INITRAMFS, with vmlinux and modules.erofs in the folder.
"""
import io
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

import h2.config
import h2.connection
import h2.events

import guest_boot_test as boot

INITRAMFS = pathlib.Path()
WAIT_S = 60
HEADER_BYTES = 13  # Of an output frame: stream, offset, length.


class Machine(boot.Machine):
    """A VM whose image is a static busybox, and whose first process is the agent."""

    def make_image_disk(self, count):
        root = self.folder / "root"
        (root / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for name in ("sh", "cat", "id", "hostname", "sleep"):
            (root / "bin" / name).symlink_to("busybox")
        shutil.copy(boot.GUEST / "modules.erofs", self.folder / "layer-1.erofs")
        subprocess.run(["mkfs.erofs", "--quiet", "-T0", self.folder / "layer-2.erofs", root],
                       check=True)
        self.describe_image_disk([self.folder / f"layer-{n}.erofs" for n in (1, 2)])
        shutil.copy(INITRAMFS, self.folder / "initramfs.img")

    def start(self):
        arguments = self.arguments("")
        place = arguments.index("null,id=agent")
        arguments[place] = f"socket,id=agent,path={self.folder}/agent.sock,server=on,wait=off"
        nic = next(n for n, text in enumerate(arguments) if "virtio-net-device" in text)
        arguments[nic] = json.dumps({**json.loads(arguments[nic]), "mac": "02:00:00:00:00:00"})
        self.console = open(self.folder / "console", "wb")
        return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self.console,
                                stderr=subprocess.STDOUT)


class Host:
    """The daemon's side of one session."""

    def __init__(self, path, epoch):
        self.end = time.monotonic() + WAIT_S
        self.socket = self.connect(path)
        self.greet(f"container-agent hello {epoch:032x} {epoch}\n".encode())
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http.initiate_connection()

    def connect(self, path):
        while True:
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(path))
                connection.settimeout(0.5)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if time.monotonic() > self.end:
                    raise
                time.sleep(0.02)

    def greet(self, hello):
        answer = b""
        while not answer.endswith(hello) and hello not in answer:
            if time.monotonic() > self.end:
                raise TimeoutError("the agent did not answer the greeting")
            self.socket.sendall(hello)
            try:
                answer += self.socket.recv(1 << 16)
            except TimeoutError:
                pass

    def ask(self, method, path, body=None, until=None):
        """(status, body). With `until`, the answer is left as soon as that is in it."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, [(":method", method), (":path", path), (":scheme", "http"),
                                        (":authority", "agent")], end_stream=body is None)
        if body is not None:
            self.http.send_data(stream, json.dumps(body).encode(), end_stream=True)
        status, answer, open_ = "", b"", True
        end = time.monotonic() + WAIT_S
        while open_ and not (until and until in answer):
            self.socket.sendall(self.http.data_to_send())
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path}: only {answer[-200:]!r}")
            try:
                received = self.http.receive_data(self.socket.recv(1 << 16))
            except TimeoutError:
                continue
            for event in received:
                if getattr(event, "stream_id", 0) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = {bytes(k): v for k, v in event.headers}[b":status"].decode()
                if isinstance(event, h2.events.DataReceived):
                    answer += event.data
                    self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                open_ = not isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))
        if open_:
            self.http.reset_stream(stream)
        return status, answer

    def output(self, process):
        """What it wrote: (stdout, stderr)."""
        frames = self.ask("GET", f"/v1/processes/{process}/output?offset=0")[1]
        streams = {1: b"", 2: b""}
        while frames:
            size = int.from_bytes(frames[9:HEADER_BYTES], "big")
            streams[frames[0]] += frames[HEADER_BYTES:HEADER_BYTES + size]
            frames = frames[HEADER_BYTES + size:]
        return streams[1].decode(), streams[2].decode()


def process(script, capabilities=("CAP_CHOWN",)):
    return {"arguments": ["sh", "-c", script], "environment": ["PATH=/bin"],
            "working_directory": "/", "capabilities": list(capabilities)}


class Agent(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="container-agent-")
        self.machine = Machine(self.folder.name)
        self.vm = self.machine.start()
        self.host = Host(self.machine.folder / "agent.sock", 1)

    def tearDown(self):
        self.vm.kill()
        self.vm.wait()
        self.machine.console.close()
        self.folder.cleanup()

    def start(self, script, build=False, rehearsal=False, **options):
        return self.host.ask("POST", "/v1/container", {
            "id": "web", "hostname": "web", "wall_ns": time.time_ns(), "entropy_hex": "5a" * 32,
            "hosts": "127.0.0.1 localhost\n", "resolv_conf": "nameserver 192.168.64.1\n",
            "interfaces": [{"mac": "02:11:22:33:44:55", "mtu": 1400, "name": "eth0",
                            "addresses": ["192.168.64.2/24"], "gateway": "192.168.64.1"}],
            "layers": [2], "memory_bytes": 100 << 20, "build": build, "rehearsal": rehearsal,
            "process": process(script, **options)})

    def rehearse_build(self):
        """Nobody's build machine, its only step's layer, and away with it."""
        self.assertEqual(self.start("", build=True, rehearsal=True)[0], "200")
        self.assertEqual(self.host.ask("POST", "/v1/steps", {
            "id": "one", "network": False, "process": process("echo made > /file")})[0], "200")
        self.host.ask("GET", "/v1/events?after=0", until=b'"exited"')
        self.host.output("step-one")
        layer = tarfile.open(fileobj=io.BytesIO(self.host.ask("GET", "/v1/layers/one")[1]))
        status, error = self.host.ask("POST", "/v1/rehearsal", {})
        self.assertEqual((status, b"is running" in error), ("409", True))
        self.host.ask("POST", "/v1/processes/main/signal", {"signal": 15})
        self.host.ask("GET", "/v1/events?after=0", until=b'"process":"main","sequence":4')
        self.assertEqual(self.host.ask("POST", "/v1/rehearsal", {}), ("200", b"{}"))
        return {each.name: each.size for each in layer}

    def test_a_build_that_was_rehearsed_is_forgotten(self):
        self.assertEqual([self.rehearse_build(), self.rehearse_build()], [{"file": 5}] * 2)
        self.assertEqual(self.start("ls /file; sleep 1000")[0], "200")
        self.assertFalse(json.loads(self.host.ask("GET", "/v1/state")[1])["build"])
        self.assertIn(b"this is no build machine", self.host.ask("GET", "/v1/layers/one")[1])
        events = self.host.ask("GET", "/v1/events?after=0", until=b'"started"')[1]
        self.assertEqual(json.loads(events.splitlines()[0])["sequence"], 1)

    def test_a_container_runs_and_its_end_outlives_the_connection(self):
        self.assertEqual(self.start(
            "id -u; hostname; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /etc/hosts;"
            "echo oops >&2; exit 7")[0], "200")
        out, err = self.host.output("main")
        self.assertEqual(out.split("\n"),
                         ["0", "web", "02:11:22:33:44:55", "1400", "127.0.0.1 localhost", ""])
        self.assertEqual(err, "oops\n")

        self.host.socket.close()
        self.host = Host(self.machine.folder / "agent.sock", 2)
        events = self.host.ask("GET", "/v1/events?after=0", until=b'"exited"')[1].splitlines()
        last = json.loads(events[-1])
        self.assertEqual((last["sequence"], last["exit_code"]), (2, 7))
        self.assertEqual(self.host.output("main")[1], "oops\n")

    def clock_ahead_s(self):
        state = json.loads(self.host.ask("GET", "/v1/state")[1])
        return (state["wall_ns"] - time.time_ns()) / 1e9

    def move_clock(self, seconds):
        return self.host.ask("POST", "/v1/time", {"forward_ns": int(seconds * 1e9)})[0]

    def test_a_clock_that_is_far_off_jumps_and_one_that_is_near_glides(self):
        self.start("sleep 1000")
        self.assertEqual(self.move_clock(3600), "200")
        self.assertAlmostEqual(self.clock_ahead_s(), 3600, delta=5)
        self.assertEqual(self.move_clock(-3600), "200")
        before = self.clock_ahead_s()
        self.assertAlmostEqual(before, 0, delta=5)
        self.assertEqual(self.move_clock(0.5), "200")
        self.assertLess(self.clock_ahead_s(), before + 0.4)
        self.assertEqual(self.move_clock(-9e9), "400")

    def test_a_container_that_may_set_its_clock_keeps_what_it_has_set(self):
        self.start("sleep 1000", capabilities=["CAP_SYS_TIME"])
        self.assertEqual(self.move_clock(3600), "200")
        self.assertLess(self.clock_ahead_s(), 60)

    def test_a_privileged_container_follows_the_host(self):
        self.start("sleep 1000", capabilities=["CAP_SYS_ADMIN", "CAP_SYS_TIME"])
        self.assertEqual(self.move_clock(3600), "200")
        self.assertAlmostEqual(self.clock_ahead_s(), 3600, delta=5)

    def test_a_greeting_sent_twice_is_answered_once(self):
        self.host.socket.close()
        line = b"container-agent hello " + b"5" * 32 + b" 7\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.machine.folder / "agent.sock"))
            connection.sendall(line)
            heard = b""
            while line not in heard:
                heard += connection.recv(1 << 16)
            connection.sendall(line)
            try:
                while True:
                    heard += connection.recv(1 << 16)
            except TimeoutError:
                pass
        self.assertEqual(heard.count(line), 1)

    def test_further_processes_share_the_container_and_end_with_it(self):
        self.start("echo made > /tmp-file; sleep 1000")
        self.assertEqual(self.host.ask("POST", "/v1/processes", {
            "id": "look", "process": process("until grep made /tmp-file; do sleep 0.1; done")})[0],
            "200")
        self.assertEqual(self.host.output("look")[0], "made\n")
        status, error = self.host.ask("POST", "/v1/processes", {
            "id": "none", "process": {**process(""), "arguments": ["no-such-program"]}})
        self.assertEqual(status, "404")
        self.assertIn(b"failed to find target executable no-such-program", error)
        self.assertEqual(self.host.ask("POST", "/v1/processes/main/signal", {"signal": 9})[0],
                         "200")
        events = self.host.ask("GET", "/v1/events?after=0", until=b'"exit_code":137')[1]
        self.assertIn(b'"signal":9', events)


if __name__ == "__main__":
    boot.GUEST = pathlib.Path(sys.argv.pop(1)).resolve()
    INITRAMFS = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
