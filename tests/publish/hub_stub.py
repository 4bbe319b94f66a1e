"""The endpoints of the Hugging Face Hub that uploading and downloading use, on 127.0.0.1, with faults on request."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import pytest

SHA = "a" * 40
"""Of every commit."""
WRITER, READER = "hf_writerwriterwriter", "hf_readerreaderreader"


class StubHub:
    """Repositories in memory."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        """Repository -> branch -> path -> content."""
        self.private: dict[str, bool | None] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[tuple[str, str, int]] = []
        """(method, part of the path, status), each used up by one request."""
        self.endpoint = ""

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos[repo][branch]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StubHub

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""

    def reply(self, status: int, data: Any = None, body: bytes = b"", **headers: str) -> None:
        if data is not None:
            body, headers = json.dumps(data).encode(), {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append((self.command, path))
        for fault in self.hub.faults:
            if fault[0] == self.command and fault[1] in path:
                self.hub.faults.remove(fault)
                return self.reply(fault[2], {"error": "stub fault"})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path.startswith("/lfs/"):
            self.hub.blobs[path.removeprefix("/lfs/")] = body
            return self.reply(200)
        if self.command in ("GET", "HEAD"):
            return self.tell(path) if path.startswith("/api/") else self.download(path)
        if "/paths-info/" in path:
            return self.paths_info(path, body)
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if token not in (WRITER, READER):
            return self.reply(401, {"error": "Invalid username or password."})
        if token == READER:
            return self.reply(403, {"error": "You don't have the rights"})
        return self.write(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def write(self, path: str, body: bytes) -> None:
        repos, parts = self.hub.repos, path.strip("/").split("/")
        if path == "/api/repos/create":
            data = json.loads(body)
            repo = f"{data['organization']}/{data['name']}" if data.get("organization") else f"me/{data['name']}"
            if repo in repos:
                return self.reply(409, {"error": "exists", "url": f"{self.hub.endpoint}/{repo}"})
            repos[repo] = {"main": {}}
            # Newer releases of the client say it as a visibility.
            self.hub.private[repo] = data.get("private", {"private": True}.get(data.get("visibility")))
            return self.reply(200, {"url": f"{self.hub.endpoint}/{repo}", "name": repo})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for item in json.loads(body)["objects"]:
                known = item["oid"] in self.hub.blobs
                actions = {} if known else {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{item['oid']}"}}}
                objects.append({"oid": item["oid"], "size": item["size"], **actions})
            return self.reply(200, {"transfer": "basic", "objects": objects})
        repo, verb, branch = "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
        if verb == "branch":
            repos[repo].setdefault(branch, dict(repos[repo]["main"]))
            return self.reply(200, {})
        if branch not in repos.get(repo, {}):
            return self.reply(404, {"error": "no such revision"}, X_Error_Code="RevisionNotFound")
        if verb == "preupload":
            wanted = json.loads(body)["files"]
            found = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".parquet")) else "regular",
                    "shouldIgnore": False,
                }
                for f in wanted
            ]
            return self.reply(200, {"files": found})
        assert verb == "commit", path
        changed = {}
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                changed[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                changed[item["value"]["path"]] = self.hub.blobs[item["value"]["oid"]]
        repos[repo][branch].update(changed)
        return self.reply(200, {"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{SHA}", "commitOid": SHA})

    def branch(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a branch; the one commit that there is stands for `main`."""
        return self.hub.repos.get(repo, {}).get("main" if revision == SHA else revision)

    def tell(self, path: str) -> None:
        """Facts about a repository (`/api/datasets/me/words[/revision/main]`) and its files (`.../tree/main/folder`)."""
        parts = path.strip("/").split("/")
        if parts[1] not in ("models", "datasets"):
            return self.reply(404, {"error": "no such endpoint"})
        repo, verb, revision = "/".join(parts[2:4]), (parts[4:5] or ["revision"])[0], (parts[5:6] or ["main"])[0]
        if repo not in self.hub.repos:
            return self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        files = self.branch(repo, revision)
        if files is None:
            return self.reply(404, {"error": "no such revision"}, X_Error_Code="RevisionNotFound")
        if verb == "tree":
            below = "".join(f"{part}/" for part in parts[6:])
            entries = [_entry(name, content) for name, content in files.items() if name.startswith(below)]
            folders = {"/".join(name.split("/")[:n]) for name in files for n in range(1, name.count("/") + 1)}
            entries += [
                {"type": "directory", "path": name, "oid": SHA} for name in sorted(folders) if name != below[:-1]
            ]
            entries = [entry for entry in entries if entry["path"].startswith(below)]
            if below and not entries:
                return self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return self.reply(200, entries)
        about = {"id": repo, "sha": SHA, "private": bool(self.hub.private.get(repo)), "tags": [], "downloads": 0}
        return self.reply(200, {**about, "siblings": [{"rfilename": name} for name in files]})

    def paths_info(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        files = self.branch("/".join(parts[2:4]), parts[5])
        if files is None:
            return self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
        found: list[dict[str, Any]] = []
        for name in asked:
            if name in files:
                found.append(_entry(name, files[name]))
            elif any(other.startswith(f"{name}/") for other in files):
                found.append({"type": "directory", "path": name, "oid": SHA})
        return self.reply(200, found)

    def download(self, path: str) -> None:
        parts = path.strip("/").removeprefix("datasets/").split("/")
        repo = "/".join(parts[:2])
        if repo not in self.hub.repos:
            return self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        files = self.branch(repo, parts[3]) or {}
        name = "/".join(parts[4:])
        if name not in files:
            return self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=SHA)
        etag = f'"{hash(files[name]) & (2**64 - 1):x}"'
        return self.reply(200, body=files[name], ETag=etag, X_Repo_Commit=SHA)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": f"{hash(content) & (2**64 - 1):040x}"}


@contextmanager
def serve() -> Iterator[StubHub]:
    """Serve an empty hub until the block ends."""
    hub = StubHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[StubHub]:
    """Serve an empty hub, and point the clients for files and datasets at it, with a cache of their own."""
    import datasets
    from huggingface_hub import HfFileSystem, constants

    with serve() as stub:
        template = stub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": stub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", stub.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        monkeypatch.setenv("HF_TOKEN", WRITER)
        HfFileSystem.clear_instance_cache()
        yield stub
        HfFileSystem.clear_instance_cache()
