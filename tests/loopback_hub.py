"""A hub on this machine's loopback: enough of the Hugging Face hub's HTTP interface to stream one dataset from it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the folder `root` as the dataset `name`; `requests` lists the paths of what was asked for."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.name = root, name
        self.requests: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What makes `huggingface_hub` of a new process use this hub."""
        endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        return {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}

    def files_fetched(self) -> list[str]:
        """Names of the files whose content was asked for, in order."""
        return [request.rpartition("/")[2] for request in self.requests if request.startswith("GET /datasets/")]


@contextmanager
def serve(root: Path, name: str) -> Iterator[Hub]:
    """The hub, while the block runs."""
    with Hub(root, name) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlparse(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{hub.name}", f"/datasets/{hub.name}/resolve/"
        if path == api or path.startswith(f"{api}/revision/"):
            siblings = [{"rfilename": str(file.relative_to(hub.root))} for file in self._below("", deep=True)]
            self._json({"id": hub.name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
            if not (hub.root / folder).is_dir():
                self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            else:
                query = parse_qs(urlparse(self.path).query)
                deep = query.get("recursive", ["false"])[0].lower() == "true"
                self._json([self._entry(file) for file in self._below(folder, deep)])
        elif path.startswith(files):
            self._file(hub.root / path.removeprefix(files).partition("/")[2])
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.requests.append(f"POST {self.path}")
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        found = [self.server.root / path for path in paths if (self.server.root / path).exists()]
        self._json([self._entry(file) for file in found])

    def _below(self, folder: str, deep: bool) -> list[Path]:
        root = self.server.root / folder
        return [file for file in sorted(root.rglob("*") if deep else root.iterdir()) if file.is_file() or not deep]

    def _entry(self, file: Path) -> dict[str, object]:
        path = str(file.relative_to(self.server.root))
        if file.is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": path, "oid": _etag(file.read_bytes()), "size": file.stat().st_size}

    def _file(self, file: Path) -> None:
        if not file.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            last = min(int(end) if end else len(content), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            return self._answer(206, content[int(start) : last + 1], headers)
        return self._answer(200, content, headers)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
