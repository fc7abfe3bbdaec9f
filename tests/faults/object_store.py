"""A real S3 server (moto) in this process that can be told to fail, to hang, and to lose the client in mid-upload."""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "planted-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Matches = Callable[[str, str], bool]  # of method and path


class ObjectStore:
    """`uri("study")` is where to put a study; the other methods break things."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._failures: list[tuple[Matches, list[tuple[int, str]]]] = []
        self._held: tuple[Matches, bool] | None = None
        self.reached = threading.Event()
        """Set when a held request has arrived."""
        self.let_go = threading.Event()
        self.requests: list[tuple[str, str]] = []

    def start(self) -> "ObjectStore":
        """Serve, with an empty bucket."""
        from pyarrow.fs import FileSystem

        self._thread.start()
        fs, path = FileSystem.from_uri(self.uri("") + "&allow_bucket_creation=true")
        fs.create_dir(path.rstrip("/"))
        return self

    def stop(self) -> None:
        """End."""
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def uri(self, name: str) -> str:
        """The address of a study."""
        return f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{self._server.port}&scheme=http"

    def fail(
        self, times: int, matches: Matches = lambda method, path: True, status: int = 503, code: str = "SlowDown"
    ) -> None:
        """Answer the next matching requests with this status, and this code of S3."""
        self._failures.append((matches, [(status, code)] * times))

    def hold(self, matches: Matches, arrives: bool) -> None:
        """Keep the next matching request waiting for `let_go`; `arrives`: what it uploads is there by then."""
        self.reached.clear()
        self.let_go.clear()
        self._held = matches, arrives

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        for matches, left in self._failures:
            if left and matches(method, path):
                return _refused(environ, start_response, *left.pop())
        if self._held is None or not self._held[0](method, path):
            return self._app(environ, start_response)
        arrives, self._held = self._held[1], None
        if arrives:
            answer: Iterable[bytes] = list(self._app(environ, start_response))
        else:
            environ["wsgi.input"].read(10)
            answer = _refused(environ, start_response, 503)
        self.reached.set()
        self.let_go.wait(60)
        return answer


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def _refused(
    environ: WSGIEnvironment, start_response: StartResponse, status: int, code: str = "SlowDown"
) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<Error><Code>{code}</Code><Message>As it says.</Message></Error>".encode()
    start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
