"""A Hugging Face Hub on this machine: the few endpoints that a repository is fetched by."""

import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = hashlib.sha1(b"first").hexdigest()  # noqa: S324, as git names commits


class Hub:
    """What it holds and how it answers; a test changes both.

    Attributes:
        files: `{repository: {name: bytes}}`.
        revisions: Names of its one commit.
        error: `(status, X-Error-Code)` of all answers, or of those for files alone.
        files_only: Whether `error` is only that of files.
        pause: Seconds before an answer with `error`.
        asked: `METHOD path` of every request, in turn.
    """

    def __init__(self):
        self.files, self.revisions = {}, ["main", COMMIT]
        self.error, self.files_only, self.pause, self.asked = None, False, 0, []

    def answer(self, path):
        """`(status, headers, body)` of a path."""
        is_api = path.startswith("/api/models/")
        if self.error and not (is_api and self.files_only):
            time.sleep(self.pause)
            return self.error[0], {"X-Error-Code": self.error[1]}, b""
        before, _, rest = path.partition("/revision/" if is_api else "/resolve/")
        repo = before.removeprefix("/api/models").strip("/")
        revision, _, name = rest.partition("/")
        if repo not in self.files:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in self.revisions:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = self.files[repo]
        if is_api:
            siblings = [{"rfilename": n, "size": len(b)} for n, b in files.items()]
            info = {"id": repo, "sha": COMMIT, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        etag = hashlib.sha256(files[name]).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, files[name]


class Handler(BaseHTTPRequestHandler):
    """One request; the server has a `hub`."""

    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self):  # noqa: N802
        self.server.hub.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.server.hub.answer(self.path.partition("?")[0])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served():
    """A `Hub` and its address; it ends with the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close, server.hub = True, False, Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
