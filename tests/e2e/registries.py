"""Registries for tests: the distribution's docker-registry in its forms, and one whose every answer
a test decides."""
import base64
import crypt
import hashlib
import http.server
import json
import pathlib
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import system

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
USER, PASSWORD = "ann", "s3cret-canary"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor(content, media_type, **more):
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


def dump(document):
    return json.dumps(document, indent=1).encode()


def certificate(folder, name="127.0.0.1"):
    """Key and self-signed certificate for loopback."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-keyout", key, "-out", cert, "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
                   check=True, stderr=subprocess.DEVNULL)
    return key, cert


class Registry:
    """docker-registry on loopback; `auth` is "", "htpasswd" or a TokenService."""

    def __init__(self, folder, tls=False, auth=""):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = system.free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.tls = tls
        settings = {"version": 0.1, "log": {"level": "info"},
                    "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")},
                                "delete": {"enabled": True}},
                    "http": {"addr": self.host}}
        if tls:
            key, self.certificate = certificate(self.folder)
            settings["http"]["tls"] = {"certificate": str(self.certificate), "key": str(key)}
        if auth == "htpasswd":
            file = self.folder / "htpasswd"
            salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)
            file.write_text(f"{USER}:{crypt.crypt(PASSWORD, salt)}\n")
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(file)}}
        elif auth:
            settings["auth"] = {"token": {"realm": auth.realm, "service": "test",
                                          "issuer": "tests",
                                          "rootcertbundle": str(auth.certificate)}}
        config = self.folder / "config.json"  # JSON is YAML
        config.write_text(json.dumps(settings))
        self.log_file = self.folder / "log"
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", config],
                                            stdout=log, stderr=log)
        system.wait_until(self.answers, "docker-registry to answer")

    def answers(self):
        try:
            with system.socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def log(self):
        return self.log_file.read_text(errors="replace")

    def fetch(self, path, accept=f"{MANIFEST}, {INDEX}"):
        """Bytes of `/v2/...` of a plain registry, as they are."""
        request = urllib.request.Request(f"http://{self.host}/v2/{path}",
                                         headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def put_blob(self, repository, content):
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/blobs/uploads/",
                                         method="POST", data=b"")
        with urllib.request.urlopen(request, timeout=10) as answer:
            location = urllib.parse.urljoin(request.full_url, answer.headers["Location"])
        mark = "&" if "?" in location else "?"
        request = urllib.request.Request(f"{location}{mark}digest={digest(content)}", method="PUT",
                                         data=content,
                                         headers={"Content-Type": "application/octet-stream"})
        urllib.request.urlopen(request, timeout=10).close()

    def put_manifest(self, repository, name, content, media_type):
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{name}",
                                         method="PUT", data=content,
                                         headers={"Content-Type": media_type})
        urllib.request.urlopen(request, timeout=10).close()

    def close(self):
        self.process.terminate()
        self.process.wait()


def encoded(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Fake:
    """`answer(handler)` sees each request and writes what it likes. Headers are kept."""

    def __init__(self, answer, tls_folder=None):
        outer = self
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers)))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any

            def reply(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if tls_folder:
            import ssl
            key, self.certificate = certificate(pathlib.Path(tls_folder))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path=""):
        return f"{self.scheme}://{self.host}{path}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class TokenService(Fake):
    """Gives tokens docker-registry believes, to whoever knows the password."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key, self.signer = certificate(self.folder)
        super().__init__(self.give)
        self.certificate = self.signer
        self.realm = self.url("/token")

    def give(self, handler):
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {wanted}":
            return handler.reply(401)
        query = urllib.parse.parse_qs(urllib.parse.urlparse(handler.path).query)
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        der = subprocess.run(["openssl", "x509", "-in", self.signer, "-outform", "DER"],
                             check=True, capture_output=True).stdout
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "tests", "sub": USER, "aud": "test", "exp": now + 300, "nbf": now - 10,
                  "iat": now, "jti": str(len(self.seen)), "access": access}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], check=True,
                                   input=text.encode(), capture_output=True).stdout
        token = f"{text}.{encoded(signature)}"
        return handler.reply(200, dump({"token": token, "expires_in": 300}))


class Content:
    """An image of one layer for a Fake to serve; parts can be replaced by lies."""

    def __init__(self, layer, compressed=None):
        self.layer = compressed if compressed is not None else layer
        config = {"architecture": "amd64", "os": "linux",
                  "config": {"Cmd": ["/bin/true"]},
                  "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}
        self.set_config(config)

    def set_config(self, config):
        self.config = dump(config)
        self.manifest = dump({"schemaVersion": 2, "mediaType": MANIFEST,
                              "config": descriptor(self.config, CONFIG),
                              "layers": [descriptor(self.layer, LAYER + "+gzip")]})

    def serve(self, handler, manifest_type=MANIFEST, layer=None):
        """The ordinary answer to a request."""
        path = urllib.parse.urlparse(handler.path).path
        if "/manifests/" in path:
            return handler.reply(200, self.manifest, Content_Type=manifest_type,
                                 Docker_Content_Digest=digest(self.manifest))
        if path.endswith(digest(self.config)):
            return handler.reply(200, self.config)
        if path.endswith(digest(self.layer)):
            return (layer or self.serve_layer)(handler)
        return handler.reply(404)

    def serve_layer(self, handler):
        wanted = handler.headers.get("Range")
        if not wanted:
            return handler.reply(200, self.layer)
        begin, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        piece = self.layer[begin:end + 1]
        return handler.reply(206, piece,
                             Content_Range=f"bytes {begin}-{end}/{len(self.layer)}")
