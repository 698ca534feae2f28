"""An S3 emulator in a process of its own: moto's server, with one request at a time. Knows nothing of what is stored.

moto alone looks for the object and then writes it, so two writers with `If-None-Match: *` can both succeed: in 3 of 60
rounds of 16 writers, when its threads changed often. It can also close an object that another thread reads.
"""

import contextlib
import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Server:
    """The address of an emulator.

    Attributes:
        environment: variables with which clients find it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "asks",
            "AWS_REGION": "us-east-1",
        }

    def create(self, bucket: str) -> str:
        """Create a bucket and return its address."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{bucket}")
            assert connection.getresponse().status == 200
        return f"s3://{bucket}"


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Serve an account without buckets on a free loopback port."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def _main() -> None:
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.responses import S3Response
    from werkzeug.serving import make_server

    lock, respond = threading.Lock(), S3Response.key_response

    def respond_alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return respond(*args, **kwargs)

    S3Response.key_response = respond_alone
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main()
