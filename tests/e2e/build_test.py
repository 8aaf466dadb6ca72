#!/usr/bin/env python3
"""`container build`, as somebody typing it sees it: real steps in real machines."""
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time

import git_server
import image_files
import system
from system import IMAGE, SystemTest, wait_until


class Build(SystemTest):
    def setUp(self):
        self.context = self.system.folder / self.id().rsplit(".", 1)[1]
        self.context.mkdir()

    def write(self, name, content, mode=0o644):
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path

    def build(self, dockerfile, *words, check=True, **options):
        self.write("Dockerfile", dockerfile)
        return self.system.run("build", *words, str(self.context), check=check, **options)

    def inside(self, image, script):
        return self.system.output("run", "--rm", "--network", "none", image, "sh", "-c", script)

    def config(self, image):
        return self.system.json("image", "inspect", image)[0]["variants"][0]["config"]

    def machines_of_builds(self):
        return [name for name in self.system.containers() if name.startswith("build-")]

    def test_what_is_built_runs(self):
        self.write("app", "#!/bin/sh\necho app $(cat /made)\n", 0o755)
        done = self.build(f"FROM {IMAGE}\nCOPY app /bin/app\nRUN echo by a step > /made\n"
                          "ENTRYPOINT [\"app\"]\n", "-t", "t/runs:1", "--progress", "plain")
        self.assertEqual(done.stdout, "t/runs:1\n")
        self.assertRegex(done.stderr, r"#\d+ \[2/3\] COPY app /bin/app\n")
        self.assertRegex(done.stderr, r"#\d+ DONE \d+\.\ds\n")
        self.assertEqual(self.system.output("run", "--rm", "--network", "none", "t/runs:1"),
                         "app by a step\n")

        again = self.build(f"FROM {IMAGE}\nCOPY app /bin/app\nRUN echo by a step > /made\n"
                           "ENTRYPOINT [\"app\"]\n", "-t", "t/runs:2", "--progress", "plain")
        self.assertEqual(again.stderr.count("CACHED"), 2)
        wait_until(lambda: not self.machines_of_builds(), "the build's machine to be removed")

    def test_stages_mounts_and_secrets(self):
        self.write("token", "CANARY-5417")
        self.write("data/x", "from the context")
        done = self.build(
            f"FROM {IMAGE} AS make\n"
            "RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = CANARY-5417 "
            "&& mkdir /out && echo made > /out/file\n"
            f"FROM {IMAGE}\n"
            "COPY --from=make --chown=7:8 /out /srv\n"
            "RUN --mount=type=bind,source=data,target=/data cp /data/x /copied && "
            "! touch /data/new 2>/dev/null\n"
            "RUN --mount=type=cache,target=/cache echo once >> /cache/n && cp /cache/n /n\n"
            "RUN --mount=type=tmpfs,target=/gone touch /gone/x\n"
            "RUN --mount=type=cache,target=/seeded,from=make,source=/out "
            "--mount=type=bind,target=/all,from=make,rw "
            "cp /seeded/file /n2 && echo more >> /seeded/file && touch /all/out/new && "
            "test ! -e /seeded/new\n"
            # Whoever may write to a mount writes to nobody's files, and a place that is swapped
            # for a link while it is mounted over takes nothing with it.
            "RUN --mount=type=bind,source=data,target=/swap/in/here,rw "
            "rm /swap/in/here/x && echo evil > /swap/in/here/y && "
            "{ mv /swap /moved; ln -s /etc /swap; true; } 2>/dev/null\n",
            "-t", "t/mounts:1", "--secret", "id=token,src=token", cwd=self.context)
        self.assert_exit(done, 0)
        self.assertEqual(
            self.inside("t/mounts:1", "stat -c '%u:%g' /srv/file; cat /srv/file /copied; "
                        "cat /n /n2; ls /data /cache /gone /run/secrets 2>/dev/null | wc -l"),
            "7:8\nmade\nfrom the contextonce\nmade\n0\n")
        self.assertEqual([path.name for path in (self.context / "data").iterdir()], ["x"])
        self.assertEqual((self.context / "data/x").read_text(), "from the context")
        hits = subprocess.run(["grep", "-rl", "CANARY-5417", str(self.system.app_root)],
                              stdout=subprocess.PIPE, text=True, check=False).stdout
        self.assertEqual(hits, "")

    def test_a_step_that_fails_shows_where_and_why(self):
        done = self.build(f"FROM {IMAGE}\nRUN true\nRUN echo the reason >&2; exit 7\n",
                          "-t", "t/fails:1", check=False)
        self.assert_exit(done, 1)
        self.assertIn("Dockerfile:3:1: error: the command ended with exit code 7", done.stderr)
        self.assertIn("RUN echo the reason >&2; exit 7", done.stderr)
        self.assertIn("^", done.stderr)
        self.assertIn("its last output:\nthe reason\n", done.stderr)
        self.assertNotIn("t/fails", self.system.output("image", "ls"))
        wait_until(lambda: not self.machines_of_builds(), "the machine of a failed build to go")

    def test_a_build_that_is_interrupted_leaves_nothing(self):
        self.write("Dockerfile", f"FROM {IMAGE}\nRUN echo begun; sleep 600\n")
        build = self.system.open("build", "--progress", "plain", str(self.context))
        for line in build.stderr:
            if b"begun" in line and b"RUN" not in line:
                break
        build.send_signal(signal.SIGINT)
        build.wait(timeout=10)
        build.stdout.close()
        build.stderr.close()
        wait_until(lambda: not self.machines_of_builds(), "the machine to be removed")
        wait_until(lambda: not any((self.system.app_root / "builds/running").iterdir()),
                   "the build's folder to be removed")

    def test_a_context_from_stdin_and_files_as_output(self):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for name, text in (("Dockerfile", "FROM scratch\nCOPY a b /x/\nCOPY a /x/dev/\n"), ("a", "1"),
                               ("b", "2"), ("c", "3")):
                member = tarfile.TarInfo(name)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        target = self.context / "out"
        self.system.run("build", "-o", f"type=local,dest={target}", "-", text=False,
                        input=archive.getvalue())
        self.assertEqual(sorted(str(path.relative_to(target)) for path in target.rglob("*")),
                         ["x", "x/a", "x/b", "x/dev", "x/dev/a"])
        files = self.context / "files.tar"
        files.write_text("kept")
        self.system.run("build", "--check", "-o", f"type=tar,dest={files}", "-", text=False,
                        input=archive.getvalue(), check=False)
        self.assertEqual(files.read_text(), "kept")
        self.system.run("build", "-o", f"type=tar,dest={files}", "-", text=False,
                        input=archive.getvalue())
        with tarfile.open(files) as tar:
            self.assertEqual(tar.extractfile("x/b").read(), b"2")

    def test_special_files_and_links_of_a_context(self):
        os.mkfifo(self.context / "pipe")
        if os.geteuid() == 0:
            os.mknod(self.context / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        here = os.open(self.context, os.O_PATH)  # the whole path is too long for a socket's name
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        deep = self.context / "/".join(["deep"] * 200)
        deep.mkdir(parents=True)
        (deep / "file").write_text("at the bottom")
        for number in range(5000):
            self.write(f"many/{number % 50}/{number}", "x")
        self.write("file", "text")
        begun = time.monotonic()
        self.build("FROM scratch\nCOPY . /x/\n", "-o", f"type=tar,dest={self.context / 'all.tar'}")
        # A fifo, socket or device that was opened would hang; what remains is work.
        self.assertLess(time.monotonic() - begun, 30)
        with tarfile.open(self.context / "all.tar") as tar:
            names = set(tar.getnames())
        self.assertIn("x/" + "deep/" * 200 + "file", names)
        self.assertIn("x/many/49/4999", names)
        self.assertNotIn("x/socket", names)
        (self.context / "all.tar").unlink()
        os.symlink("/etc/passwd", self.context / "outside")
        done = self.build("FROM scratch\nCOPY file outside /x/\n", "-t", "t/special:1",
                          check=False, timeout=20)
        if done.returncode == 0:  # the link itself may come, never what it leads to
            self.system.run("build", "-o", f"type=local,dest={self.context / 'out'}",
                            str(self.context))
            self.assertTrue((self.context / "out/x/outside").is_symlink())
        done = self.build("FROM scratch\nCOPY ../secret /x\n", check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_buildah_makes_the_same_of_the_same_context(self):
        if not shutil.which("buildah") or os.geteuid() != 0:
            self.skipTest("buildah cannot run here: it takes the package of that name, and root")
        self.peer_context()
        self.system.run("build", "--network", "none", "--build-arg", "VALUE=given", "-t",
                        "t/peer:1", str(self.context))
        archive = self.system.folder / "peer.tar"
        self.system.run("image", "save", "-o", archive, "t/peer:1")
        ours, our_config = image_files.read_archive(archive)
        theirs, their_config = image_files.read_folder(self.buildah())

        mine, other = image_files.flattened(ours), image_files.flattened(theirs)
        # buildah's mount points stay in its layers.
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
            other.remove(name)
        # It drops set-id bits of a context's files; docker keeps them, and so do we.
        self.assertEqual(mine.entries["tree/program"]["mode"], "4755")
        other.entries["tree/program"]["mode"] = "4755"
        self.assertEqual((set(mine.entries) - set(other.entries),
                          set(other.entries) - set(mine.entries)), (set(), set()))
        different = {name: (facts, other.entries[name]) for name, facts in mine.entries.items()
                     if facts != other.entries[name]}
        self.assertEqual(different, {})
        self.assertEqual(mine.links(), other.links())
        mine, other = our_config["config"], their_config["config"]
        # Whom a label is from is the only thing that buildah says more.
        other["Labels"].pop("io.buildah.version")
        for config in (mine, other):  # what is empty may as well be absent
            for key in [key for key, value in config.items() if not value]:
                del config[key]
            config.pop("Hostname", None)
        self.assertEqual(mine, other)
        self.assertEqual((our_config["os"], our_config["architecture"]),
                         (their_config["os"], their_config["architecture"]))

    def peer_context(self):
        """One of everything that a layer can hold, and every instruction that leaves a trace."""
        self.write("tree/plain", "plain", 0o640)
        self.write("tree/program", "program", 0o4755)
        self.write("tree/deep/er/file", "deep", 0o600)
        self.write("tree/left.out", "never")
        self.write("tree/deep/left.out", "let in again")
        self.write(".dockerignore", "**/*.out\n!tree/deep/*.out\nother\n")
        self.write("other", "never")
        self.write("one", "1")
        self.write("two", "2")
        (self.context / "tree/sticky").mkdir(mode=0o755)
        (self.context / "tree/sticky").chmod(0o1777)
        os.link(self.context / "tree/plain", self.context / "tree/twin")
        os.symlink("/etc/absent", self.context / "tree/dangling")
        os.symlink("deep/er", self.context / "tree/to-folder")
        os.chown(self.context / "tree/deep/er/file", 1234, 4321)
        os.setxattr(self.context / "tree/program", "user.note", b"kept")
        with tarfile.open(self.context / "files.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for name, kind, mode, link in (
                    ("packed", tarfile.DIRTYPE, 0o2750, ""), ("packed/a", tarfile.REGTYPE, 0o444, ""),
                    ("packed/b", tarfile.LNKTYPE, 0o444, "packed/a"),
                    ("packed/s", tarfile.SYMTYPE, 0o777, "../tree"),
                    ("packed/null", tarfile.CHRTYPE, 0o666, ""),
                    ("packed/fifo", tarfile.FIFOTYPE, 0o600, "")):
                member = tarfile.TarInfo(name)
                member.devmajor, member.devminor = 1, 3
                member.type, member.mode, member.linkname = kind, mode, link
                member.uid, member.gid = 70000, 70001
                tar.addfile(member)
        self.write("Dockerfile", f"""FROM {IMAGE} AS make
RUN mkdir /made && echo made > /made/file && ln /made/file /made/same && \\
    ln -s file /made/link && chmod 6711 /made/file && chown 5:6 /made
FROM {IMAGE}
ARG VALUE=default
ENV SET="two words" FROM_ARG=$VALUE
LABEL a=b quoted="with \\"quotes\\"" from.arg=$VALUE
COPY tree /tree
COPY --chown=7:8 one two /made/for/us/
COPY --chmod=0604 one /chmod/one
ADD files.tar /unpacked/
COPY --from=make /made /from-stage
RUN mkdir /gone /again && echo old > /gone/file && echo old > /again/old && echo x > /changed
RUN rm -r /gone && rm -r /again && mkdir -m 0700 /again && echo new > /again/new && \\
    chmod 0600 /changed && echo y > /hard && ln /hard /linked && rm /bin/vi && mkfifo /fifo
WORKDIR /srv/here
WORKDIR deeper
RUN echo relative > file
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=7s --retries=2 CMD test -e /tree
ONBUILD RUN echo trigger
SHELL ["/bin/sh", "-e", "-c"]
USER 7:8
ENTRYPOINT ["/bin/echo"]
CMD ["hello", "there"]
""")

    def buildah(self):
        """Its image of the context, as a folder."""
        store = self.system.folder / "buildah"
        store.mkdir()
        words = ["buildah", "--root", store / "root", "--runroot", store / "run",
                 "--storage-driver", "vfs"]

        def run(*more):
            done = subprocess.run([*map(str, words + list(more))], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  check=False, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout)
        run("pull", f"oci-archive:{system.image_archive()}")
        run("bud", "--isolation", "chroot", "--format", "docker", "--build-arg",
            "VALUE=given", "-t", "peer", self.context)
        run("push", "peer", f"dir:{store / 'image'}")
        return store / "image"

    def test_contexts_that_are_repositories(self):
        folder = self.context / "repositories"
        folder.mkdir()
        server = git_server.GitServer(folder, password="CANARY-7713")
        self.addCleanup(server.close)
        deep = server.commit("deep.git", {"deep": "3"})
        lib = server.commit("lib.git", {"inner": "2"}, {"below": ("../deep.git", deep)})
        first = server.commit("app.git", {"Dockerfile": "FROM scratch\nCOPY . /x/\n", "a": "1",
                                          "part/Dockerfile": "FROM scratch\nCOPY . /y/\n",
                                          "part/b": "1"},
                              {"lib": ("../lib.git", lib)})
        server.git("app.git", "tag", "v1")
        server.commit("app.git", {"a": "2"})
        address = server.url("app.git", "ann:CANARY-7713@")

        def built(place, *words):
            out = self.context / "out"
            shutil.rmtree(out, ignore_errors=True)
            done = self.system.run("build", "-o", f"type=local,dest={out}", *words, place)
            self.assertNotIn("CANARY", done.stdout + done.stderr)
            return {str(path.relative_to(out)): path.read_text()
                    for path in out.rglob("*") if path.is_file() and ".git/" not in str(path)}

        whole = {"x/Dockerfile": "FROM scratch\nCOPY . /x/\n", "x/a": "2", "x/part/b": "1",
                 "x/part/Dockerfile": "FROM scratch\nCOPY . /y/\n", "x/lib/inner": "2",
                 "x/lib/below/deep": "3"}
        plain = {name: text for name, text in built(address).items() if "gitmodules" not in name}
        self.assertEqual(plain, whole)
        self.assertEqual(built(address + f"#{first}")["x/a"], "1")
        part = {"y/Dockerfile": "FROM scratch\nCOPY . /y/\n", "y/b": "1"}
        self.assertEqual(built(address + "#v1:part"), part)
        self.assertEqual(built(address + "#:part"), part)
        kept = built(address, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
        self.assertIn("x/lib/.git", kept)
        self.assertTrue((self.context / "out/x/.git/HEAD").exists())
        hits = subprocess.run(
            ["grep", "-rl", "CANARY-7713", str(self.system.app_root), str(self.context / "out")],
            stdout=subprocess.PIPE, text=True, check=False).stdout
        self.assertEqual(hits, "")
        for wrong, reason in (("#main:../../etc", "No such file"), ("#nobody", "nobody"),
                              ("#main:a", "is no folder"), ("#-x", "is no ref")):
            done = self.system.run("build", address + wrong, check=False)
            self.assert_exit(done, 1)
            self.assertIn(reason, done.stderr)
            self.assertNotIn("CANARY", done.stderr)
        self.build("FROM scratch\nCOPY --from=src /inner /\n", "--build-context",
                   f"src={server.url('lib.git', 'ann:CANARY-7713@')}", "-o",
                   f"type=local,dest={self.context / 'named'}")
        self.assertEqual((self.context / "named/inner").read_text(), "2")
        # No submodule brings in what lies on this machine, or runs a program.
        for module in (str(folder / "deep.git"), f"file://{folder}/deep.git", "ext::touch /tmp/x"):
            server.commit("evil.git", {"Dockerfile": "FROM scratch\nCOPY . /x/\n"},
                          {"lib": (module, deep)})
            done = self.system.run("build", server.url("evil.git", "ann:CANARY-7713@"), check=False)
            self.assert_exit(done, 1)
            self.assertIn("submodule", done.stderr)
            shutil.rmtree(folder / "evil.git")

    def test_a_step_gets_out_no_further_than_a_container(self):
        """Not to the host's own ports, to another project's network, or by mounts."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        stack = self.write("other/compose.yaml", f"services:\n  web:\n    image: '{IMAGE}'\n"
                           "    command: sh -c 'echo secret > /page; httpd -f -p 80 -h /'\n")
        self.system.run("up", "-d", "-p", "other", cwd=stack.parent)
        self.addCleanup(self.system.run, "down", "-p", "other", cwd=stack.parent)
        inside = "exec other-web-1 ip -4 -o addr show eth0".split()
        address = self.system.output(*inside).split("inet ")[1].split("/")[0]
        wait_until(lambda: self.system.run("exec", "other-web-1", "wget", "-q", "-O", "-",
                                           f"http://{address}/page", check=False)
                   .stdout == "secret\n", "the other project's page")
        script = (f"for place in 127.0.0.1 localhost $(ip route | awk '/default/ {{print $3}}'); do "
                  f"nc -w 3 $place {port} < /dev/null && echo reached $place; done; "
                  f"wget -q -T 3 -O - http://{address}/page && echo reached the other; "
                  "for kind in 9p virtiofs proc tmpfs; do mkdir -p /m && mount -t $kind none /m && "
                  "echo mounted $kind; done; "
                  "ls /dev/vport* /dev/vd* 2> /dev/null; echo over")
        done = self.build(f"FROM {IMAGE}\nRUN <<EOF\n{script}\nEOF\n", "--progress", "plain", "-o",
                          f"type=tar,dest={self.context / 'out.tar'}")
        said = [line for line in done.stderr.splitlines() if "RUN" not in line]
        ran = self.system.output("run", "--rm", IMAGE, "sh", "-c", script)
        self.assertTrue(ran.endswith("over\n"))
        for word in ("reached", "mounted", "/dev/v"):
            self.assertFalse([line for line in said if word in line and "echo" not in line], word)
            self.assertNotIn(word, ran)
        self.assertTrue([line for line in said if line.endswith(" over")], done.stderr)
        listener.settimeout(0)
        with self.assertRaises(BlockingIOError):
            listener.accept()

    def test_add_of_an_address_checks_its_digest(self):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"hello")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        address = f"http://127.0.0.1:{server.server_port}/name"
        good = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        self.build(f"FROM scratch\nADD --checksum=sha256:{good} {address} /x/\n",
                   "-o", f"type=local,dest={self.context / 'out'}")
        self.assertEqual((self.context / "out/x/name").read_text(), "hello")
        done = self.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {address} /x/\n",
                          check=False)
        self.assertIn("has the checksum sha256:2cf24dba", done.stderr)

    def test_check_builds_nothing(self):
        done = self.build("FROM scratch AS Upper\nFROM scratch as lower\nMAINTAINER me\n",
                          "--check", check=False)
        self.assert_exit(done, 1)
        self.assertIn("Dockerfile:", done.stderr)

    def test_a_stack_builds_what_is_missing(self):
        self.write("base/Dockerfile", f"FROM {IMAGE}\nRUN --mount=type=secret,id=token "
                   "--mount=type=secret,id=key,env=KEY "
                   "printf '%s%s' \"$(cat /run/secrets/token)\" \"$KEY\" | sha256sum > /owner && "
                   "stat -c '%a %u' /run/secrets/token >> /owner\n")
        self.write("web/Dockerfile", "FROM below\nCOPY page /page\n"
                                     "CMD [\"sh\", \"-c\", \"cat /owner /page; sleep 100\"]\n")
        self.write("web/page", "built page\n")
        self.write("token", "CANARY-9034")
        self.write(".env", "KEY_OF_ALL=CANARY-9035\n")
        self.write("compose.yaml", """services:
  web:
    build: {context: ./web, additional_contexts: {below: 'service:base'}}
    network_mode: none
  base:
    build: {context: ./base, secrets: [{source: token, uid: 7, mode: "0440"}, key]}
    network_mode: none
    command: sleep 100
secrets:
  token: {file: token}
  key: {environment: KEY_OF_ALL}
""")
        plan = self.system.run("plan", "-p", "shop", cwd=self.context)
        self.assertIn("shop-web", plan.stderr + plan.stdout)
        self.system.run("up", "-d", "-p", "shop", cwd=self.context)
        read = hashlib.sha256(b"CANARY-9034CANARY-9035").hexdigest()
        wait_until(lambda: f"{read}  -\n440 7\nbuilt page"
                   in self.system.output("logs", "shop-web-1"), "the page")
        hits = subprocess.run(["grep", "-rlE", "CANARY-903[45]", str(self.system.app_root)],
                              stdout=subprocess.PIPE, text=True, check=False).stdout
        self.assertEqual(hits, "")
        self.write("web/page", "another page\n")
        quiet = self.system.run("up", "-d", "-p", "shop", cwd=self.context)
        self.assertNotIn("Building", quiet.stderr)
        self.system.run("up", "-d", "--build", "-p", "shop", cwd=self.context)
        wait_until(lambda: "another page" in self.system.output("logs", "shop-web-1"), "the other")
        self.system.run("down", "-p", "shop", cwd=self.context)

    def test_a_stack_limits_steps_and_makes_single_stages_anew(self):
        self.write("compose.yaml", f"""services:
  web:
    build:
      dockerfile_inline: |
        FROM {IMAGE} AS kept
        RUN cat /proc/sys/kernel/random/uuid > /kept
        FROM {IMAGE} AS fresh
        RUN cat /proc/sys/kernel/random/uuid > /fresh; ulimit -n > /files
        FROM {IMAGE}
        COPY --from=kept /kept /
        COPY --from=fresh /fresh /files /
      no_cache_filter: fresh
      ulimits: {{nofile: 100}}
    network_mode: none
    command: [cat, /files, /kept, /fresh]
""")
        seen = []
        for _ in range(2):
            self.system.run("up", "-d", "--build", "-p", "stages", cwd=self.context)
            lines = wait_until(lambda: len(found := self.system.output(
                "logs", "stages-web-1").split()) == 3 and found, "what was built")
            seen.append(lines)
            self.system.run("down", "-p", "stages", cwd=self.context)
        first, second = seen
        self.assertEqual(first[0], "100")
        self.assertEqual(first[1], second[1])
        self.assertNotEqual(first[2], second[2])

    def test_the_builder_and_its_cache(self):
        self.assertEqual(self.system.output("builder", "status"), "builder is not running\n")
        self.system.run("builder", "start", "--cpus", "1", "--memory", "512m")
        self.assertRegex(self.system.output("builder", "status"),
                         r"builder +- +running +- +1 +512 MB")
        self.system.run("builder", "stop")
        self.write("x", "x")
        self.build("FROM scratch\nCOPY x /\n", "-t", "t/cached:1")
        pruned = self.system.run("builder", "prune")
        self.assertRegex(pruned.stderr, r"Forgot [1-9]\d* steps")
        self.assertIn("t/cached", self.system.output("image", "ls"))


if __name__ == "__main__":
    system.main()
