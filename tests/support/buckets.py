"""An emulated bucket on loopback, in this process, that can be made to fail."""

import contextlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from support.processes import free_port

NAME = "bucket"
URL = f"gs://{NAME}"


class Bucket:
    """The bucket of a test.

    Attributes:
      variables: of the environment of processes that shall find it.
      fault: asked with (method, path) of every request: None serves it, a status is the answer, 0 hangs up.
      failed: requests that a fault befell.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        address = f"http://127.0.0.1:{port}"
        self.variables = {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "FSSPEC_GS_TOKEN": "anon",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks other hosts what kind of bucket this is
        }
        self.storage: Any = None
        self.failed = 0
        self.serve()

    def serve(self) -> None:
        """Serve every request."""
        self.fault: Callable[[str, str], int | None] = lambda method, path: None

    def clear(self) -> None:
        """Serve every request, from an empty bucket."""
        self.serve()
        self.failed = 0
        if self.storage is not None:
            self.storage.wipe(keep_buckets=True)


@contextlib.contextmanager
def emulated() -> Iterator[Bucket]:
    """Serve a bucket `NAME` to this process and to those with its `variables`.

    Once a process: the libraries remember where the first one was.
    """
    bucket = Bucket(free_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.variables.items():  # before gcsfs is imported, which reads them
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
        server = emulator.create_server("127.0.0.1", bucket.port, in_memory=True, default_bucket=NAME)
        server.start()
        server._api._httpd.handle_error = lambda *_: None  # clients that hang up, as killed ones do
        bucket.storage = server._storage
        try:
            yield bucket
        finally:
            server.stop()
