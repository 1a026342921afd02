"""A fake competition service on 127.0.0.1 with the calls that the official client makes for an upload.

The client reaches it as its HTTP proxy, with KAGGLE_API_ENVIRONMENT=LOCALHOST. Tests configure its faults.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

TOKEN = "KGAT_5e8c1d9a7b3f4e60"
DATE = "2026-11-22T21:04:05.1234567Z"  # seven digits, as the service writes it
SIGNED = "signature-0123456789"  # of the upload URL


@dataclass
class FakeKaggle:
    """The state of the service, which runs inside `with FakeKaggle() as service:`."""

    token: str = TOKEN
    competition: str = "human-pose"
    score: str = "45.671"
    outcome: str = "COMPLETE"  # or ERROR: the scorer rejects the file
    lists_until_listed: int = 0  # listings without the latest submission
    lists_until_scored: int = 1  # listings with status PENDING
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)  # method: HTTP status and message, for all calls
    refusal: str = ""  # message of CreateSubmission, with status 200, in place of success
    hang_seconds: float = 0.0  # before CreateSubmission answers
    submissions: list[dict[str, Any]] = field(default_factory=list)  # newest first
    uploads: dict[str, bytes] = field(default_factory=dict)  # content by blob token
    calls: list[str] = field(default_factory=list)  # methods in order

    def __enter__(self) -> "FakeKaggle":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, description: str, file_name: str = "submission.csv.gz", **facts: Any) -> dict[str, Any]:
        """Add a submission, as CreateSubmission does."""
        ref = 9000 + len(self.submissions)
        row = {"ref": ref, "fileName": file_name, "date": DATE, "description": description, "status": "PENDING"}
        self.submissions.insert(0, row | facts)
        return self.submissions[0]

    def answer(self, method: str, request: dict[str, Any], signed_in: bool) -> tuple[int, dict[str, Any]]:
        """Answer one call of the client with an HTTP status and JSON."""
        self.calls.append(method)
        if method in self.faults:
            status, message = self.faults[method]
            return status, {"code": status, "message": message}
        if method == "IntrospectToken":
            active = request.get("token") == self.token
            return 200, {"active": active, "username": "tester" if active else ""}
        if not signed_in:
            return 401, {"code": 401, "message": "Unauthenticated"}
        if request.get("competitionName") != self.competition:
            return 404, {"code": 404, "message": "Competition not found"}
        return 200, getattr(self, f"_{method}")(request)

    def _StartSubmissionUpload(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        blob = f"blob-{len(self.uploads)}"
        self.uploads[blob] = b""
        self._name = request["fileName"]
        return {"token": blob, "createUrl": f"{self.address}/upload/{blob}?signature={SIGNED}"}

    def _CreateSubmission(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        time.sleep(self.hang_seconds)
        if self.refusal:
            return {"message": self.refusal, "ref": 0}
        assert request["blobFileTokens"] in self.uploads
        row = self.add(request.get("submissionDescription", ""), self._name)
        return {"message": "Successfully submitted to Human pose", "ref": row["ref"]}

    def _GetSubmissionLimits(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"numToday": 1, "numTotal": 1, "numAllowedNow": 4, "limitedByTotal": False}

    def _ListSubmissions(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if self.uploads and self.lists_until_listed > 0:
            self.lists_until_listed -= 1
            return {"submissions": self.submissions[1:], "nextPageToken": ""}
        pending = [row for row in self.submissions if row["status"] == "PENDING"]
        if pending and self.lists_until_scored <= 0:
            pending[0] |= {"status": self.outcome, "publicScore": self.score if self.outcome == "COMPLETE" else ""}
        self.lists_until_scored -= bool(pending)
        return {"submissions": self.submissions, "nextPageToken": ""}


def _handler(service: FakeKaggle) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            method = urlsplit(self.path).path.rpartition("/")[2]  # /api/v1/<service>/<method>
            signed_in = self.headers.get("Authorization") == f"Bearer {service.token}"
            self._reply(*service.answer(method, json.loads(self._body() or b"{}"), signed_in))

        def do_PUT(self) -> None:
            service.calls.append("PUT")
            content, address = self._body(), urlsplit(self.path)
            assert address.query == f"signature={SIGNED}"
            if "PUT" in service.faults:
                self._reply(service.faults["PUT"][0], {})
                return
            service.uploads[address.path.rpartition("/")[2]] = content
            self._reply(200, {})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _reply(self, status: int, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # a client that was killed while it waited
                return

    return Handler
