"""A W&B server on this machine: just enough of its API for runs to be opened and fed. It can go away."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: "WandbStub"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/file_stream"):
            self.server.streamed.append((self.path, json.loads(body)))
        self._answer({"data": self._data(json.loads(body))} if self.path.endswith("/graphql") else {})

    def _data(self, request: Any) -> Any:
        found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        name, given = found[1] if found else "", request.get("variables", {})
        entity = {"id": "e", "name": "somebody"}
        if name == "UpsertBucket":
            bucket = {
                "id": "r",
                "name": given.get("name"),
                "displayName": given.get("displayName"),
                "config": "{}",
                "project": {"id": "p", "name": given.get("project"), "entity": entity},
                "historyLineCount": 0,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "RunResumeStatus":
            return {"model": {"id": "m", "name": "p", "entity": entity, "bucket": None}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/up/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {}


class WandbStub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.streamed: list[tuple[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: Any) -> None:  # a client that hung up
        pass

    def go_away(self) -> None:
        self.shutdown()
        self.server_close()

    def history(self) -> list[dict[str, Any]]:
        lines = [
            line
            for _, body in self.streamed
            for line in body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        ]
        return [json.loads(line) for line in lines]
