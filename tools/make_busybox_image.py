#!/usr/bin/env python3
"""Makes a small OCI image from the distribution's static busybox, without a registry.

Usage: tools/make_busybox_image.py OUTPUT.tar [--tag localhost/hello:1] [--add HOST=GUEST ...]

The archive is an OCI image layout with one gzip layer: busybox under every name it answers to, the
few files a C library expects in /etc, and what --add names. The same inputs give the same bytes.
"""
import argparse
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile

BUSYBOX = pathlib.Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:1000:1000:www:/var/www:/bin/sh\n"
GROUP = "root:x:0:\nwww:x:1000:\n"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A tar with fixed owners and times, so that it depends on its content alone."""

    def __init__(self):
        self.raw = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.raw, mode="w", format=tarfile.PAX_FORMAT)
        self.seen = set()

    def _entry(self, name, kind, mode):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.mtime = kind, mode, 0
        return entry

    def parent_of(self, name):
        parent = name.rpartition("/")[0]
        if parent:
            self.folder(parent)

    def folder(self, name, mode=0o755):
        if name in self.seen:
            return
        self.parent_of(name)
        self.seen.add(name)
        self.tar.addfile(self._entry(name, tarfile.DIRTYPE, mode))

    def file(self, name, data, mode=0o644):
        self.parent_of(name)
        entry = self._entry(name, tarfile.REGTYPE, mode)
        entry.size = len(data)
        self.tar.addfile(entry, io.BytesIO(data))

    def hard_link(self, name, target):
        self.parent_of(name)
        entry = self._entry(name, tarfile.LNKTYPE, 0o755)
        entry.linkname = target
        self.tar.addfile(entry)

    def finish(self):
        self.tar.close()
        return self.raw.getvalue()


def fill(layer, additions):
    layer.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    applets = subprocess.check_output([BUSYBOX, "--list-full"], text=True).split()
    for applet in sorted(set(applets) - {"bin/busybox"}):
        layer.hard_link(applet, "bin/busybox")
    for name in ("root", "proc", "sys", "dev", "run", "var/www"):
        layer.folder(name)
    layer.folder("tmp", 0o1777)
    layer.file("etc/passwd", PASSWD.encode())
    layer.file("etc/group", GROUP.encode())
    for addition in additions:
        host, _, guest = addition.partition("=")
        layer.file(guest.lstrip("/"), pathlib.Path(host).read_bytes())


def image_layout(layer_tar, tag):
    """{member name: bytes} of an OCI image layout with one manifest."""
    members = {"oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode()}

    def blob(data, media_type):
        members["blobs/sha256/" + digest(data).partition(":")[2]] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    prefix = "application/vnd.oci.image."
    layer = blob(gzip.compress(layer_tar, mtime=0), prefix + "layer.v1.tar+gzip")
    config = blob(json.dumps({
        "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer_tar)]},
        "history": [{"created_by": "busybox of the distribution"}],
    }, sort_keys=True).encode(), prefix + "config.v1+json")
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": prefix + "manifest.v1+json", "config": config,
        "layers": [layer],
    }, sort_keys=True).encode(), prefix + "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": tag.rpartition(":")[2],
                               "io.containerd.image.name": tag}
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    return members


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--tag", default="localhost/hello:1")
    parser.add_argument("--add", action="append", default=[], metavar="HOST=GUEST")
    options = parser.parse_args()
    if not BUSYBOX.exists():
        sys.exit("make_busybox_image: /bin/busybox is missing; install busybox-static")
    layer = Layer()
    fill(layer, options.add)
    archive = Layer()
    for name, data in image_layout(layer.finish(), options.tag).items():
        archive.file(name, data)
    options.output.write_bytes(archive.finish())


if __name__ == "__main__":
    main()
