#!/usr/bin/env python3
"""Images from and to real registries, and from hostile ones. No machine is started but where a
container is run. Usage: registry_test.py BUILD_FOLDER"""
import gzip
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import registries  # noqa: E402
import system  # noqa: E402
from registries import CONFIG, INDEX, LAYER, MANIFEST, PASSWORD, USER  # noqa: E402
from registries import Content, Fake, Registry, TokenService, descriptor, digest, dump  # noqa: E402


def tar(files):
    import io
    import tarfile
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def skopeo(*words, **options):
    return subprocess.run(["skopeo", *map(str, words)], check=True, capture_output=True,
                          **options).stdout


class Case(unittest.TestCase):
    """A folder, one system, and whatever else the test opens; all gone afterwards."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="container-registry-"))
        self.opened = []
        self.ours = self.open(system.System())
        self.ours.start(image=False)

    def open(self, thing):
        self.opened.append(thing)
        return thing

    def tearDown(self):
        for thing in reversed(self.opened):
            getattr(thing, "remove", None) and thing.remove()
            getattr(thing, "close", None) and thing.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def registry(self, **options):
        return self.open(Registry(self.folder / f"registry{len(self.opened)}", **options))

    def fake(self, answer, **options):
        return self.open(Fake(answer, **options))

    def load(self, name):
        archive = self.folder / "image.tar"
        subprocess.run([system.SOURCE / "tools/make_busybox_image.py", archive, "--tag", name],
                       check=True)
        self.ours.run("image", "load", "-i", archive)

    def digest_here(self, reference, ours=None):
        details = (ours or self.ours).json("image", "inspect", reference)
        return details[0]["configuration"]["descriptor"]["digest"] \
            if "configuration" in details[0] else details[0]["descriptor"]["digest"]

    def refused(self, *words, **options):
        done = self.ours.run(*words, check=False, **options)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stderr.count("Error:"), 1, done.stderr)
        return done.stderr

    def nothing_left(self):
        """No blob under its final name, no partial one, no tag."""
        images = self.ours.app_root / "images"
        for folder in ("blobs/sha256", "layers/sha256", "partial", "ingest"):
            self.assertEqual(sorted(path.name for path in (images / folder).glob("*")), [], folder)
        self.assertEqual(self.ours.output("image", "ls", "-q"), "")

    def assert_secret_is_only_in(self, file):
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        import base64
        secrets = [PASSWORD.encode(), base64.b64encode(f"{USER}:{PASSWORD}".encode())]
        for root, _, names in os.walk(self.ours.folder):
            for name in names:
                path = pathlib.Path(root) / name
                # Machines' disks and memory are sparse files of up to a tebibyte.
                if path == file or not path.is_file() or path.stat().st_size > 64 << 20:
                    continue
                content = path.read_bytes()
                self.assertFalse(any(secret in content for secret in secrets), path)

    def configure(self, text):
        folder = self.ours.home / ".config/container"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(text)


class RealRegistries(Case):
    def test_the_library_that_speaks_to_registries_is_loaded_with_the_first_of_them(self):
        def libraries():
            maps = pathlib.Path(f"/proc/{self.ours.daemon_pid()}/maps").read_text()
            return {name for name in ("libcurl", "libssl", "libkrb5", "libxml2", "libicu")
                    if f"/{name}" in maps}

        registry = self.registry()
        name = f"{registry.host}/hello:1"
        self.load(name)
        self.assertEqual(libraries(), set())
        self.ours.run("image", "push", name)
        self.assertLess({"libcurl", "libssl"}, libraries())

    def test_what_we_push_others_read_and_what_they_push_we_read_byte_for_byte(self):
        registry = self.registry()
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.ours.run("image", "push", name)
        pushed = self.digest_here(name)
        self.assertEqual(digest(registry.fetch("team/hello/manifests/1")), pushed)
        skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{self.folder}/oci:x")
        # They convert to Docker's form and push; we pull and push that on.
        skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2",
               f"docker://{name}", f"docker://{registry.host}/theirs/hello:2")
        theirs = registry.fetch("theirs/hello/manifests/2",
                                "application/vnd.docker.distribution.manifest.v2+json")
        printed = self.ours.output("image", "pull", f"{registry.host}/theirs/hello:2")
        self.assertEqual(printed, f"{registry.host}/theirs/hello:2\n")
        self.assertEqual(self.digest_here(printed.strip()), digest(theirs))

    def test_a_second_push_sends_nothing_and_another_repository_is_mounted_from(self):
        registry = self.registry()
        for name in ("team/hello:1", "other/hello:1"):
            self.load(f"{registry.host}/{name}")
        self.ours.run("image", "push", f"{registry.host}/team/hello:1")
        uploads = registry.log().count("blobs/uploads")
        self.ours.run("image", "push", f"{registry.host}/team/hello:1")
        self.assertEqual(registry.log().count("blobs/uploads"), uploads)
        self.ours.run("image", "push", f"{registry.host}/other/hello:1")
        mounts = [line for line in registry.log().splitlines()
                  if "mount=sha256" in line and "from=team" in line]
        self.assertTrue(mounts, registry.log()[-2000:])
        self.assertTrue(any('http.response.status=201' in line for line in mounts), mounts)

    def test_indexes_artifacts_and_unknown_layers_pass_through_unchanged(self):
        registry = self.registry()
        layer = tar({"hello": b"hi\n"})
        packed = gzip.compress(layer)
        zstd = subprocess.run(["zstd", "-q", "-c"], input=layer, check=True,
                              capture_output=True).stdout
        children = []
        for architecture, blob, kind in (("amd64", packed, "+gzip"), ("arm64", zstd, "+zstd")):
            config = dump({"architecture": architecture, "os": "linux",
                           "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}})
            manifest = dump({"schemaVersion": 2, "mediaType": MANIFEST,
                             "config": descriptor(config, CONFIG),
                             "layers": [descriptor(blob, LAYER + kind)]})
            for part in (config, blob):
                registry.put_blob("a/index", part)
            registry.put_manifest("a/index", digest(manifest), manifest, MANIFEST)
            children.append(descriptor(manifest, MANIFEST, platform={
                "os": "linux", "architecture": architecture}))
        thing = dump({"any": "thing"})
        artifact = dump({"schemaVersion": 2, "mediaType": MANIFEST,
                         "config": descriptor(b"{}", "application/vnd.example.thing"),
                         "layers": [descriptor(thing, "application/vnd.example.part")]})
        for part in (b"{}", thing):
            registry.put_blob("a/index", part)
        registry.put_manifest("a/index", digest(artifact), artifact, MANIFEST)
        children.append(descriptor(artifact, MANIFEST, platform={"os": "unknown",
                                                                 "architecture": "unknown"}))
        index = dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
        registry.put_manifest("a/index", "1", index, INDEX)
        name = f"{registry.host}/a/index:1"
        self.ours.run("image", "pull", name)
        self.assertEqual(self.digest_here(name), digest(index))
        images = self.ours.app_root / "images"
        for part in (packed, zstd, thing, artifact):
            blob = images / "blobs/sha256" / digest(part).removeprefix("sha256:")
            self.assertEqual(blob.read_bytes(), part)
        # Where it can run, the layer is a disk already.
        self.assertEqual(len(list((images / "layers/sha256").glob("*.erofs"))), 1)
        # And back, to a registry that has none of it.
        registry.process.terminate()
        registry.process.wait()
        shutil.rmtree(registry.folder / "data")
        with open(registry.log_file, "ab") as log:
            registry.process = subprocess.Popen(
                ["docker-registry", "serve", registry.folder / "config.json"], stdout=log,
                stderr=log)
        system.wait_until(registry.answers, "docker-registry to answer again")
        self.ours.run("image", "push", name)
        self.assertEqual(registry.fetch("a/index/manifests/1"), index)
        self.ours.run("image", "push", "--platform", "linux/arm64", name)
        self.assertEqual(digest(registry.fetch("a/index/manifests/1")), children[1]["digest"])

    def test_tls_and_a_password(self):
        registry = self.registry(tls=True, auth="htpasswd")
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.assertIn("certificate", self.refused("image", "push", "--scheme", "https", name))
        self.configure(f'[registry.hosts."{registry.host}"]\nscheme = "https"\n'
                       f'ca = "{registry.certificate}"\n')
        self.assertIn("container registry login", self.refused("image", "push", name))
        login = ("registry", "login", registry.host, "-u", USER, "--password-stdin")
        self.assertIn("does not accept", self.refused(*login, input="wrong"))
        self.ours.run(*login, input=PASSWORD + "\n")
        self.ours.run("image", "push", name)
        self.ours.run("image", "rm", name)
        self.ours.run("image", "pull", name)
        self.assertIn(f"{registry.host}  {USER}", self.ours.output("registry", "ls"))
        self.assert_secret_is_only_in(self.ours.home / ".config/container/auth.json")
        self.ours.run("registry", "logout", registry.host)
        self.refused("image", "pull", name)
        self.assertEqual(self.ours.output("registry", "ls", "-q"), "")

    def test_a_token_service_docker_configuration_and_a_credential_helper(self):
        tokens = self.open(TokenService(self.folder / "tokens"))
        registry = self.registry(auth=tokens)
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.refused("image", "push", name)
        helper = self.folder / "bin/docker-credential-test"
        helper.parent.mkdir()
        helper.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 1\nread host\n'
                          f'[ "$host" = "{registry.host}" ] || {{ echo credentials not found in '
                          f'native keychain; exit 1; }}\n'
                          f'echo \'{{"Username":"{USER}","Secret":"{PASSWORD}"}}\'\n')
        helper.chmod(0o755)
        docker = self.ours.home / ".docker"
        docker.mkdir()
        (docker / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
        self.ours.environment["PATH"] = f"{helper.parent}:{self.ours.environment['PATH']}"
        self.ours.run("image", "push", name)
        (docker / "config.json").unlink()
        self.ours.environment.update(CONTAINER_REGISTRY_HOST=registry.host,
                                     CONTAINER_REGISTRY_USER=USER,
                                     CONTAINER_REGISTRY_TOKEN=PASSWORD)
        self.ours.run("image", "pull", name)
        carried = [headers.get("Authorization", "") for _, _, headers in tokens.seen]
        self.assertTrue(any(value.startswith("Basic ") for value in carried))

    def test_a_missing_image_is_pulled_by_run_and_told_of_by_plan(self):
        registry = self.registry()
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.ours.run("image", "push", name)
        pushed = self.digest_here(name)
        self.ours.run("image", "rm", name)
        stack = self.folder / "compose.yaml"
        stack.write_text(f"name: s\nservices:\n  web:\n    image: {name}\n")
        told = self.ours.output("plan", "-f", stack)
        self.assertIn(f"is pulled first ({pushed})", told)
        self.assertEqual(self.ours.output("image", "ls", "-q"), "")
        self.assertIn("--pull", self.ours.output("help", "run"))
        self.refused("run", "--rm", "--pull", "never", "--network", "none", name, "true")
        done = self.ours.run("run", "--rm", "--network", "none", name, "echo", "hi")
        self.assertEqual(done.stdout, "hi\n")
        self.assertEqual(self.digest_here(name), pushed)

    def test_the_default_registry(self):
        registry = self.registry()
        self.load(f"{registry.host}/hello:1")
        self.ours.run("image", "push", f"{registry.host}/hello:1")
        self.assertEqual(self.ours.output("registry", "default", "inspect"), "docker.io\n")
        self.ours.run("registry", "default", "set", registry.host)
        self.assertEqual(self.ours.output("r", "default", "inspect"), f"{registry.host}\n")
        self.assertEqual(self.ours.output("images", "pull", "hello:1"),
                         f"{registry.host}/hello:1\n")
        self.ours.run("registry", "default", "unset")
        self.assertEqual(self.ours.output("registry", "default", "inspect"), "docker.io\n")

    def test_a_mirror_is_asked_first_and_the_registry_when_it_has_nothing(self):
        registry, mirror = self.registry(), self.registry()
        self.load(f"{registry.host}/team/hello:1")
        self.ours.run("image", "push", f"{registry.host}/team/hello:1")
        self.ours.run("image", "rm", f"{registry.host}/team/hello:1")
        self.configure(f'[registry.hosts."{registry.host}"]\nmirrors = ["http://{mirror.host}"]\n')
        self.ours.run("image", "pull", f"{registry.host}/team/hello:1")
        self.assertIn("manifests/1", mirror.log())


class BuildsAndRepairs(Case):
    def build(self, dockerfile, *words, ours=None, **options):
        folder = self.folder / "context"
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "page").write_text("page")
        return (ours or self.ours).run("build", "--progress", "plain", "-t", "localhost/made:1",
                                       *words, folder, **options)

    def test_images_of_a_build_are_pulled_with_the_commands_login(self):
        registry = self.registry(auth="htpasswd")
        base, other = (f"{registry.host}/team/{name}:1" for name in ("base", "other"))
        login = ("registry", "login", registry.host, "-u", USER, "--password-stdin")
        self.ours.run(*login, input=PASSWORD + "\n")
        for name in (base, other):
            self.load(name)
            self.ours.run("image", "push", name)
        self.ours.run("image", "rm", base, other)
        self.ours.run("registry", "logout", registry.host)
        text = f"FROM {base}\nCOPY --from={other} /bin/sh /other\nCOPY page /\n"
        refused = self.build(text, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("container registry login", refused.stderr)
        self.assertIn("Dockerfile:1:1", refused.stderr)
        self.ours.run(*login, input=PASSWORD + "\n")
        told = self.build(text).stderr
        for name in (base, other):
            self.assertRegex(told, rf"#\d+ \d+\.\d+ pulled {name} \(sha256:")
        file = self.ours.home / ".config/container/auth.json"
        # Neither the daemon nor what it stores has the password.
        self.assert_secret_is_only_in(file)
        # What is here is not asked for again, and needs no login.
        self.ours.run("registry", "logout", registry.host)
        asked = registry.log().count("manifests/1")
        self.assertNotIn("pulled", self.build(text).stderr)
        self.assertEqual(registry.log().count("manifests/1"), asked)
        self.assertIn("container registry login", self.build(text, "--pull", check=False).stderr)

    def test_pull_asks_for_what_is_newer(self):
        registry = self.registry()
        name = f"{registry.host}/team/base:1"
        self.load(name)
        self.ours.run("image", "push", name)
        first = self.digest_here(name)
        self.ours.run("image", "tag", name, "localhost/old:1")
        self.build(f"FROM {name}\nLABEL newer=yes\n", "-t", name)
        self.ours.run("image", "push", name)
        self.ours.run("image", "tag", "localhost/old:1", name)
        self.build(f"FROM {name}\nCOPY page /\n")
        self.assertEqual(self.digest_here(name), first)
        self.build(f"FROM {name}\nCOPY page /\n", "--pull")
        self.assertNotEqual(self.digest_here(name), first)
        made = self.ours.json("image", "inspect", "localhost/made:1")
        self.assertIn("newer", json.dumps(made))

    def test_the_default_registry_is_where_bare_names_come_from(self):
        registry = self.registry()
        self.load(f"{registry.host}/hello:1")
        self.ours.run("image", "push", f"{registry.host}/hello:1")
        self.ours.run("image", "rm", f"{registry.host}/hello:1")
        self.ours.run("registry", "default", "set", registry.host)
        self.assertIn(f"pulled {registry.host}/hello:1", self.build("FROM hello:1\n").stderr)
        # And where what is made here without one belongs: one name for every command.
        self.ours.run("image", "tag", "hello:1", "mine:1")
        self.ours.run("image", "inspect", "mine:1")
        self.ours.run("image", "rm", "mine:1")
        context = pathlib.Path(tempfile.mkdtemp(dir=self.ours.folder))
        (context / "Dockerfile").write_text("FROM hello:1\nLABEL a=b\n")
        self.ours.run("build", "-t", "app:1", str(context))
        self.assertIn(f"{registry.host}/app:1\n", self.ours.output("image", "ls", "-q"))
        (context / "compose.yaml").write_text(
            "services:\n  a: {image: 'app:1', network_mode: none}\n"
            "  b: {build: ., network_mode: none}\n")
        self.ours.run("up", "--no-start", "--pull", "never", "-p", "names", cwd=context)
        images = {self.ours.json("inspect", name)[0]["configuration"]["image"]["reference"]
                  for name in ("names-a-1", "names-b-1")}
        self.assertEqual(images, {f"{registry.host}/app:1", f"{registry.host}/names-b"})
        self.ours.run("down", "-p", "names", cwd=context)

    def test_a_cache_goes_to_a_registry_and_comes_from_there_on_another_system(self):
        registry = self.registry()
        place = f"type=registry,ref={registry.host}/team/cache:1"
        text = "FROM scratch\nCOPY page /\nWORKDIR /x\n"
        first = self.build(text, "--cache-from", place, "--cache-to", place)
        self.assertIn("is not used", first.stderr)  # there is none yet
        self.assertRegex(first.stderr, r"pushed sha256:[0-9a-f]{64}: 3 blobs sent")
        self.assertIn(b"build-cache", registry.fetch("team/cache/manifests/1"))
        other = self.open(system.System())
        other.start(image=False)
        told = self.build(text, "--cache-from", place, ours=other).stderr
        self.assertEqual(told.count("CACHED"), 2, told)
        for ours in (self.ours, other):
            self.assertEqual(ours.output("image", "ls", "-q"), "localhost/made:1\n")
        registry.close()
        lost = self.build(text, "--cache-to", place, check=False)
        self.assertNotEqual(lost.returncode, 0)
        self.assertIn("the image is built, but its cache is not at", lost.stderr)

    def test_a_stack_says_when_its_images_are_pulled(self):
        registry = self.registry()
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.ours.run("image", "push", name)
        self.ours.run("image", "rm", name)
        stack = self.folder / "compose.yaml"

        def up(policy, *words, **options):
            stack.write_text(f"name: s\nservices:\n  web:\n    image: {name}\n"
                             f"    network_mode: none\n    pull_policy: {policy}\n")
            before = registry.log().count("manifests/1")
            done = self.ours.run("up", "-d", "--no-start", "-f", stack, *words, **options)
            return done, registry.log().count("manifests/1") - before
        done, asked = up("never", check=False)
        self.assertIn("is not in the image store", done.stderr)
        self.assertEqual((done.returncode, asked), (1, 0))
        self.assertGreater(up("missing")[1], 0)
        self.assertEqual(up("missing")[1], 0)
        made = self.ours.output("ls", "-a", "-q")
        self.assertGreater(up("always")[1], 0)
        self.assertEqual(up("always", "--pull", "missing")[1], 0)
        self.assertEqual(up("never")[1], 0)
        self.assertEqual(self.ours.output("ls", "-a", "-q"), made)  # none was made again
        self.ours.run("down", "-f", stack)

    def test_fsck_fetches_what_is_damaged_and_says_when_it_cannot(self):
        registry = self.registry()
        name = f"{registry.host}/team/hello:1"
        self.load(name)
        self.ours.run("image", "push", name)
        images = self.ours.app_root / "images"
        blobs = sorted((images / "blobs/sha256").iterdir())
        for blob in blobs:
            blob.chmod(0o644)
            with open(blob, "r+b") as file:
                file.write(b"damage")
        repaired = self.ours.run("image", "fsck").stdout
        self.assertEqual(repaired.count("was damaged and is fetched again"), 3, repaired)
        for blob in blobs:
            self.assertEqual(digest(blob.read_bytes()), f"sha256:{blob.name}")
        self.assertEqual(list((images / "damaged").iterdir()), [])
        registry.close()
        blobs[0].unlink()
        self.assertIn("cannot be fetched again", self.ours.run("image", "fsck", check=False).stdout)


class HostileRegistries(Case):
    def setUp(self):
        super().setUp()
        self.layer = tar({"hello": b"hi\n" * 1000})
        self.content = Content(self.layer, gzip.compress(self.layer))

    def pull_refused(self, fake, *words):
        text = self.refused("image", "pull", *words, f"{fake.host}/x/y:1")
        self.nothing_left()
        return text

    def test_lies_about_digests_sizes_and_content_leave_nothing(self):
        other = gzip.compress(self.layer + b"x")
        fake = self.fake(lambda h: self.content.serve(h, layer=lambda h: h.reply(200, other)))
        self.pull_refused(fake)
        same_length = bytes(len(self.content.layer))
        fake = self.fake(lambda h: self.content.serve(h, layer=lambda h: h.reply(200, same_length)))
        self.pull_refused(fake)
        truth = self.content.manifest
        size = f'"size": {len(self.content.layer)}'.encode()
        self.content.manifest = truth.replace(size, size + b"0")
        self.pull_refused(self.fake(self.content.serve))
        self.content.manifest = truth.replace(b"sha256:", b"sha256:../", 2)
        self.assertIn("digest", self.pull_refused(self.fake(self.content.serve)))

    def test_a_layer_that_holds_other_content_than_the_config_says(self):
        self.content.set_config({"architecture": "amd64", "os": "linux",
                                 "rootfs": {"type": "layers", "diff_ids": [digest(b"other")]}})
        self.assertIn("instead of", self.pull_refused(self.fake(self.content.serve)))

    def test_two_readers_cannot_see_two_images(self):
        fake = self.fake(lambda h: self.content.serve(h, manifest_type=INDEX))
        self.pull_refused(fake)
        both = json.loads(self.content.manifest)
        both["manifests"] = []
        self.content.manifest = dump(both)
        self.pull_refused(self.fake(self.content.serve))

    def test_nested_and_huge_indexes_end(self):
        chain = [self.content.manifest]
        for _ in range(300):
            kind = MANIFEST if len(chain) == 1 else INDEX
            chain.append(dump({"schemaVersion": 2, "mediaType": INDEX,
                               "manifests": [descriptor(chain[-1], kind)]}))
        by_digest = {digest(one): one for one in chain}

        def serve(handler):
            name = handler.path.rpartition("/")[2]
            one = by_digest.get(name, chain[-1])
            handler.reply(200, one, Content_Type=MANIFEST if one is chain[0] else INDEX)
        self.assertIn("nested", self.pull_refused(self.fake(serve)))
        huge = b" " * (64 << 20)
        fake = self.fake(lambda h: h.reply(200, huge, Content_Type=MANIFEST))
        self.assertIn("larger than", self.pull_refused(fake))

    def test_a_pin_is_a_pin(self):
        fake = self.fake(self.content.serve)
        wanted = digest(b"another")
        text = self.refused("image", "pull", f"{fake.host}/x/y@{wanted}")
        self.assertIn(wanted, text)
        self.nothing_left()

    def test_credentials_stay_with_the_registry(self):
        thief = self.fake(lambda h: h.reply(200, dump({"token": "x"})))

        def challenge(handler):
            realm = f"http://localhost:{thief.port}/token"
            handler.reply(401, WWW_Authenticate=f'Bearer realm="{realm}",service="x"')
        fake = self.fake(challenge)
        self.ours.environment.update(CONTAINER_REGISTRY_HOST=fake.host,
                                     CONTAINER_REGISTRY_USER=USER,
                                     CONTAINER_REGISTRY_TOKEN=PASSWORD)
        self.assertIn("another site", self.pull_refused(fake))
        self.assertEqual(thief.seen, [])

        def redirect(handler):
            if not handler.headers.get("Authorization"):
                return handler.reply(401, WWW_Authenticate='Basic realm="x"')
            if "/blobs/" in handler.path:
                return handler.reply(307, Location=thief.url(handler.path))
            return self.content.serve(handler)
        fake = self.fake(redirect)
        self.ours.environment["CONTAINER_REGISTRY_HOST"] = fake.host
        self.pull_refused(fake)
        self.assertTrue(thief.seen)
        for _, _, headers in thief.seen:
            self.assertNotIn("Authorization", headers)

    def test_plain_http_is_no_way_out_of_tls(self):
        plain = self.fake(self.content.serve)
        fake = self.fake(lambda h: h.reply(307, Location=plain.url(h.path)),
                         tls_folder=self.folder)
        self.configure(f'[registry.hosts."{fake.host}"]\nca = "{fake.certificate}"\n')
        self.assertIn("without TLS", self.pull_refused(fake, "--scheme", "https"))
        self.assertEqual(plain.seen, [])

    def test_redirects_to_files_and_link_local_addresses(self):
        for target, why in (("file:///etc/passwd", "only http and https"),
                            ("http://169.254.169.254/latest/meta-data", "link-local"),
                            ("unix:///run/x", "only http and https")):
            fake = self.fake(lambda h, to=target: h.reply(307, Location=to))
            self.assertIn(why, self.pull_refused(fake))

    def test_storms_pass_and_an_hour_is_an_error(self):
        storm = iter((429, 503, 502))

        def serve(handler):
            status = next(storm, None)
            return handler.reply(status, Retry_After="0") if status else \
                self.content.serve(handler)
        fake = self.fake(serve)
        self.ours.run("image", "pull", f"{fake.host}/x/y:1")
        hour = self.fake(lambda h: h.reply(429, Retry_After="3600"))
        self.assertIn("3600 s", self.refused("image", "pull", f"{hour.host}/x/y:1"))


class Interruptions(Case):
    def setUp(self):
        super().setUp()
        noise = os.urandom(6 << 20)
        self.content = Content(tar({"noise": noise}), None)
        self.content.layer = tar({"noise": noise})
        self.released = threading.Event()

    def half(self, handler):
        """The first time half of it, then nothing for as long as the test lasts."""
        if handler.headers.get("Range") or self.released.is_set():
            return self.content.serve_layer(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.content.layer)))
        handler.end_headers()
        handler.wfile.write(self.content.layer[:len(self.content.layer) // 2])
        handler.wfile.flush()
        self.released.wait(60)

    def test_a_restart_of_the_daemon_in_the_middle_costs_no_byte_twice(self):
        fake = self.fake(lambda h: self.content.serve(h, layer=self.half))
        name = f"{fake.host}/x/y:1"
        pulling = self.ours.open("image", "pull", "--progress", "plain", name)
        partial = self.ours.app_root / "images/partial"
        system.wait_until(lambda: any(path.stat().st_size > 2 << 20 for path in partial.glob("*")),
                          "half of the layer on the disk")
        self.ours.kill_daemon()
        self.assertNotEqual(pulling.wait(timeout=20), 0)
        pulling.stdout.close()
        self.assertIn(b"goes on where", pulling.stderr.read())
        pulling.stderr.close()
        self.ours.run("system", "start")
        self.ours.run("image", "pull", name)
        ranges = [headers.get("Range") for _, path, headers in fake.seen
                  if path.endswith(digest(self.content.layer))]
        self.assertEqual(ranges[0], None)
        self.assertGreater(int(ranges[1].removeprefix("bytes=").split("-")[0]), 2 << 20)
        self.released.set()

    def test_whoever_interrupts_a_pull_can_go_on_with_it(self):
        fake = self.fake(lambda h: self.content.serve(h, layer=self.half))
        name = f"{fake.host}/x/y:1"
        pulling = self.ours.open("image", "pull", "--progress", "none", name)
        partial = self.ours.app_root / "images/partial"
        system.wait_until(lambda: any(path.stat().st_size > 2 << 20 for path in partial.glob("*")),
                          "half of the layer on the disk")
        pulling.terminate()
        pulling.wait()
        pulling.stdout.close()
        pulling.stderr.close()
        self.ours.run("image", "pull", name)
        self.released.set()
        ranges = [headers.get("Range") for _, path, headers in fake.seen
                  if path.endswith(digest(self.content.layer))]
        self.assertEqual(ranges[0], None)
        self.assertGreater(int(ranges[1].removeprefix("bytes=").split("-")[0]), 2 << 20)


if __name__ == "__main__":
    system.BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
