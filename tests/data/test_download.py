"""A local server stands in for the mirrors; the first part of an address says how it misbehaves."""

import hashlib
import os
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tinygen.data import DownloadError, cache_folder
from tinygen.data.download import fetch
from tinygen.errors import InputError
from tinygen.files import OutputError

CONTENTS = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENTS).hexdigest()
BOUNDS = {"limit": 200_000, "timeout": 0.15, "deadline": 0.3}
FAILURES = {
    "missing": "404",
    "truncated": "sent 51,200 bytes that are not the file",
    "corrupted": "sent 102,400 bytes that are not the file",
    "oversized": "sent more than 200,000 bytes",
    "endless": "sent more than 200,000 bytes",
    "slow": "sent only [0-9]+ bytes in 0.3 s",
    "silent": "timed out",
    "reset": "reset|closed connection",
    "rubbish": "not HTTP",
}


class Mirror(BaseHTTPRequestHandler):
    over = threading.Event()  # ends whatever is still being sent when the tests are done

    def do_GET(self):
        how = self.path.split("/")[1]
        self.server.asked.append(how)
        if how == "rubbish":
            return self.wfile.write(b"rubbish\r\n\r\n")
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self.connection.close()
        if how == "silent":
            return self.over.wait(2)
        self.send_response(404 if how == "missing" else 200)
        if how == "truncated":
            self.send_header("Content-Length", str(len(CONTENTS)))
        self.end_headers()
        self.wfile.writelines(self.body(how))

    def body(self, how):
        if how == "slow":
            while not self.over.wait(0.05):
                yield b"x"
        pieces = {"good": [CONTENTS], "truncated": [CONTENTS[: len(CONTENTS) // 2]], "oversized": [2 * CONTENTS]}
        pieces |= {"corrupted": [CONTENTS[:-1] + b"x"], "endless": (CONTENTS for _ in range(1000))}
        yield from pieces.get(how, [b"there is none"])

    def handle(self):
        try:
            super().handle()
        except OSError:  # the reader has heard enough
            self.close_connection = True

    def finish(self):
        try:
            super().finish()
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        """Nothing on the test's standard error."""


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.daemon_threads, server.asked = True, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        server.at = lambda how: f"http://127.0.0.1:{server.server_port}/{how}/"
        yield server
        Mirror.over.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(server, tmp_path):
    server.asked.clear()
    for _ in range(2):
        assert fetch("a.gz", SHA256, [server.at("good")], tmp_path / "new" / "folder", **BOUNDS) == CONTENTS
    assert server.asked == ["good"]
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["a.gz"]


@pytest.mark.parametrize("how", FAILURES)
def test_a_mirror_that_fails_is_named_with_the_reason_and_leaves_nothing_behind(how, server, tmp_path):
    with pytest.raises(DownloadError, match=f"Cannot download a.gz. {server.at(how)}.*({FAILURES[how]})"):
        fetch("a.gz", SHA256, [server.at(how)], tmp_path, **BOUNDS)
    assert not list(tmp_path.iterdir())


def test_mirrors_are_tried_in_order_until_one_has_the_file(server, tmp_path):
    server.asked.clear()
    mirrors = [server.at(how) for how in ("missing", "corrupted", "reset", "good", "oversized")]
    assert fetch("a.gz", SHA256, mirrors, tmp_path, **BOUNDS) == CONTENTS
    assert server.asked == ["missing", "corrupted", "reset", "good"]


def test_nobody_listening_is_explained(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(DownloadError, match="refused"):
            fetch("a.gz", SHA256, [f"http://127.0.0.1:{bound.getsockname()[1]}/"], tmp_path, **BOUNDS)


@pytest.mark.parametrize("damage", [CONTENTS[:-1], CONTENTS + b"x", b"", bytes(300_000)])
def test_a_damaged_file_in_the_cache_is_fetched_again_with_a_warning(damage, server, tmp_path, caplog):
    (tmp_path / "a.gz").write_bytes(damage)
    assert fetch("a.gz", SHA256, [server.at("good")], tmp_path, **BOUNDS) == CONTENTS
    assert "is damaged" in caplog.text and (tmp_path / "a.gz").read_bytes() == CONTENTS


def test_a_damaged_file_stays_when_nothing_better_is_to_be_had(server, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"damaged")
    with pytest.raises(DownloadError):
        fetch("a.gz", SHA256, [server.at("missing")], tmp_path, **BOUNDS)
    assert (tmp_path / "a.gz").read_bytes() == b"damaged"


def test_a_cache_that_cannot_be_written_is_explained_before_anything_is_downloaded(server, tmp_path):
    server.asked.clear()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="Cannot write .*file"):
        fetch("a.gz", SHA256, [server.at("good")], tmp_path / "file", **BOUNDS)
    assert not server.asked


def test_a_full_cache_that_cannot_be_written_is_read(server, tmp_path, monkeypatch):
    (tmp_path / "a.gz").write_bytes(CONTENTS)
    monkeypatch.setattr("tinygen.data.download.make_folder", lambda folder: pytest.fail("wants to write"))
    assert fetch("a.gz", SHA256, [server.at("good")], tmp_path, **BOUNDS) == CONTENTS


def test_the_cache_folder_is_the_first_of_argument_tinygen_cache_xdg_and_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TINYGEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folder() == tmp_path / ".cache" / "tinygen"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "tinygen"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", os.path.join(tmp_path, "local"))
    assert cache_folder() == tmp_path / "local" / "tinygen" / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tinygen"
    monkeypatch.setenv("TINYGEN_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    assert cache_folder("this") == Path("this")


def test_no_home_folder_is_explained(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TINYGEN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(InputError, match="Set TINYGEN_CACHE"):
        cache_folder()
