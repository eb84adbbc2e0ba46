"""A small server on loopback that speaks the Hugging Face Hub's HTTP calls: downloads, uploads, and faults on demand.

What it answers is the least that huggingface_hub, transformers and datasets need; a fault says which requests it hits.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".parquet", ".png")
Files = dict[str, bytes]
Key = tuple[str, str]  # model or dataset, owner/name


def oid_of(path: str, data: bytes) -> str:
    """sha256 of a large file, git's own hash of another: what the Hub calls its oid."""
    if is_large(path, len(data)):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str, size: int) -> bool:
    return size > 0 and path.endswith(LFS)


@dataclass
class Fault:
    """What happens to the next `times` requests of this method whose target matches `pattern`."""

    method: str
    pattern: str
    times: int = 1
    status: int | None = None  # answer so
    cut: str | None = None  # or hang up: before the work, after it (unanswered), or in the answer's body
    at: int = 0  # after so many bytes of the answer's body
    reset: bool = False  # hang up at once, with RST


class Cut(Exception):
    """Hang up."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that goes away is no news
            super().handle_error(*args)


class Hub:
    """`tokens`: token -> read or write. Every commit holds its whole tree; 'main' is the newest."""

    def __init__(self, tokens: dict[str, str] | None = None) -> None:
        self.tokens = tokens or {}
        self.commits: dict[Key, list[tuple[str, Files]]] = {}
        self.private: set[Key] = set()
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.sent: list[bytes] = []  # bodies that clients sent
        self.lock = threading.RLock()
        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """For a command that is to find the Hub here, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_TOKEN": "", "NO_PROXY": "127.0.0.1", **more,
        }  # fmt: skip

    def add(self, kind: str, repo: str, files: Files, commit: str | None = None, private: bool = False) -> str:
        with self.lock:
            key = (kind, repo)
            row = self.commits.setdefault(key, [])
            tree = repr((key, len(row), sorted((p, oid_of(p, d)) for p, d in files.items())))
            row.append((commit or hashlib.sha1(tree.encode()).hexdigest(), dict(files)))
            if private:
                self.private.add(key)
            return row[-1][0]

    def add_folder(self, kind: str, repo: str, folder: Path, commit: str | None = None) -> str:
        files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
        return self.add(kind, repo, files, commit)

    def files(self, repo: str, kind: str = "model") -> Files:
        return self.commits[kind, repo][-1][1]

    def find(self, key: Key, revision: str) -> tuple[str, Files] | None:
        row = self.commits[key]
        return row[-1] if revision == "main" else next((c for c in row if c[0] == revision), None)

    def fault(self, method: str, pattern: str, **how: Any) -> None:
        self.faults.append(Fault(method, pattern, **how))


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        self.unread = int(self.headers.get("Content-Length") or 0)
        with self.hub.lock:
            self.hub.log.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}".strip())
            hits = (
                f for f in self.hub.faults if f.times and f.method == self.command and re.search(f.pattern, self.path)
            )
            self.fault = next(hits, None) or Fault("", "")
            self.fault.times -= 1
        try:
            if self.fault.cut == "before":
                raise Cut
            self.refuse(self.fault.status) if self.fault.status else self.route()
        except Cut:
            self.close_connection = True
            if self.fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
        except ConnectionError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def body(self) -> bytes:
        size, self.unread = self.unread, 0
        result = self.rfile.read(size)
        if result:
            self.hub.sent.append(result)
        return result

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.body()
        if self.fault.cut == "after":
            raise Cut
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        short = self.fault.cut == "body" and self.fault.at < len(data)
        self.wfile.write(data[: self.fault.at] if short else data)
        if short:
            raise Cut

    def refuse(self, status: int, message: str = "", code: str = "", headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Message": message, "X-Error-Code": code}
        self.reply(status, {"error": message}, {k: v for k, v in named.items() if v} | (headers or {}))

    # --- routes ---

    def route(self) -> None:
        url = urlsplit(self.path)
        self.deep = parse_qs(url.query).get("recursive", [""])[0].lower() == "true"
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.role = self.hub.tokens.get(token)
        repo = r"([^/]+/[^/]+)"
        if token and not self.role:
            self.refuse(401, "Invalid credentials in Authorization header")
        elif url.path == "/api/agent-harnesses":
            self.reply(200, {"standardEnvVars": [], "harnesses": {}})
        elif url.path == "/api/validate-yaml":
            self.reply(200, {"errors": [], "warnings": []})
        elif url.path == "/api/repos/create":
            self.create(json.loads(self.body()))
        elif match := re.fullmatch(r"/large/([0-9a-f]{64})", url.path):
            self.take_large(match[1])
        elif match := re.fullmatch(rf"/{repo}\.git/info/lfs/objects/batch", url.path):
            self.enter(("model", match[1]), "main", "", self.batch, write=True)
        elif match := re.fullmatch(rf"/(?:(dataset)s/)?{repo}/resolve/([^/]+)/(.+)", url.path):
            self.enter((match[1] or "model", match[2]), match[3], match[4], self.file)
        elif match := re.fullmatch(rf"/api/(model|dataset)s/{repo}(?:/(\w+)/([^/]+)(?:/(.*))?)?", url.path):
            ways = {"revision": self.info, None: self.info, "tree": self.tree, "preupload": self.preupload,
                    "commit": self.commit}  # fmt: skip
            write = match[3] in ("preupload", "commit")
            self.enter((match[1], match[2]), match[4] or "main", match[5] or "", ways[match[3]], write)
        else:
            self.refuse(404, "No such route")

    def enter(self, key: Key, revision: str, path: str, way: Any, write: bool = False) -> None:
        """Check the repository, the right to it and the revision; then go on with (key, commit, files, path)."""
        if key not in self.hub.commits or (key in self.hub.private and not self.role):
            self.refuse(404 if self.role else 401, "Repository not found", "RepoNotFound")
        elif write and self.role != "write":
            self.refuse(403 if self.role else 401, "You don't have the rights to write here")
        elif result := self.hub.find(key, unquote(revision)):
            way(key, *result, unquote(path))
        else:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    # --- reading ---

    def info(self, key: Key, commit: str, files: Files, _path: str) -> None:
        siblings = [{"rfilename": p} for p in sorted(files)]
        self.reply(200, {"id": key[1], "sha": commit, "private": key in self.hub.private, "siblings": siblings})

    def tree(self, _key: Key, _commit: str, files: Files, under: str) -> None:
        rows: dict[str, dict[str, Any]] = {}
        under = f"{under}/" if under else ""
        for path, data in sorted(files.items()):
            if not path.startswith(under):
                continue
            parts = path.removeprefix(under).split("/")
            for n in range(1, len(parts) if self.deep else min(len(parts), 2)):
                folder = under + "/".join(parts[:n])
                rows[folder] = {"type": "directory", "path": folder, "size": 0, "oid": oid_of("", folder.encode())}
            if self.deep or len(parts) == 1:
                rows[path] = {"type": "file", "path": path, "size": len(data), "oid": oid_of("", data)}
                if is_large(path, len(data)):
                    rows[path]["lfs"] = {"oid": oid_of(path, data), "size": len(data), "pointerSize": 134}
        if rows or not under:
            self.reply(200, list(rows.values()))
        else:
            self.refuse(404, f"{under} does not exist", "EntryNotFound")

    def file(self, _key: Key, commit: str, files: Files, path: str) -> None:
        if path not in files:
            self.refuse(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
            return
        data = files[path]
        head = {"X-Repo-Commit": commit, "ETag": f'"{oid_of(path, data)}"', "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self.reply(200, data, head)
            return
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        self.reply(206, data[first : last + 1], {**head, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    # --- writing ---

    def create(self, asked: dict[str, Any]) -> None:
        key = ("model", f"{asked.get('organization') or 'tester'}/{asked['name']}")
        answer = {"url": f"{self.hub.url}/{key[1]}"}
        if self.role != "write":
            self.refuse(403 if self.role else 401, "You don't have the rights to create a model under this namespace")
        elif key in self.hub.commits:
            self.reply(409, {"error": "You already created this model repo", **answer})
        else:
            self.hub.add(*key, {}, private=asked.get("visibility") == "private")
            self.reply(200, answer)

    def preupload(self, _key: Key, _commit: str, files: Files, _path: str) -> None:
        rows = []
        for file in json.loads(self.body())["files"]:
            path, large = file["path"], is_large(file["path"], file["size"])
            there = {"oid": oid_of(path, files[path])} if path in files else {}
            rows.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **there})
        self.reply(200, {"files": rows})

    def batch(self, _key: Key, _commit: str, _files: Files, _path: str) -> None:
        """An object without an action is here already."""
        rows = []
        for item in json.loads(self.body())["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/large/{item['oid']}"}}
            actions = {} if item["oid"] in self.hub.large else {"actions": upload}
            rows.append({"oid": item["oid"], "size": item["size"], **actions})
        self.reply(200, {"transfer": "basic", "objects": rows})

    def take_large(self, oid: str) -> None:
        data = self.body()
        if hashlib.sha256(data).hexdigest() != oid:
            self.refuse(400, "The content does not match its oid")
            return
        self.hub.large[oid] = data
        self.reply(200, {})

    def commit(self, key: Key, _commit: str, files: Files, _path: str) -> None:
        new = dict(files)
        for item in map(json.loads, self.body().splitlines()):
            value = item["value"]
            if item["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "deletedFile":
                new.pop(value["path"])
            elif item["key"] == "lfsFile":
                new[value["path"]] = self.hub.large[value["oid"]]
        commit = self.hub.add(*key, new)
        self.reply(200, {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{key[1]}/commit/{commit}"})
