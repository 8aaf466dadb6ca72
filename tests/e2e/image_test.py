#!/usr/bin/env python3
"""Images in and out: names, archives that other tools write and read, space, and what is kept."""
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile

import system
from system import IMAGE, SOURCE, System, SystemTest, wait_until

OTHER = "localhost/other:1"


def archive_of(folder, tag, text):
    """The test's busybox image with one more file, so that it is another image."""
    (folder / "version").write_text(text)
    archive = folder / f"{tag.replace('/', '-')}.tar"
    subprocess.run([SOURCE / "tools/make_busybox_image.py", archive, "--tag", tag,
                    "--add", f"{folder}/version=/etc/version"], check=True)
    return archive


def skopeo(*words):
    done = subprocess.run(["skopeo", "--insecure-policy", *map(str, words)], check=False,
                          capture_output=True)
    if done.returncode != 0:
        raise system.Failed(f"skopeo {' '.join(map(str, words))}: {done.stderr.decode()}")
    return done.stdout


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layout_blobs(folder):
    return {path.name for path in (folder / "blobs/sha256").iterdir()}


def oci_archive(layer, diff_id, tag, config=None):
    """An archive of one image with one layer, which is gzip or plain."""
    document = json.dumps({"architecture": "amd64", "os": "linux", "config": config or {},
                           "rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(document), "size": len(document)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(layer), "size": len(layer)}]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest),
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag}}]}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in [("index.json", index)] + [
                ("blobs/sha256/" + hashlib.sha256(blob).hexdigest(), blob)
                for blob in (document, manifest, layer)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def busybox_archive(tag, links, config):
    """An image of busybox alone, with symbolic links where folders are expected."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        program = pathlib.Path("/bin/busybox").read_bytes()
        for name in ("bin/busybox", "bin/sh", "bin/ls", "bin/cat", "bin/echo"):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(program), 0o755
            tar.addfile(entry, io.BytesIO(program))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    layer = raw.getvalue()
    return oci_archive(layer, digest(layer), tag, config)


class Images(SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.scratch = pathlib.Path(tempfile.mkdtemp(dir=cls.system.folder))
        cls.other = archive_of(cls.scratch, OTHER, "two\n")

    def digest_of(self, reference):
        return self.system.json("image", "inspect", reference)[0]["descriptor"]["digest"]

    def setUp(self):
        self.system.run("image", "load", "-i", system.image_archive())
        self.canary = self.system.folder / "canary"
        self.canary.mkdir(exist_ok=True)
        (self.canary / "victim").write_text("KEEP")

    def tearDown(self):
        super().tearDown()
        self.system.run("image", "rm", "-a", "-f", check=False)

    def test_a_tag_that_moves_leaves_running_containers_on_their_image(self):
        first = self.digest_of(IMAGE)
        self.system.run("run", "-d", "--name", "keeper", "--network", "none", IMAGE,
                        "sleep", "1000")
        self.system.run("image", "load", "-i", self.other)
        self.system.run("image", "tag", OTHER, IMAGE)
        self.assertNotEqual(self.digest_of(IMAGE), first)
        self.assertEqual(self.system.output("image", "prune"), "")  # the container has it
        check = ("exec", "keeper", "sh", "-c", "ls /etc/version 2>&1; echo up")
        self.assertIn("No such file", self.system.output(*check))
        self.system.run("stop", "-t", "0", "keeper")
        self.system.run("start", "keeper")
        self.assertIn("No such file", self.system.output(*check))
        fresh = self.system.run("run", "--rm", "--network", "none", IMAGE, "cat", "/etc/version")
        self.assertEqual(fresh.stdout, "two\n")
        refused = self.system.run("image", "rm", first, check=False)
        self.assert_exit(refused, 1)
        self.assertIn("is used by a container", refused.stderr)
        self.system.run("rm", "-f", "keeper")
        pruned = self.system.run("image", "prune")
        self.assertEqual(pruned.stdout, first + "\n")
        self.assertRegex(pruned.stderr, r"Reclaimed \d+\.\d [KM]B in disk space")

    def test_what_we_save_others_read(self):
        archive = self.scratch / "saved.tar"
        done = self.system.run("image", "save", IMAGE, "-o", archive)
        self.assertEqual(done.stdout, IMAGE + "\n")
        raw = skopeo("inspect", "--raw", f"oci-archive:{archive}:{IMAGE}")
        self.assertEqual(digest(raw), self.digest_of(IMAGE))
        layout = self.scratch / "layout"
        skopeo("copy", f"oci-archive:{archive}", f"oci:{layout}:copy")
        held = self.system.app_root / "images"
        self.assertEqual(layout_blobs(layout), layout_blobs(held))
        subprocess.run(["umoci", "unpack", "--rootless", "--image", f"{layout}:copy",
                        self.scratch / "bundle"], check=True, capture_output=True)
        self.assertTrue((self.scratch / "bundle/rootfs/bin/busybox").exists())
        config = json.loads(skopeo("inspect", "--config", f"docker-archive:{archive}:{IMAGE}"))
        self.assertEqual(config["architecture"], "amd64")
        # The store itself is a layout that they read in place.
        self.assertEqual(digest(skopeo("inspect", "--raw", f"oci:{held}:{IMAGE}")),
                         self.digest_of(IMAGE))

    def test_what_others_write_we_load(self):
        source = f"oci-archive:{system.image_archive()}"
        for kind, target in (("oci-archive", f"oci-archive:{self.scratch}/a.tar:localhost/a:1"),
                             ("zstd", f"oci-archive:{self.scratch}/z.tar:localhost/z:1"),
                             ("docker", f"docker-archive:{self.scratch}/d.tar:localhost/d:1")):
            with self.subTest(kind):
                path, name = target.split(":", 1)[1].split(":", 1)
                flags = ["--dest-compress-format", "zstd", "--dest-compress"] \
                    if kind == "zstd" else []
                pathlib.Path(path).unlink(missing_ok=True)
                skopeo("copy", *flags, source, target)
                loaded = self.system.run("image", "load", "-i", path)
                self.assertEqual(loaded.stdout, name + "\n")
                if kind != "docker":  # that form has no manifest to compare
                    raw = skopeo("inspect", "--raw", target)
                    self.assertEqual(self.digest_of(name), digest(raw))
        done = self.system.run("run", "--rm", "--network", "none", "localhost/z:1", "echo", "runs",
                               check=False)
        self.assert_exit(done, 0)
        self.assertEqual(done.stdout, "runs\n")

    def test_an_archive_on_stdout_is_the_archive_and_nothing_else(self):
        file = self.scratch / "file.tar"
        self.system.run("image", "save", "-o", file, IMAGE)
        piped = self.system.run("image", "save", IMAGE, text=False)
        self.assertEqual(piped.stdout, file.read_bytes())
        self.assertEqual(piped.stdout[-1024:], bytes(1024))
        self.assertEqual(piped.stderr, (IMAGE + "\n").encode())
        again = self.system.run("image", "load", input=piped.stdout, text=False)
        self.assertEqual(again.stdout, (IMAGE + "\n").encode())
        missing = self.system.run("image", "save", "localhost/missing:1", "-o",
                                  self.scratch / "none.tar", check=False)
        self.assert_exit(missing, 1)
        self.assertEqual([p for p in self.scratch.iterdir() if "none.tar" in p.name], [])

    def test_lists_show_every_platform(self):
        lines = self.system.output("image", "ls", "-v").splitlines()
        self.assertEqual(lines[0].split("  ")[0], "NAME")
        self.assertRegex(lines[0], "^NAME +TAG +INDEX DIGEST +OS +ARCH +VARIANT +FULL SIZE +"
                                   "CREATED +MANIFEST DIGEST$")
        self.assertRegex(lines[1], "^localhost/hello +1 +[0-9a-f]{12} +linux +amd64 ")
        self.assertIn('[[items]]\n', self.system.output("images", "ls", "--format", "toml"))
        self.assertIn('- "', self.system.output("i", "ls", "-v", "--format", "yaml"))
        self.assertEqual(self.system.output("image", "ls", "-q"), IMAGE + "\n")

    def test_the_space_that_images_containers_and_volumes_take(self):
        self.system.run("run", "-d", "--name", "up", "--network", "none", "-v", "data:/data",
                        IMAGE, "sh", "-c",
                        "dd if=/dev/zero of=/data/x bs=1M count=3; sync; touch /data/done; "
                        "sleep 1000")
        wait_until(lambda: self.system.run("exec", "up", "ls", "/data/done",
                                           check=False).returncode == 0, "the volume to be filled")
        use = self.system.json("system", "df", "--format", "json")
        self.assertEqual((use["images"]["total"], use["images"]["active"]), (1, 1))
        self.assertEqual(use["images"]["reclaimable"], 0)
        self.assertEqual((use["containers"]["total"], use["containers"]["active"]), (1, 1))
        self.assertEqual((use["volumes"]["total"], use["volumes"]["active"]), (1, 1))
        self.assertGreaterEqual(use["volumes"]["sizeInBytes"], 3 << 20)
        self.system.run("stop", "-t", "0", "up")
        use = self.system.json("system", "df", "--format", "json")
        self.assertEqual(use["containers"]["active"], 0)
        self.assertEqual(use["containers"]["reclaimable"], use["containers"]["sizeInBytes"])
        table = self.system.output("system", "df").splitlines()
        self.assertRegex(table[0], "^TYPE +TOTAL +ACTIVE +SIZE +RECLAIMABLE$")
        self.assertRegex(table[1], r"^Images +1 +1 +\d+\.\d MB +0\.0 KB \(0%\)$")
        self.assertRegex(table[3], r"^Local Volumes +1 +1 +3\.\d MB ")

    def test_removing_says_what_it_did(self):
        self.system.run("image", "tag", IMAGE, "localhost/again:1")
        done = self.system.run("image", "rm", "localhost/again:1")
        self.assertEqual((done.stdout, done.stderr),
                         ("localhost/again:1\n", "Reclaimed Zero KB in disk space\n"))
        self.assert_exit(self.system.run("image", "rm", "localhost/missing:1", check=False), 1)
        self.system.run("image", "rm", "-f", "localhost/missing:1")
        digits = self.digest_of(IMAGE)[7:19]
        self.assertEqual(self.system.output("image", "rm", digits), IMAGE + "\n")
        self.assertEqual(self.system.output("image", "ls", "-q"), "")

    def test_damage_is_found_and_repaired(self):
        held = self.system.app_root / "images"
        sound = self.system.run("image", "fsck")
        self.assertEqual((sound.stdout, sound.stderr),
                         ("", "3 blobs and 1 disks checked: all is well\n"))
        disk = next((held / "layers/sha256").glob("*.erofs"))
        disk.chmod(0o644)
        with open(disk, "r+b") as file:
            file.seek(4096)
            file.write(b"damage")
        repaired = self.system.run("image", "fsck")
        self.assertIn("is made anew", repaired.stdout)
        layer = max((held / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        layer.chmod(0o644)
        with open(layer, "r+b") as file:
            file.seek(4096)
            file.write(b"damage")
        damaged = self.system.run("image", "fsck", check=False)
        self.assert_exit(damaged, 1)
        self.assertIn(f"sha256:{layer.name} of image '{IMAGE}' is gone, and cannot be fetched "
                      "again (", damaged.stdout)
        self.system.run("image", "load", "-i", system.image_archive())
        self.assertEqual([path.name[:64] for path in (held / "damaged").iterdir()], [layer.name])
        self.assert_exit(self.system.run("image", "fsck"), 0)
        self.assertEqual(list((held / "damaged").iterdir()), [])

    def store(self, part):
        return sorted(path.name for path in (self.system.app_root / "images" / part).iterdir())

    def test_a_load_that_takes_long_holds_nobody_up_and_leaves_nothing_when_killed(self):
        before = self.store("blobs/sha256")
        loading = self.system.open("image", "load", stdin=subprocess.PIPE)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            entry = tarfile.TarInfo("blobs/sha256/" + hashlib.sha256(b"x" * 9999).hexdigest())
            entry.size = 9999
            tar.addfile(entry, io.BytesIO(b"x" * 9999))
        content.seek(0)
        loading.stdin.write(content.read(10240 + 512))
        loading.stdin.flush()
        wait_until(lambda: self.store("blobs/sha256") != before or self.store("ingest"),
                   "the first bytes to be in the store")
        self.system.run("image", "load", "-i", system.image_archive(), timeout=30)
        self.system.run("image", "tag", IMAGE, OTHER, timeout=30)
        self.system.run("image", "rm", OTHER, timeout=30)
        self.assertIsNone(loading.poll())
        self.system.kill_daemon()
        loading.kill()
        loading.communicate()
        self.system.run("system", "start")
        wait_until(lambda: self.store("blobs/sha256") == before, "what was loaded to be collected")
        self.assertEqual(self.store("ingest"), [])
        self.assertEqual(self.store("partial"), [])

    # Rows A5 and A16 of the attack table: an image's links where the system puts something.

    def assert_untouched(self):
        self.assertEqual([path.name for path in self.canary.iterdir()], ["victim"])
        self.assertEqual((self.canary / "victim").read_text(), "KEEP")

    def run_image(self, links, config, *command):
        self.system.run("image", "load", text=False,
                        input=busybox_archive("localhost/links:1", links, config))
        return self.system.run("run", "--name", "links", "--network", "none", "localhost/links:1",
                               *command, check=False)

    def test_folders_of_the_system_that_are_links_lead_nowhere_outside(self):
        done = self.run_image({"dev": f"/../..{self.canary}", "etc": f"/../..{self.canary}"}, {},
                              "/bin/echo", "inside")
        self.assertIn(done.returncode, (0, 1), done.stderr)
        self.assertIn("inside" if done.returncode == 0 else "Error: ", done.stdout + done.stderr)
        self.assert_untouched()
        self.system.run("ls", timeout=5)

    def test_a_volume_takes_over_nothing_through_a_link(self):
        done = self.run_image({"v": f"/../..{self.canary}"}, {"Volumes": {"/v": {}}},
                              "/bin/echo", "inside")
        self.assertIn(done.returncode, (0, 1), done.stderr)
        volumes = self.system.app_root / "volumes"
        self.assertEqual([path for path in volumes.rglob("*") if path.name == "victim"], [])
        self.assert_untouched()


class Bombs(SystemTest):
    """Layers that unpack to much more than there is, under a small file system."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-e2e-bomb-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "container-test", cls.folder],
                       check=True)
        # No machine runs here, so none is tried under KVM.
        cls.system = System(folder=cls.folder, environment={"CONTAINER_ACCELERATOR": "tcg"})
        cls.system.start(image=False)

    @classmethod
    def tearDownClass(cls):
        cls.system.remove()
        subprocess.run(["umount", "-l", cls.folder], check=True)
        cls.folder.rmdir()

    def used(self):
        info = os.statvfs(self.folder)
        return (info.f_blocks - info.f_bfree) * info.f_frsize

    def test_a_layer_larger_than_the_disk_is_refused_and_leaves_nothing(self):
        size = 256 << 20
        entry = tarfile.TarInfo("bomb")
        entry.size = size
        noise = bytes(range(1, 256)) * 4112  # no holes
        header = entry.tobuf()
        body = size // len(noise)
        chunks = [header, *([noise] * body), noise[:size - body * len(noise)], bytes(1024)]
        whole = hashlib.sha256()
        for chunk in chunks:
            whole.update(chunk)
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
            for chunk in chunks:
                stream.write(chunk)
        archive = oci_archive(packed.getvalue(), "sha256:" + whole.hexdigest(), "localhost/bomb:1")
        self.assertLess(len(archive), 4 << 20)
        before, pid = self.used(), self.system.daemon_pid()
        done = self.system.run("image", "load", input=archive, text=False, check=False, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), "(?i)no space")
        self.assertLess(abs(self.used() - before), 1 << 20)
        self.assertEqual(self.system.daemon_pid(), pid)
        self.system.run("ls", timeout=5)


if __name__ == "__main__":
    system.main()
