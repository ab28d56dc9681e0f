"""A Hub on this machine: what `huggingface_hub` asks of the real one to make repositories, commit to them and download them.

Commits are kept in memory, files in one piece (the real Hub takes large ones another way). Whoever writes needs the token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"


@dataclass
class Repository:
    """Branches by name, and the files of every commit by its hash."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        whole = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        content = repr((len(self.commits), message, sorted(whole.items())))
        self.branches[branch] = name = hashlib.sha1(content.encode()).hexdigest()
        self.commits[name] = whole
        return name

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """The stand-in: its address, its repositories, and every request it got, as `METHOD /path`."""

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, content: Any = b"", status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def missing(self, what: str) -> None:
            self.answer({"error": what}, 404, X_Error_Code=what)

        def repository(self, path: list[str]) -> Repository | None:
            found = hub.repositories.get("/".join(path[:2]))
            if found is None or (found.private and not self.allowed()):
                self.missing("RepoNotFound")
                return None
            return found

        def allowed(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def parts(self) -> list[str]:
            hub.requests.append(f"{self.command} {self.path}")
            return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.parts()
            api = path[:2] == ["api", "models"]
            path = path[2:] if api else path
            if (repository := self.repository(path)) is None:
                return
            kind, revision, *rest = [*path[2:], "", "main"][:2] + path[4:] if path[2:] else ["revision", "main"]
            if (commit := repository.find(revision)) is None:
                self.missing("RevisionNotFound")
                return
            files = repository.commits[commit]
            if api and kind == "revision":
                self.answer({"id": "/".join(path[:2]), "sha": commit, "siblings": [{"rfilename": name} for name in files]})
            elif api and kind == "tree":
                self.answer(
                    [{"type": "file", "path": name, "size": len(files[name]), "oid": _blob(files[name])} for name in files]
                )
            elif kind == "resolve" and "/".join(rest) in files:
                content = files["/".join(rest)]
                self.answer(content, X_Repo_Commit=commit, ETag=f'"{_blob(content)}"')
            else:
                self.missing("EntryNotFound")

        def do_POST(self) -> None:
            path = self.parts()
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            body = self.chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path == ["api", "validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            elif not self.allowed():
                self.answer({"error": "Invalid credentials"}, 401)
            elif path == ["api", "repos", "create"]:
                wish = json.loads(body)
                name = f"{wish['organization']}/{wish['name']}"
                made = Repository(private="private" in (wish.get("visibility"), wish.get("private") and "private"))
                if name in hub.repositories:
                    self.answer({"error": "exists", "url": f"{hub.endpoint}/{name}"}, 409)
                else:
                    hub.repositories[name] = made
                    made.commit("main", {".gitattributes": b""}, "initial commit")
                    self.answer({"url": f"{hub.endpoint}/{name}", "name": name})
            elif (repository := self.repository(path[2:])) is not None:
                self.write(repository, path[4], "/".join(path[5:]), body)

        def write(self, repository: Repository, kind: str, branch: str, body: bytes) -> None:
            if kind == "branch":
                new = branch not in repository.branches
                repository.branches.setdefault(branch, repository.branches["main"])
                self.answer({}, 200 if new else 409)
            elif branch not in repository.branches:
                self.missing("RevisionNotFound")
            elif kind == "preupload":
                self.answer(
                    {
                        "files": [
                            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for one in json.loads(body)["files"]
                        ]
                    }
                )
            elif kind == "commit":
                lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                if lines[0]["value"].get("parentCommit") not in (None, repository.branches[branch]):
                    self.answer({"error": "A commit has happened since."}, 412)
                    return
                files = {
                    one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"
                }
                commit = repository.commit(branch, files, lines[0]["value"]["summary"])
                self.answer({"commitUrl": f"{hub.endpoint}/x/y/commit/{commit}", "commitOid": commit})

        def chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline().strip(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _blob(content: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
