"""Google Cloud Storage over HTTP for tests, in memory, with injected errors.

    with GcsEmulator(Faults(seed=1, count=100)) as gcs:
        subprocess.run([...], env=os.environ | gcs.environment())

Serves the part of the JSON API that TensorStore's `gcs` driver uses: read (ranges, preconditions),
insert (media upload), delete and list. Every bucket of `GcsEmulator.buckets` exists, empty.
"""

import collections
import dataclasses
import http.server
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

# What a storage service does to a client; every kind may hit a request of every method.
KINDS = (
    "429",  # too many requests, nothing was done
    "503",  # unavailable, nothing was done
    "dropped",  # the connection closes before the answer, nothing was done
    "lost",  # the request was executed, the connection closes before the answer
    "cut",  # the connection closes in the middle of the answer
    "slow",  # the answer stalls in the middle for `stall_secs`, then the connection closes
)


@dataclasses.dataclass
class Faults:
    """A plan of errors, the same for the same seed and sequence of requests.

    Attributes:
        count: number of errors in all; 0 for none.
        share: probability of an error for each request, until `count` were injected.
        stall_secs: of a `slow` answer.
    """

    seed: int = 0
    count: int = 0
    share: float = 0.2
    kinds: tuple[str, ...] = KINDS
    stall_secs: float = 2.0
    injected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self) -> str:
        """The kind of error for the next request; "" for none."""
        if self.injected.total() >= self.count or self._random.random() >= self.share:
            return ""
        kind = self._random.choice(self.kinds)
        self.injected[kind] += 1
        return kind


class ManyConnections(http.server.ThreadingHTTPServer):
    """Keeps as many as come at once until its thread runs; more would come again a second later."""

    request_queue_size = 128


class GcsEmulator:
    """Context: a server on a free port of this machine.

    Attributes:
        objects: {(bucket, name): (generation, content)}.
        requests: number of requests by method.
        token: if set, requests without `Authorization: Bearer <token>` get 401.
    """

    def __init__(self, faults: Faults | None = None, buckets: Iterable[str] = ("bucket",)) -> None:
        self.faults = faults or Faults()
        self.buckets = set(buckets)
        self.objects: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.requests: collections.Counter[str] = collections.Counter()
        self.token = ""
        self.lock = threading.Lock()
        self._generation = 0
        handler = type("Handler", (_Handler,), {"emulator": self})
        self._server = ManyConnections(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "GcsEmulator":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def clear(self) -> None:
        """Deletes all objects and plans no errors."""
        with self.lock:
            self.objects.clear()
            self.requests.clear()
            self.faults, self.token = Faults(), ""

    def environment(self) -> dict[str, str]:
        """Variables that send TensorStore here, without credentials, with impatient timeouts."""
        return {
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": self.token or "none",
            "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "1",
            "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
        }

    def names(self, prefix: str = "", bucket: str = "bucket") -> list[str]:
        """Sorted names of objects."""
        with self.lock:
            keys = list(self.objects)
        return sorted(name for b, name in keys if b == bucket and name.startswith(prefix))

    def content(self, name: str, bucket: str = "bucket") -> bytes:
        return self.objects[bucket, name][1]

    def put(self, name: str, content: bytes, bucket: str = "bucket") -> int:
        """Stores an object; returns its generation."""
        with self.lock:
            self._generation += 1
            self.objects[bucket, name] = (self._generation, content)
            return self._generation


class _Handler(http.server.BaseHTTPRequestHandler):
    emulator: GcsEmulator
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        emulator = self.emulator
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with emulator.lock:
            emulator.requests[self.command] += 1
            fault = emulator.faults.draw()
        if fault in ("429", "503"):
            return self._send(int(fault), b"try again")
        if fault == "dropped":
            self.close_connection = True
            return None
        status, answer, headers = self._answer(body)
        if fault == "lost":
            self.close_connection = True
            return None
        return self._send(status, answer, headers, fault)

    do_GET = do_POST = do_DELETE = _handle

    def _send(
        self, status: int, answer: bytes, headers: Mapping[str, str] = {}, fault: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if fault in ("cut", "slow"):
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            if fault == "slow":
                time.sleep(self.emulator.faults.stall_secs)
            self.close_connection = True
        else:
            self.wfile.write(answer)

    def _answer(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers) of a request without an injected error."""
        emulator = self.emulator
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        if emulator.token and self.headers.get("Authorization") != f"Bearer {emulator.token}":
            return _error(401, "Anonymous caller does not have access")
        upload = url.path.startswith("/upload")
        parts = url.path.removeprefix("/upload").split("/", 6)  # "", storage, v1, b, B, o, NAME
        bucket = parts[4]
        if bucket not in emulator.buckets:
            return _error(404, "The specified bucket does not exist.")
        name = urllib.parse.unquote(parts[6]) if len(parts) > 6 else query.get("name", "")
        if not upload and len(parts) <= 6:
            return self._list(bucket, query)
        with emulator.lock:
            generation, content = emulator.objects.get((bucket, name), (0, b""))
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and int(wanted) != generation:
                return _error(412, "conditionNotMet")
            if upload:
                emulator._generation += 1
                emulator.objects[bucket, name] = (emulator._generation, body)
                return _json(_resource(bucket, name, emulator._generation, body))
            if not generation:
                return _error(404, f"No such object: {bucket}/{name}")
            if self.command == "DELETE":
                del emulator.objects[bucket, name]
                return 204, b"", {}
        if query.get("ifGenerationNotMatch") == str(generation):
            return 304, b"", {}
        if query.get("alt") != "media":
            return _json(_resource(bucket, name, generation, content))
        headers = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
        return _ranged(content, self.headers.get("Range"), headers)

    def _list(self, bucket: str, query: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        prefix, start = query.get("prefix", ""), query.get("startOffset", "")
        end, after = query.get("endOffset"), query.get("pageToken", "")
        names = [
            name
            for name in self.emulator.names(prefix, bucket)
            if name >= start and name > after and (end is None or name < end)
        ]
        page = names[: int(query.get("maxResults", 1000))]
        with self.emulator.lock:
            objects = self.emulator.objects
            items = [
                _resource(bucket, name, *objects[bucket, name])
                for name in page
                if (bucket, name) in objects
            ]
        answer: dict[str, Any] = {"kind": "storage#objects", "items": items}
        if len(names) > len(page):
            answer["nextPageToken"] = page[-1]
        return _json(answer)


def _resource(bucket: str, name: str, generation: int, content: bytes) -> dict[str, Any]:
    time_text = "2024-01-01T00:00:00.000Z"
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "generation": str(generation),
        "metageneration": "1",
        "size": str(len(content)),
        "timeCreated": time_text,
        "updated": time_text,
    }


def _ranged(
    content: bytes, header: str | None, headers: dict[str, str]
) -> tuple[int, bytes, dict[str, str]]:
    if not header:
        return 200, content, headers
    first, _, last = header.removeprefix("bytes=").partition("-")
    size = len(content)
    low = int(first) if first else max(0, size - int(last))
    high = min(int(last) + 1, size) if first and last else size
    if low >= size:
        return 416, b"", headers
    return 206, content[low:high], headers | {"Content-Range": f"bytes {low}-{high - 1}/{size}"}


def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(value).encode(), {}


def _error(status: int, message: str) -> tuple[int, bytes, dict[str, str]]:
    value = {"error": {"code": status, "message": message}}
    return status, json.dumps(value).encode(), {}
