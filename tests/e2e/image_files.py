"""An image as a tree of facts: its layers laid over each other as the OCI image specification says."""
import gzip
import hashlib
import io
import json
import pathlib
import tarfile

OPAQUE = ".wh..wh..opq"


class Files:
    """{path: facts} of everything in the image; `links` are the sets of names that are one file."""

    def __init__(self):
        self.entries = {}
        self.inodes = {}
        self.count = 0

    def remove(self, path, itself=True):
        for name in [name for name in self.entries
                     if name.startswith(path + "/") or (itself and name == path)]:
            del self.entries[name]
            del self.inodes[name]

    def lay(self, layer):
        """Deletions of a layer touch what is below it, never its own files."""
        members = [(member, member.name.removeprefix("./").strip("/")) for member in layer]
        for _, name in members:
            folder, _, last = name.rpartition("/")
            if last == OPAQUE:
                self.remove(folder, itself=False)
            elif last.startswith(".wh."):
                self.remove((folder + "/" if folder else "") + last.removeprefix(".wh."))
        for member, name in members:
            if name in ("", ".") or name.rpartition("/")[2].startswith(".wh."):
                continue
            self.add(layer, member, name)

    def add(self, layer, member, name):
        if member.islnk():
            first = member.linkname.removeprefix("./").strip("/")
            self.entries[name] = self.entries[first]
            self.inodes[name] = self.inodes[first]
            return
        kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "character",
                tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}.get(member.type, "file")
        if kind != "folder" and name in self.entries:
            self.remove(name)
        content = layer.extractfile(member).read() if kind == "file" else b""
        self.count += 1
        self.inodes[name] = self.count
        self.entries[name] = {
            "type": kind, "mode": None if kind == "link" else f"{member.mode & 0o7777:o}",
            "owner": f"{member.uid}:{member.gid}", "link": member.linkname,
            "content": hashlib.sha256(content).hexdigest() if kind == "file" else "",
            "device": (member.devmajor, member.devminor) if kind in ("character", "block") else None,
            "xattrs": {key.removeprefix("SCHILY.xattr."): value
                       for key, value in member.pax_headers.items()
                       if key.startswith("SCHILY.xattr.")}}

    def links(self):
        names = {}
        for name, number in self.inodes.items():
            names.setdefault(number, set()).add(name)
        return sorted(sorted(same) for same in names.values() if len(same) > 1)


def flattened(layers):
    """`layers`: bytes of tars, from below, compressed or not."""
    files = Files()
    for content in layers:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        # pax_headers hold bytes that are no text, too.
        with tarfile.open(fileobj=io.BytesIO(content), errors="surrogateescape") as layer:
            files.lay(layer)
    return files


def read_archive(path):
    """(layers, configuration) of the only image of an OCI archive."""
    with tarfile.open(path) as archive:
        def blob(digest):
            return archive.extractfile("blobs/" + digest.replace(":", "/")).read()
        index = json.load(archive.extractfile("index.json"))
        manifest = json.loads(blob(index["manifests"][0]["digest"]))
        while "manifests" in manifest:
            manifest = json.loads(blob(manifest["manifests"][0]["digest"]))
        return ([blob(layer["digest"]) for layer in manifest["layers"]],
                json.loads(blob(manifest["config"]["digest"])))


def read_folder(path):
    """The same of what skopeo and buildah call `dir:`."""
    folder = pathlib.Path(path)

    def blob(digest):
        return (folder / digest.partition(":")[2]).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    return ([blob(layer["digest"]) for layer in manifest["layers"]],
            json.loads(blob(manifest["config"]["digest"])))
