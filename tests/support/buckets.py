"""Emulated buckets on loopback, in this process, that can be made to fail."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus

import pytest

from support.processes import free_port

NAME = "bucket"
URL = f"gs://{NAME}"
S3_URL = f"s3://{NAME}"


class Bucket:
    """The bucket of a test.

    Attributes:
      url: of the bucket.
      variables: of the environment of processes that shall find it.
      fault: asked with (method, path) of every request: None serves it, a status is the answer, 0 hangs up.
      failed: requests that a fault befell.
      wipe: removes all objects.
    """

    def __init__(self, url: str, variables: Mapping[str, str]) -> None:
        self.url, self.variables = url, variables
        self.wipe: Callable[[], None] = lambda: None
        self.failed = 0
        self.serve()

    def serve(self) -> None:
        """Serve every request."""
        self.fault: Callable[[str, str], int | None] = lambda method, path: None

    def clear(self) -> None:
        """Serve every request, from an empty bucket."""
        self.serve()
        self.failed = 0
        self.wipe()


@contextlib.contextmanager
def emulated() -> Iterator[Bucket]:
    """Serve a bucket `NAME` to this process and to those with its `variables`.

    Once a process: the libraries remember where the first one was.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    variables = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "FSSPEC_GS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks other hosts what kind of bucket this is
    }
    bucket = Bucket(URL, variables)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():  # before gcsfs is imported, which reads them
            patch.setenv(name, value)
        pytest.importorskip("gcsfs")
        emulator = pytest.importorskip("gcp_storage_emulator.server")
        from fsspec import config
        from gcp_storage_emulator.handlers import objects

        serve, download = emulator.Router.handle, objects.download

        def generation(storage, *place) -> str:
            try:
                return storage.get_file_obj(*place)["generation"]
            except objects.NotFound:
                return "0"

        def kept_to_its_condition(put, name_of):
            """What the emulator lacks: an object is put only where the generation asked for is."""

            def put_or_refuse(request, response, storage):
                present = generation(storage, request.params["bucket_name"], name_of(request))
                if request.query.get("ifGenerationMatch", [present]) == [present]:
                    put(request, response, storage)
                else:
                    response.status = HTTPStatus.PRECONDITION_FAILED

            return put_or_refuse

        def download_with_generation(request, response, storage, *arguments, **options):
            """What the emulator lacks, and TensorStore asks: the generation in a header."""
            place = (request.params["bucket_name"], request.params["object_id"])
            response["X-Goog-Generation"] = generation(storage, *place)
            download(request, response, storage, *arguments, **options)

        def handle(router, method):
            handler = router._request_handler
            status = bucket.fault(method, handler.path)
            if status is None:
                serve(router, method)
                return
            bucket.failed += 1
            if status:
                handler.send_response(status)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

        names = {
            "_multipart_upload": lambda request: request.data["meta"]["name"],
            "_media_upload": lambda request: request.query["name"][0],
        }
        for handler, name_of in names.items():
            patch.setattr(objects, handler, kept_to_its_condition(getattr(objects, handler), name_of))
        patch.setattr(objects, "download", download_with_generation)
        patch.setattr(emulator.Router, "handle", handle)
        patch.setitem(config.conf, "gs", {"token": "anon"})
        server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=NAME)
        server.start()
        server._api._httpd.handle_error = lambda *_: None  # clients that hang up, as killed ones do
        bucket.wipe = functools.partial(server._storage.wipe, keep_buckets=True)
        try:
            yield bucket
        finally:
            server.stop()


@contextlib.contextmanager
def emulated_s3() -> Iterator[Bucket]:
    """Serve a bucket `NAME` of S3 to this process and to those with its `variables`; once a process.

    The emulator refuses an object with `If-None-Match: *` where there is one, as S3 does.
    """
    port = free_port()
    variables = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    bucket = Bucket(S3_URL, variables)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        pytest.importorskip("s3fs")
        app = pytest.importorskip("moto.moto_server.werkzeug_app")
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends
        from werkzeug.serving import make_server

        one_at_a_time = threading.Lock()  # the emulator looks and puts in two steps, S3 in one
        answer = app.create_backend_app("s3")

        def serve(environ, start_response):
            with one_at_a_time:
                return answer(environ, start_response)

        class Handler(app.MotoRequestHandler):
            def run_wsgi(self):
                status = bucket.fault(self.command, self.path)
                if status is None:
                    return super().run_wsgi()
                bucket.failed += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.close_connection = True
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                return None

            def log(self, *_):
                pass

        def wipe():
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(NAME, "us-east-1")

        bucket.wipe = wipe
        server = make_server("127.0.0.1", port, serve, threaded=True, request_handler=Handler)
        server.handle_error = lambda *_: None  # clients that hang up, as killed ones do
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield bucket
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
