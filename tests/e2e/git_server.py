"""Repositories over http on loopback, by git's own CGI program."""
import base64
import http.server
import os
import pathlib
import subprocess
import threading

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example", "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example", "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent",
            "GIT_CONFIG_GLOBAL": "/dev/null"}


class GitServer:
    """Serves every `*.git` of `folder`; with `password`, to user `ann` only."""

    def __init__(self, folder, password=None):
        self.folder = pathlib.Path(folder)
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self, password)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def url(self, name, user=""):
        return f"http://{user}127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, request, password):
        if password:
            wanted = "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()
            if request.headers.get("Authorization") != wanted:
                request.send_response(401)
                request.send_header("WWW-Authenticate", "Basic realm=\"git\"")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        path, _, query = request.path.partition("?")
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        done = subprocess.run(
            ["git", "http-backend"], input=body, stdout=subprocess.PIPE, check=False,
            env={**os.environ, **IDENTITY, "GIT_PROJECT_ROOT": str(self.folder),
                 "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
                 "REQUEST_METHOD": request.command, "REMOTE_ADDR": "127.0.0.1",
                 "CONTENT_LENGTH": str(len(body)),
                 "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                 "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                 "GIT_PROTOCOL": request.headers.get("Git-Protocol", "")})
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        request.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def git(self, name, *words):
        done = subprocess.run(["git", "-C", str(self.folder / name), *words], check=True,
                              env={**os.environ, **IDENTITY}, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def commit(self, name, files, submodules=None):
        """Makes the repository if it is not there. `submodules`: path to (address, commit)."""
        if not (self.folder / name).exists():
            (self.folder / name).mkdir()
            self.git(name, "init", "-q", "-b", "main")
            # Commits that no branch leads to are given, too, as public servers do.
            self.git(name, "config", "uploadpack.allowAnySHA1InWant", "true")
        modules = ""
        for path, (address, commit) in (submodules or {}).items():
            modules += f"[submodule \"{path}\"]\n\tpath = {path}\n\turl = {address}\n"
            self.git(name, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        for path, text in {**files, **({".gitmodules": modules} if modules else {})}.items():
            place = self.folder / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            self.git(name, "add", path)
        self.git(name, "commit", "-q", "-m", "a step")
        return self.git(name, "rev-parse", "HEAD")
