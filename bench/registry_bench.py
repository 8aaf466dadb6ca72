#!/usr/bin/env python3
"""Pulls and pushes against podman, skopeo and umoci, from one docker-registry on loopback.
Usage: bench/registry_bench.py [BUILD_FOLDER] [RUNS]

  pull, many files    57,000 files, 900 MB: to where a container can start; against `podman pull`
                      and `skopeo copy` with `umoci unpack`: at most 0.3 of the faster, in time and
                      in CPU seconds (of all processes but the registry)
  pull, few files     270 MB: the same
  pull again          everything is there: at most 0.3 of podman
  to the store        nothing unpacked, against `skopeo copy` to an OCI layout: at most 0.7
  push                the same image to an empty repository, against `skopeo copy`: at most 0.9
  memory              peak resident size of the daemon: at most 128 MB

The image is made of this machine's own files (headers, documentation, compilers), so sizes differ
from machine to machine; all candidates get the same bytes. Page cache is warm for all.
"""
import gzip
import hashlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]
import registries  # noqa: E402
import system  # noqa: E402
from measure import Table  # noqa: E402
from peers import CannotRun, Podman  # noqa: E402

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "build").resolve()
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
PEERS = ("skopeo", "umoci", "docker-registry")
MANY = (("/usr/include", "/usr/share/doc", "/usr/src"), ("/usr/lib/gcc", "/usr/libexec"),
        ("/usr/share/locale", "/usr/lib/python3", "/usr/share/perl", "/usr/share/zoneinfo"))
FILES, BYTES = 57_000, 900_000_000
FEW_BYTES = 270_000_000


def need_peers():
    missing = [name for name in PEERS if not shutil.which(name)]
    if missing:
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing],
                       check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"})


class Budget:
    """So much of the machine's files, layer by layer, largest folders first."""

    def __init__(self, files, size):
        self.files, self.size = files, size

    def take(self, size):
        if self.files <= 0 or size > self.size:
            return False
        self.files -= 1
        self.size -= size
        return True


def layer_of(folders, budget, path, smallest=0):
    """A gzip layer and its diff id."""
    class Hashed:
        def __init__(self, file):
            self.file, self.hash = file, hashlib.sha256()

        def write(self, content):
            self.hash.update(content)
            return self.file.write(content)
    with gzip.open(path, "wb", compresslevel=6) as packed:
        out = Hashed(packed)
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for folder in folders:
                for root, _, names in os.walk(folder):
                    for name in sorted(names):
                        file = pathlib.Path(root) / name
                        if file.is_symlink() or not file.is_file():
                            continue
                        size = file.stat().st_size
                        if size >= smallest and budget.take(size):
                            archive.add(file, arcname=str(file).lstrip("/"), recursive=False)
    return "sha256:" + out.hash.hexdigest()


def make_image(folder, sets, files, size, smallest=0):
    """An OCI layout that every tool reads."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    diff_ids, layers = [], []
    total_files, total_bytes = Budget(files, size), size
    for folders in sets:
        path = folder / "layer"
        diff_ids.append(layer_of(folders, total_files, path, smallest))
        content = path.read_bytes()
        layers.append(registries.descriptor(content, registries.LAYER + "+gzip"))
        path.rename(blobs / layers[-1]["digest"].removeprefix("sha256:"))
    config = registries.dump({"architecture": "amd64", "os": "linux",
                              "config": {"Cmd": ["/bin/true"]},
                              "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    manifest = registries.dump({"schemaVersion": 2, "mediaType": registries.MANIFEST,
                                "config": registries.descriptor(config, registries.CONFIG),
                                "layers": layers})
    for part in (config, manifest):
        (blobs / registries.digest(part).removeprefix("sha256:")).write_bytes(part)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = registries.descriptor(manifest, registries.MANIFEST, annotations={
        "org.opencontainers.image.ref.name": "x"})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    print(f"image: {files - total_files.files} files, "
          f"{(total_bytes - total_files.size) / 1e6:.0f} MB unpacked, "
          f"{sum(layer['size'] for layer in layers) / 1e6:.0f} MB packed", flush=True)


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Measured:
    """Wall and CPU seconds of calls; `daemon` gives the process that works beside them."""

    def __init__(self):
        self.wall, self.cpu = {}, {}

    def run(self, name, call, before=None, daemon=None, counted=True):
        if before:
            before()
        os.sync()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        beside = cpu_of(daemon()) if daemon else 0
        begun = time.monotonic()
        call()
        wall = time.monotonic() - begun
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - children.ru_utime - children.ru_stime
        if daemon:
            cpu += cpu_of(daemon()) - beside
        if counted:
            self.wall.setdefault(name, []).append(wall)
            self.cpu.setdefault(name, []).append(cpu)


def quiet(*words, **options):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **options)


def rows(table, what, measured, limit, peers):
    present = [peer for peer in peers if peer in measured.wall]
    for peer in present:
        table.row(f"{what}, {peer}", measured.wall[peer])
        table.row(f"{what}, {peer}, CPU", measured.cpu[peer])
    fastest = min(present, key=lambda one: statistics.median(measured.wall[one]), default=None)
    leanest = min(present, key=lambda one: statistics.median(measured.cpu[one]), default=None)
    table.row(f"{what}, ours", measured.wall["ours"],
              against=measured.wall.get(fastest), limit=limit)
    table.row(f"{what}, ours, CPU", measured.cpu["ours"],
              against=measured.cpu.get(leanest), limit=limit)


class Bench:
    def __init__(self, folder, ours, peer, registry):
        self.folder, self.ours, self.peer, self.registry = folder, ours, peer, registry

    def rm_ours(self, name):
        self.ours.run("image", "rm", "-f", name, check=False)

    def clear(self, path):
        shutil.rmtree(path, ignore_errors=True)

    def unpacked(self, name):
        layout, bundle = self.folder / "layout", self.folder / "bundle"
        quiet("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:x")
        quiet("umoci", "unpack", "--image", f"{layout}:x", bundle)

    def pull(self, table, what, name):
        measured = Measured()
        for number in range(RUNS + 1):
            counted = number > 0
            if self.peer:
                measured.run("podman", lambda: self.peer.run("pull", "-q", "--tls-verify=false",
                                                             name),
                             lambda: self.peer.run("rmi", "-f", "-i", name), counted=counted)
            if number <= 2:  # it is slow, and far from the fastest
                measured.run("skopeo and umoci", lambda: self.unpacked(name),
                             lambda: [self.clear(self.folder / part)
                                      for part in ("layout", "bundle")], counted=counted)
            measured.run("ours", lambda: self.ours.run("image", "pull", "--platform",
                                                       "linux/amd64", name),
                         lambda: self.rm_ours(name), daemon=self.ours.daemon_pid, counted=counted)
        rows(table, what, measured, 0.3, ("podman", "skopeo and umoci"))

    def again(self, table, name):
        measured = Measured()
        for number in range(RUNS + 1):
            if self.peer:
                measured.run("podman", lambda: self.peer.run("pull", "-q", "--tls-verify=false",
                                                             name), counted=number > 0)
            measured.run("ours", lambda: self.ours.run("image", "pull", name),
                         daemon=self.ours.daemon_pid, counted=number > 0)
        rows(table, "pull again", measured, 0.3, ("podman",))

    def to_store(self, table, name):
        """Of an image for another processor, which nobody unpacks. Its layers are those of another
        image, which must not be there already."""
        self.ours.run("image", "prune", "-a")
        measured = Measured()
        for number in range(RUNS + 1):
            layout = self.folder / "layout"
            measured.run("skopeo", lambda: quiet("skopeo", "copy", "--src-tls-verify=false",
                                                 f"docker://{name}", f"oci:{layout}:x"),
                         lambda: self.clear(layout), counted=number > 0)
            measured.run("ours", lambda: self.ours.run("image", "pull", name),
                         lambda: self.rm_ours(name), daemon=self.ours.daemon_pid,
                         counted=number > 0)
        rows(table, "to the store", measured, 0.7, ("skopeo",))

    def push(self, table, layout, name):
        measured = Measured()
        for number in range(RUNS + 1):
            empty = self.folder / "registry/data"
            measured.run("skopeo", lambda: quiet("skopeo", "copy", "--dest-tls-verify=false",
                                                 f"oci:{layout}:x", f"docker://{name}"),
                         lambda: self.clear(empty), counted=number > 0)
            measured.run("ours", lambda: self.ours.run("image", "push", name),
                         lambda: self.clear(empty), daemon=self.ours.daemon_pid,
                         counted=number > 0)
        rows(table, "push", measured, 0.9, ("skopeo",))


def foreign(layout, to):
    """The same image for a processor that this machine has not."""
    shutil.copytree(layout, to)
    index = json.loads((to / "index.json").read_text())
    blobs = to / "blobs/sha256"

    def read(digest):
        return json.loads((blobs / digest.removeprefix("sha256:")).read_text())

    def write(document):
        content = registries.dump(document)
        (blobs / registries.digest(content).removeprefix("sha256:")).write_bytes(content)
        return content
    manifest = read(index["manifests"][0]["digest"])
    config = read(manifest["config"]["digest"])
    config["architecture"] = "s390x"
    manifest["config"] = registries.descriptor(write(config), registries.CONFIG)
    index["manifests"][0].update(registries.descriptor(write(manifest), registries.MANIFEST))
    (to / "index.json").write_text(json.dumps(index))


def main():
    need_peers()
    system.BUILD = BUILD
    ours = system.System()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        registry = registries.Registry(folder / "registry")
        peer = Podman(folder, system.image_archive(), system.IMAGE, own_network=False)
        try:
            try:
                peer.open()
            except CannotRun as error:
                print(f"podman cannot run here: {error}")
                peer.close()
                peer = None
            make_image(folder / "many", MANY, FILES, BYTES)
            make_image(folder / "few", (("/usr/bin", "/usr/lib", "/usr/libexec"),), 3000,
                       FEW_BYTES, smallest=1_000_000)
            foreign(folder / "many", folder / "foreign")
            for name in ("many", "few", "foreign"):
                quiet("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}/{name}:x",
                      f"docker://{registry.host}/{name}:1")
            ours.start(image=False)
            bench = Bench(folder, ours, peer, registry)
            table = Table()
            bench.pull(table, "pull, many files", f"{registry.host}/many:1")
            table.row("peak memory of the daemon", [peak_mb(ours.daemon_pid())], unit="MB",
                      scale=1, against=[128.0], limit=1.0)
            bench.again(table, f"{registry.host}/many:1")
            bench.pull(table, "pull, few files", f"{registry.host}/few:1")
            bench.to_store(table, f"{registry.host}/foreign:1")
            ours.run("image", "pull", f"{registry.host}/many:1")
            bench.push(table, folder / "many", f"{registry.host}/many:1")
            table.finish()
        finally:
            ours.remove()
            if peer:
                peer.close()
            registry.close()


if __name__ == "__main__":
    main()
