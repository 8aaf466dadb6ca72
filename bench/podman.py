"""podman as a peer: its own store in a folder of ours, in a mount namespace of its own."""
import os
import pathlib
import shutil
import subprocess

SETTINGS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
helper_binaries_dir = ["/usr/libexec/podman", "/usr/lib/podman", "/usr/bin"]
events_logger = "none"
"""
PACKAGES = ("podman", "crun")


class CannotRun(Exception):
    """The peer is not to be had on this machine; why."""


class Podman:
    """Started with `open`, ended with `close`; `run` takes podman's own words."""

    def __init__(self, folder, archive, image):
        self.folder = pathlib.Path(folder)
        self.archive = archive
        self.image = image
        self.holder = None

    def open(self):
        if os.geteuid() != 0:
            raise CannotRun("it is measured as root")
        if not shutil.which("podman") or not shutil.which("crun"):
            done = subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends",
                                   *PACKAGES], check=False, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise CannotRun(f"its packages cannot be installed: {done.stderr[-200:]}")
        (self.folder / "containers.conf").write_text(SETTINGS)
        # crun refuses a host that mounts both kinds of cgroups; our own view has only one.
        script = ("[ ! -d /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified; "
                  "echo ready; exec sleep 86400")
        self.holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c",
                                        script], stdout=subprocess.PIPE)
        if self.holder.stdout.readline() != b"ready\n":
            raise CannotRun("it gets no mount namespace")
        try:
            self.run("load", "-q", "-i", self.archive)
            self.run("run", "--rm", "--network", "none", self.image, "true")
        except subprocess.CalledProcessError as error:
            raise CannotRun(error.stderr.decode(errors="replace")[-300:]) from error

    def arguments(self, *words):
        return ["nsenter", "-m", "-t", str(self.holder.pid), "podman", "--root",
                str(self.folder / "root"), "--runroot", str(self.folder / "run"),
                "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
                "--events-backend", "none", "--runtime", "crun", *map(str, words)]

    def run(self, *words):
        environment = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        subprocess.run(self.arguments(*words), check=True, env=environment,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE)

    def close(self):
        if self.holder is None:
            return
        subprocess.run(self.arguments("rm", "-fa", "-t", "0"), check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Its storage stays mounted in the namespace, which goes with the holder.
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
