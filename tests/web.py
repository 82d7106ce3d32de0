"""A web server on this machine that hands out a folder, by ranges, and counts the bytes."""

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Web:
    """What a server is to do, and what it has done.

    Attributes:
        folder: What it hands out.
        ranges: Whether it hands out parts of files.
        seconds: How long it thinks about each request.
        head: Whether it answers HEAD.
        login: The `Authorization` header that it asks for; empty for none.
        sent: Bytes of each answer, but for headers.
    """

    folder: Path
    ranges: bool = True
    seconds: float = 0
    head: bool = True
    login: str = ""
    sent: list[int] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Iterator[Web]:
    """Serves a folder until the block ends, over TLS if there is a certificate (with its key)."""
    web = Web(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            time.sleep(web.seconds)
            if web.login and self.headers.get("Authorization") != web.login:
                self.send_error(401)
                return
            path = folder / unquote(self.path.partition("?")[0]).lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked and web.ranges:
                first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                content = content[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                web.sent.append(len(content))
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            if web.head:
                self.do_GET()
            else:
                self.send_error(501)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    scheme = "http" if certificate is None else "https"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.address = f"{scheme}://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
