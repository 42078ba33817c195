"""A Hugging Face hub on this machine that receives files, in memory.

    with HubStub() as hub:
        ... HF_ENDPOINT=hub.url HF_TOKEN=hub.token HF_HUB_DISABLE_XET=1

Speaks what `huggingface_hub` asks of the hub for a push: whoami, creation of repositories, the
check of a card's YAML, upload modes, LFS batches (uploads are checked against their SHA-256),
commits, lists and downloads. Xet, the hub's faster upload protocol, it does not speak.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from typing import Any

import yaml

from tests.gcs_emulator import ManyConnections

REPO = r"(?P<name>[\w.-]+/[\w.-]+)"
_INTERNAL = "127.0.0.1"


class HubStub:
    """Attributes:
    token: the one that it accepts; its user is `me`, of the organisation `lab`.
    role: what the token may do.
    repos: name -> {"private": ..., "files": {path: bytes}, "commits": [...]}.
    objects: SHA-256 -> uploaded content of LFS.
    failures: regular expression of a path -> status of the answer.
    requests: (method, path) of every request.
    """

    def __init__(self) -> None:
        self.token, self.role = "hf_stub", "write"
        self.repos: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.failures: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = ManyConnections((_INTERNAL, 0), self._handler())
        self.url = f"http://{_INTERNAL}:{self._server.server_port}"

    def __enter__(self) -> "HubStub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _answer(self) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append((self.command, path))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer, headers = hub._respond(self.command, path, body, self.headers)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = _answer

        return Handler

    def _respond(
        self, method: str, path: str, body: bytes, headers: Any
    ) -> tuple[int, Any, dict[str, str]]:
        for pattern, status in self.failures.items():
            if re.search(pattern, path):
                return status, {"error": f"told to answer {status}"}, {}
        uploads = path.startswith("/lfs/")  # signed addresses, without the token
        if not uploads and headers.get("Authorization") != f"Bearer {self.token}":
            message = "Invalid credentials in Authorization header"
            return 401, {"error": message}, {"X-Error-Message": message}
        if uploads:
            oid = path.removeprefix("/lfs/")
            if method == "PUT":
                if hashlib.sha256(body).hexdigest() != oid:
                    return 400, {"error": "another SHA-256"}, {}
                self.objects[oid] = body
            return 200, {}, {}
        for pattern, answer in self._ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                values = match.groupdict()
                if "name" in values and values["name"] not in self.repos:
                    return 404, {"error": "no repository"}, {"X-Error-Code": "RepoNotFound"}
                return answer(self, body, **values)
        return 404, {"error": f"the stub has no {method} {path}"}, {}

    def _whoami(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        auth = {"accessToken": {"role": self.role}}
        return 200, {"type": "user", "name": "me", "orgs": [{"name": "lab"}], "auth": auth}, {}

    def _create(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        asked = json.loads(body)
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        if name in self.repos:
            return 409, {"error": "You already created this model repo"}, {}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repos[name] = {"private": private, "files": {}, "commits": []}
        return 200, {"url": f"{self.url}/{name}"}, {}

    def _info(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        repo = self.repos[name]
        info = {
            "id": name,
            "modelId": name,
            "private": repo["private"],
            "tags": [],
            "sha": "0" * 40,
        }
        return 200, info | {"downloads": 0, "likes": 0}, {}

    def _tree(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        files = self.repos[name]["files"].items()
        entries = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files]
        return 200, entries, {}

    def _check_yaml(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        text = json.loads(body)["content"]
        try:
            fields = yaml.safe_load(text.split("---\n")[1])
            errors = [] if isinstance(fields["license"], str) else [{"message": "license"}]
        except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
            errors = [{"message": f"no metadata: {error!r}"}]
        return (400 if errors else 200), {"errors": errors, "warnings": []}, {}

    def _modes(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        asked = json.loads(body)["files"]
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in asked
        ]
        return 200, {"files": files}, {}

    def _batch(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        objects = json.loads(body)["objects"]
        for one in objects:
            if one["oid"] not in self.objects:
                one["actions"] = {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _commit(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        files = dict(self.repos[name]["files"])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"{value['path']} was not uploaded"}, {}
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.repos[name]["files"] = files
        oid = hashlib.sha1(body).hexdigest()
        self.repos[name]["commits"].append(oid)
        url = f"{self.url}/{name}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url}, {}

    def _file(self, body: bytes, name: str, file: str) -> tuple[int, Any, dict[str, str]]:
        files = self.repos[name]["files"]
        if file not in files:
            return 404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound"}
        etag = hashlib.sha1(files[file]).hexdigest()
        return 200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": "0" * 40}

    _ROUTES = (
        (r"GET /api/whoami-v2", _whoami),
        (r"POST /api/repos/create", _create),
        (r"POST /api/validate-yaml", _check_yaml),
        (rf"GET /api/models/{REPO}", _info),
        (rf"GET /api/models/{REPO}/tree/main", _tree),
        (rf"POST /api/models/{REPO}/preupload/main", _modes),
        (rf"POST /api/models/{REPO}/commit/main", _commit),
        (rf"POST /{REPO}\.git/info/lfs/objects/batch", _batch),
        (rf"(?:GET|HEAD) /{REPO}/resolve/main/(?P<file>.+)", _file),
    )
