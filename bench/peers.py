"""Other engines on this machine, each alone in namespaces that a benchmark makes and takes away.

Everything they write lies in a folder of ours; every process they start is ended by its id. What
cannot run here says why (CannotRun) and the benchmark goes on without it.
"""
import gzip
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

PODMAN_SETTINGS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
helper_binaries_dir = ["/usr/libexec/podman", "/usr/lib/podman", "/usr/bin"]
events_logger = "none"
[network]
network_config_dir = "{folder}/networks"
"""
READY_TIMEOUT_S = 30


class CannotRun(Exception):
    """The peer is not to be had on this machine; why."""


def install(programs):
    """`programs`: {program: package}. From the distribution, and only what is missing."""
    if os.geteuid() != 0:
        raise CannotRun("it is measured as root")
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if not missing:
        return
    # RUNLEVEL: no service is started behind our back.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing],
                          check=False, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise CannotRun(f"its packages cannot be installed: {done.stderr[-200:].strip()}")


def blob_of(archive, digest):
    return archive.extractfile("blobs/" + digest.replace(":", "/")).read()


def unpacked(layer):
    return gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer


def manifest_of(archive):
    index = json.load(archive.extractfile("index.json"))
    return json.loads(blob_of(archive, index["manifests"][0]["digest"]))


def docker_archive(source, target, image):
    """The same layers and configuration in the form that the distribution's docker reads."""
    with tarfile.open(source) as archive, tarfile.open(target, "w") as made:
        def add(name, content):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
        manifest = manifest_of(archive)
        layers = []
        for number, layer in enumerate(manifest["layers"]):
            layers.append(f"{number}/layer.tar")
            add(layers[-1], unpacked(blob_of(archive, layer["digest"])))
        add("config.json", blob_of(archive, manifest["config"]["digest"]))
        add("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": [image],
                                          "Layers": layers}]).encode())


class Namespaces:
    """A mount namespace, and as a rule a network one, of their own, held open by one process."""

    def __init__(self, own_network=True):
        self.own_network = own_network
        # crun refuses a host that mounts both kinds of cgroups; our own view has only one.
        script = ("[ ! -d /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified; "
                  + ("ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; "
                     if own_network else "") + "echo ready; exec sleep 86400")
        self.holder = subprocess.Popen(
            ["unshare", *(["--net"] if own_network else []), "--mount", "--propagation",
             "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.holder.stdout.readline() != b"ready\n":
            raise CannotRun("it gets no namespaces: "
                            + self.holder.stderr.read().decode(errors="replace").strip())

    def arguments(self, *words):
        kinds = ["-m", "-n"] if self.own_network else ["-m"]
        return ["nsenter", *kinds, "-t", str(self.holder.pid), *map(str, words)]

    def processes(self):
        """Whoever lives in the namespaces, but their holder."""
        kind = "ns/net" if self.own_network else "ns/mnt"
        wanted = os.readlink(f"/proc/{self.holder.pid}/{kind}")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.holder.pid:
                continue
            try:
                if os.readlink(entry / kind) == wanted:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def close(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        self.holder.stderr.close()


class Peer:
    """`run` takes the engine's own words, as `container` would take them."""

    name = "peer"
    programs = {}

    def __init__(self, folder, archive, image, own_network=True):
        self.own_network = own_network
        self.folder = pathlib.Path(folder) / self.name
        self.folder.mkdir()
        self.archive = archive
        self.image = image
        self.namespaces = None
        self.environment = dict(os.environ)

    def command(self, *words):
        raise NotImplementedError

    def open(self):
        install(self.programs)
        self.namespaces = Namespaces(self.own_network)
        try:
            self.prepare()
        except subprocess.CalledProcessError as error:
            raise CannotRun((error.stderr or b"").decode(errors="replace")[-300:].strip()) \
                from error

    def prepare(self):
        raise NotImplementedError

    def call(self, arguments, **options):
        return subprocess.run(self.namespaces.arguments(*arguments), check=True,
                              env=self.environment, stdin=subprocess.DEVNULL,
                              stdout=options.pop("stdout", subprocess.DEVNULL),
                              stderr=subprocess.PIPE, **options)

    def run(self, *words):
        self.call(self.command(*words))

    def clean(self):
        """Before its namespaces go: whatever it left running."""

    def close(self):
        if self.namespaces is not None:
            self.clean()
            self.namespaces.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Podman(Peer):
    name = "podman"
    programs = {"podman": "podman", "crun": "crun", "nft": "nftables", "iptables": "iptables",
                "/usr/lib/podman/netavark": "netavark",
                "/usr/lib/podman/aardvark-dns": "aardvark-dns"}

    def command(self, *words):
        return ["podman", "--root", str(self.folder / "root"), "--runroot",
                str(self.folder / "run"), "--storage-driver", "overlay", "--cgroup-manager",
                "cgroupfs", "--events-backend", "none", "--runtime", "crun", *map(str, words)]

    def prepare(self):
        settings = self.folder / "containers.conf"
        settings.write_text(PODMAN_SETTINGS.format(folder=self.folder))
        self.environment["CONTAINERS_CONF"] = str(settings)
        self.run("load", "-q", "-i", self.archive)
        self.run("run", "--rm", "--network", "none", self.image, "true")

    def compose(self, file, *words):
        wrapper = self.folder / "podman"
        wrapper.write_text("#!/bin/sh\nexec " + " ".join(self.command()) + ' "$@"\n')
        wrapper.chmod(0o755)
        self.call(["podman-compose", "--podman-path", wrapper, "-f", file, *words],
                  cwd=pathlib.Path(file).parent)

    def clean(self):
        subprocess.run(self.namespaces.arguments(*self.command("rm", "-fa", "-t", "0")),
                       env=self.environment, check=False, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Docker(Peer):
    name = "docker"
    programs = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}

    def __init__(self, folder, archive, image):
        super().__init__(folder, archive, image)
        self.daemon = None
        self.environment["DOCKER_HOST"] = f"unix://{self.folder}/socket"
        self.environment["DOCKER_CONFIG"] = str(self.folder)

    def command(self, *words):
        # The distribution's, not another one that somebody put before it.
        program = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
        return [program, *map(str, words)]

    def prepare(self):
        log = open(self.folder / "log", "wb")  # pylint: disable=consider-using-with
        self.daemon = subprocess.Popen(
            self.namespaces.arguments(
                "dockerd", "--data-root", self.folder / "data", "--exec-root",
                self.folder / "exec", "-H", self.environment["DOCKER_HOST"], "-p",
                self.folder / "pid", "--exec-opt", "native.cgroupdriver=cgroupfs",
                "--default-ulimit", "nofile=1024:4096", "--userland-proxy=false"),
            env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.run("version")
                break
            except subprocess.CalledProcessError as error:
                if self.daemon.poll() is not None or time.monotonic() > deadline:
                    tail = (self.folder / "log").read_text(errors="replace")[-300:].strip()
                    raise CannotRun(f"dockerd does not come up: {tail}") from error
                time.sleep(0.1)
        converted = self.folder / "image.tar"
        docker_archive(self.archive, converted, self.image)
        self.run("load", "-q", "-i", converted)
        self.run("run", "--rm", "--network", "none", self.image, "true")

    def build(self, context, buildkit, *flags):
        environment = {**self.environment, "DOCKER_BUILDKIT": "1" if buildkit else "0"}
        subprocess.run(
            self.namespaces.arguments(*self.command("build", "-q", "--network", "none", *flags,
                                                    "-t", "bench", context)),
            check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)

    def compose(self, file, *words):
        self.environment["COMPOSE_PARALLEL_LIMIT"] = "64"
        self.call(["docker-compose", "-f", file, *words], cwd=pathlib.Path(file).parent)

    def daemons(self):
        """dockerd and the containerd it started."""
        found = [self.daemon_pid()]
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"containerd") and \
                    any(str(self.folder).encode() in word for word in words):
                found.append(int(entry.name))
        return found

    def daemon_pid(self):
        return int((self.folder / "pid").read_text())

    def clean(self):
        if self.daemon is None:
            return
        if self.daemon.poll() is None:
            ids = subprocess.run(self.namespaces.arguments(*self.command("ps", "-aq")),
                                 env=self.environment, check=False, stdout=subprocess.PIPE,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if ids.stdout.split():
                subprocess.run(
                    self.namespaces.arguments(
                        *self.command("rm", "-f", *ids.stdout.decode().split())),
                    env=self.environment, check=False, stdout=subprocess.DEVNULL,
                    stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            os.kill(self.daemon_pid(), signal.SIGTERM)
        self.daemon.wait()


class Runsc(Peer):
    """gVisor itself, without an engine above it: the least a sandboxed start can cost there."""

    name = "runsc"
    programs = {"runsc": "runsc"}

    def prepare(self):
        self.unpack()
        self.runs = 0
        self.run()

    def unpack(self):
        """A bundle of the image's layers and the smallest configuration that runs `true`."""
        root = self.folder / "bundle/rootfs"
        root.mkdir(parents=True)
        with tarfile.open(self.archive) as archive:
            for layer in manifest_of(archive)["layers"]:
                content = unpacked(blob_of(archive, layer["digest"]))
                with tarfile.open(fileobj=io.BytesIO(content)) as files:
                    files.extractall(root)
        (self.folder / "bundle/config.json").write_text(json.dumps({
            "ociVersion": "1.0.0", "root": {"path": "rootfs"}, "hostname": "peer",
            "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0},
                        "env": ["PATH=/bin"]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": kind}
                                     for kind in ("pid", "network", "ipc", "uts", "mount")]}}))

    def run(self, *_words):
        self.runs += 1
        self.call(["runsc", "--root", self.folder / "state", "--platform=ptrace",
                   "--network=none", "--ignore-cgroups", "run", "--bundle",
                   self.folder / "bundle", f"peer{self.runs}"])


def opened(kinds, folder, archive, image):
    """{name: peer} of those that run here; the others are told of."""
    peers = {}
    for kind in kinds:
        peer = kind(folder, archive, image)
        try:
            peer.open()
            peers[peer.name] = peer
        except CannotRun as error:
            print(f"no ratios against {peer.name}, it cannot run here: {error}", flush=True)
            peer.close()
    return peers
