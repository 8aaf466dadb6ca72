"""One `container` system of its own for a test: own folders, own daemon, nothing left behind.

Tests drive the real programs of a build folder and judge by what a user could see: exit codes,
stdout, stderr, files, processes. The build folder is the first argument of each test program.
"""
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
BUILD = SOURCE / "build"
IMAGE = "localhost/hello:1"

# Emulated guests beside each other on two cores: generous, because a timeout here means "hangs".
COMMAND_TIMEOUT_S = 120
SETTLE_TIMEOUT_S = 60


class Failed(AssertionError):
    """A command did not end as the test needs it."""


def wait_until(condition, what, timeout_s=SETTLE_TIMEOUT_S):
    """Polls from outside what no event tells a test; fails naming what it waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout_s} s for: {what}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def image_archive():
    """The busybox image of the examples, made once per build folder."""
    archive = BUILD / "tests" / "hello.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        made = archive.with_suffix(f".{os.getpid()}")
        subprocess.run([SOURCE / "tools/make_busybox_image.py", made, "--tag", IMAGE], check=True)
        made.rename(archive)
    return archive


# How programs built with sanitizers report, where the caller says so.
SANITIZERS = {name: os.environ[name] for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")
              if name in os.environ}


class System:
    """Folders and daemon of one system. `command` prefixes make it another user's."""

    def __init__(self, folder=None, prefix=(), environment=None, data_home=False):
        """`data_home`: the app root is found by XDG_DATA_HOME, not named."""
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="container-e2e-"))
        self.app_root = self.folder / "data/container" if data_home else self.folder / "app"
        root = {"XDG_DATA_HOME": str(self.folder / "data")} if data_home else \
            {"CONTAINER_APP_ROOT": str(self.app_root)}
        self.run_base = self.folder / "run"
        self.home = self.folder / "home"
        for part in (self.run_base, self.home):
            part.mkdir(mode=0o700, exist_ok=True)
        self.prefix = list(prefix)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.run_base), **SANITIZERS, **root, **(environment or {})}
        self.program = BUILD / "bin" / "container"

    def arguments(self, *words):
        return [*self.prefix, str(self.program), *map(str, words)]

    def run(self, *words, check=True, text=True, timeout=COMMAND_TIMEOUT_S, cwd=None, **options):
        options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
        if options["stdin"] is None:
            del options["stdin"]
        done = subprocess.run(self.arguments(*words), env=self.environment, check=False, text=text,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              cwd=cwd or self.folder, **options)
        if check and done.returncode != 0:
            raise Failed(f"container {' '.join(map(str, words))}: exit code {done.returncode}\n"
                         f"stdout: {done.stdout}\nstderr: {done.stderr}\n{self.daemon_log()}")
        return done

    def output(self, *words, **options):
        return self.run(*words, **options).stdout

    def open(self, *words, cwd=None, **options):
        """A command that goes on beside the test."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.arguments(*words), env=self.environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                cwd=cwd or self.folder, **options)

    def json(self, *words, **options):
        return json.loads(self.output(*words, **options))

    def start(self, image=True):
        self.know_accelerator()
        self.run("system", "start")
        if image:
            self.run("image", "load", "-i", image_archive())

    def know_accelerator(self):
        """What the first system of this build found out, by a guest under KVM, where that takes its
        whole deadline. The daemon believes it only of the same boot and guest."""
        if self.prefix:
            return
        found = BUILD / "tests" / "accelerator.json"
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
        if not found.exists() or json.loads(found.read_text())["boot_id"] != boot:
            first = System()
            try:
                first.run("system", "start")
                found.parent.mkdir(parents=True, exist_ok=True)
                kept = found.with_suffix(f".{os.getpid()}")
                shutil.copy(first.app_root / "accelerator.json", kept)
                kept.rename(found)
            finally:
                first.remove()
        self.app_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.app_root / "accelerator.json").exists():
            shutil.copy(found, self.app_root)

    def daemon_pid(self):
        """By the lock of the app root, which only the daemon of this system holds."""
        for pid in self.processes():
            if self.program_of(pid).endswith("container-apiserver"):
                return pid
        return None

    def kill_daemon(self):
        pid = self.daemon_pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the killed daemon to be gone")
        return True

    @staticmethod
    def command_line(pid):
        try:
            raw = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [part.decode(errors="replace") for part in raw.split(b"\0") if part]

    def program_of(self, pid):
        """Empty: it has ended meanwhile."""
        return (self.command_line(pid) or [""])[0]

    def executable_of(self, pid):
        """The file it runs. Empty: it has ended meanwhile."""
        try:
            return os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return ""

    def machines(self):
        """Process ids of the QEMUs that containers run in; the one a template is being made in, which
        alone has its memory in a file it shares, is none of them, nor is the one that machines are
        forked from."""
        def is_machine(words):
            making = any("memory-backend-file" in word and '"share":true' in word for word in words)
            seed = words[1:2] and words[1].startswith("--seed=")
            return bool(words) and "qemu-system" in words[0] and not making and not seed
        return sorted(pid for pid in self.processes() if is_machine(self.command_line(pid)))

    def processes(self):
        """Every process started for this system: it has the app root in its environment, or this
        system's folder in its arguments."""
        found = []
        own = [f"CONTAINER_APP_ROOT={self.app_root}", f"XDG_DATA_HOME={self.folder}/data"]
        marks = [mark.encode() for mark in own]
        folder = str(self.folder).encode()
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                arguments = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state not in "ZX" and (folder in arguments or
                                      any(mark in environment.split(b"\0") for mark in marks)):
                found.append(int(entry.name))
        return found

    def daemon_log(self):
        log = self.app_root / "log" / "apiserver.log"
        if not log.exists():
            return "(no daemon log)"
        return "daemon log, end:\n" + "\n".join(
            log.read_text(errors="replace").splitlines()[-40:])

    def containers(self):
        return {entry["configuration"]["id"]: entry
                for entry in self.json("ls", "-a", "--format", "json")}

    def status(self, name):
        entry = self.containers().get(name)
        return entry and entry["status"]

    def run_files(self):
        return sorted(str(path.relative_to(self.run_base))
                      for path in self.run_base.rglob("*") if not path.is_dir())

    def remove(self):
        """Ends whatever is left, by pid, and deletes the folder."""
        subprocess.run(self.arguments("system", "stop"), env=self.environment, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL, check=False)
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.folder, ignore_errors=True)


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def network_namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def host_network():
    """Links, addresses and routes of this namespace, as anybody could look them up."""
    return [subprocess.run(["ip", "-oneline", *words], check=True, capture_output=True,
                           text=True).stdout
            for words in (["link", "show"], ["address", "show"], ["route", "show", "table", "all"])]


class Traces:
    """What a running system is made of, noted so that its end can be judged. Its TAPs, bridges and
    addresses live in its network namespaces and go with them."""

    def __init__(self, home):
        self.home = home
        self.pids = set(home.processes())
        self.namespaces = {network_namespace(pid) for pid in self.pids} - \
            {network_namespace(os.getpid()), None}
        sockets = pathlib.Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
        self.sockets = sum(str(home.folder) in line for line in sockets.splitlines())

    def left(self):
        """Empty once nothing of the system lives, listens or lies about."""
        found = {pid: " ".join(self.home.command_line(pid)) or "?"
                 for pid in self.pids | set(self.home.processes()) if alive(pid)}
        inside = {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                  if network_namespace(pid) in self.namespaces}
        sockets = pathlib.Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
        return {what: value for what, value in (
            ("processes", found), ("in its network namespaces", inside),
            ("sockets", [line for line in sockets.splitlines() if str(self.home.folder) in line]),
            ("files of the run", self.home.run_files())) if value}


class OrdinaryUser:
    """Commands as `nobody`: no capabilities, no groups; /dev/net/tun as distributions ship it (0666),
    in a mount namespace of their own, since this machine's node may be closed. Root only."""

    def __init__(self):
        self.user = pwd.getpwnam("nobody")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-user-"))
        self.folder.chmod(0o755)
        device = self.folder / "tun"
        os.mknod(device, 0o20666, os.makedev(10, 200))
        os.chmod(device, 0o666)
        self.home = self.folder / "home"
        self.home.mkdir()
        self.own(self.home)
        script = f'mount --bind {device} /dev/net/tun && exec setpriv --reuid={self.user.pw_uid} ' \
            f'--regid={self.user.pw_gid} --clear-groups --inh-caps=-all --bounding-set=-all ' \
            f'--no-new-privs "$@"'
        self.prefix = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script,
                       "sh"]

    def own(self, *paths):
        for path in paths:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def system(self, program, **options):
        """Their system; `program` must lie where others can look."""
        home = System(self.home, self.prefix, **options)
        self.own(home.run_base, home.home)
        home.program = program
        return home

    def archive(self):
        copy = self.folder / "hello.tar"
        if not copy.exists():
            shutil.copy(image_archive(), copy)
        return copy

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class SystemTest(unittest.TestCase):
    """One started system for all tests of a class; each test cleans up its own containers."""

    maxDiff = None
    system: System

    @classmethod
    def setUpClass(cls):
        cls.system = System()
        try:
            cls.system.start()
        except BaseException:
            print(cls.system.daemon_log(), file=sys.stderr)
            cls.system.remove()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.system.remove()

    def tearDown(self):
        self.system.run("rm", "-f", "-a", check=False)

    def assert_exit(self, done, code):
        self.assertEqual(done.returncode, code,
                         f"stdout: {done.stdout}\nstderr: {done.stderr}\n"
                         f"{self.system.daemon_log()}")


class TimedResult(unittest.TextTestResult):
    """Says how long each test took: time is what tests with real machines cost most."""

    def startTest(self, test):
        self.begun = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.stream.write(f"{time.monotonic() - self.begun:.1f} s ")
        super().addSuccess(test)


def main():
    """For `if __name__ == "__main__"` of each test program: PROGRAM BUILD_FOLDER [unittest …]."""
    global BUILD
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} BUILD_FOLDER [TEST …]")
    module = sys.modules["system"]
    module.BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(module="__main__", verbosity=2,
                  testRunner=unittest.TextTestRunner(verbosity=2, resultclass=TimedResult))
