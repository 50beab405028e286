"""The real `untar_data` against a server on this machine: downloads that fail, archives that are damaged or hostile."""
import errno
import hashlib
import io
import random
import re
import shutil
import tarfile
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fastai.data.external
import fastdownload.core
import pytest
from conftest import run_program

from mnist_scratch import files
from mnist_scratch.files import FULL_COUNTS, DataError, count_images, mnist_path


class Answer(BaseHTTPRequestHandler):
    "What `server.reply(archive)` says: status, announced length, content, and perhaps that silence follows."

    def do_GET(self):
        self.server.n_requests += 1
        status, length, content, *silence = self.server.reply(self.server.archive)
        if status:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)
        if silence:
            self.server.released.wait(60)

    def log_message(self, *args):
        pass


def whole(archive):
    return 200, len(archive), archive


def packed(folder: Path, *extra: tarfile.TarInfo) -> bytes:
    "`folder` as fastai packs MNIST, and more than a megabyte, whatever the pictures are."
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        noise = tarfile.TarInfo("mnist_png/noise.bin")
        noise.size = 3 << 19
        archive.addfile(noise, io.BytesIO(random.Random(0).randbytes(noise.size)))
        archive.add(folder, "mnist_png")
        for member in extra:
            archive.addfile(member, io.BytesIO(b"evil") if member.isreg() else None)
    return file.getvalue()


@pytest.fixture
def mirror(small_folder, tmp_path, sample_folder, monkeypatch):
    "What fastai downloads MNIST from, with its checks; a small MNIST, complete with 40 + 20 images."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.archive, server.reply, server.n_requests, server.released = packed(small_folder), whole, 0, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/mnist_png.tgz"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    check = len(server.archive), hashlib.md5(server.archive[: 1 << 20]).hexdigest()
    monkeypatch.setattr(fastdownload.core, "read_checks", lambda module: {server.url: check})
    monkeypatch.setattr(fastai.data.external.URLs, "MNIST", server.url)
    monkeypatch.setattr(files, "FULL_COUNTS", {"training": 40, "testing": 20})
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MNIST_SCRATCH_CACHE", str(sample_folder.parent))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))  # where fastai unpacks
    fastai.data.external.fastai_cfg.cache_clear()
    yield server
    fastai.data.external.fastai_cfg.cache_clear()
    server.released.set(), server.shutdown(), server.server_close()


PAGE = b"<html>\n<h1>Not here</h1>\n</html>" * 100
FAULTS = {
    "broken off": (lambda archive: (200, len(archive), archive[: len(archive) // 2]), "ContentTooShortError"),
    "cut by a proxy that announces half": (
        lambda archive: (200, len(archive) // 2, archive[: len(archive) // 2]), "what came is damaged or cut off"),
    "other bytes": (lambda archive: (200, len(archive), archive[::-1]), "what came is damaged or cut off"),
    "damaged where fastai's check does not look": (
        lambda archive: (200, len(archive), archive[:-1000] + bytes(1000)), "the archive does not hold 60,000"),
    "not there": (lambda archive: (404, len(PAGE), PAGE), "404: Not Found"),
    "refused by a proxy": (lambda archive: (407, 5, b"Who?\n"), "407: Proxy Authentication Required"),
    "silence": (lambda archive: (None, 0, b"", True), "timed out"),
    "silence halfway": (lambda archive: (200, len(archive), archive[:9999], True), "timed out"),
}
NETWORK = r"Check the connection and the proxy \(HTTPS_PROXY\) and run again, or set MNIST_SCRATCH_DATA=sample"
DISK = "Free some space or set FASTAI_HOME to a folder that can be written and run again, or set MNIST_SCRATCH"


def failing(error):
    def fail(*args, **kwargs):
        raise error
    return fail


@pytest.fixture
def quick(monkeypatch):
    "One second of silence is enough; the limits that were asked for."
    limits, original = [], fastdownload.core.download_url
    monkeypatch.setattr(fastdownload.core, "download_url", lambda url, dest, timeout: (
        limits.append(timeout), original(url, dest, timeout=min(timeout, 1))))
    return limits


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_download_is_said_and_the_next_run_works(mirror, quick, fault, tmp_path, capsys):
    # BUG in _full ("not there", "refused by a proxy"): an HTTPError has the address as filename, so the disk is blamed
    mirror.reply, reason = FAULTS[fault]
    said = rf"could not be downloaded from {mirror.url} \(.*{reason}.*\)\. {NETWORK}"
    with pytest.raises(DataError, match=f"^The full MNIST is not on this machine and {said}") as raised:
        mnist_path("full")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 700
    assert not (tmp_path / "fastai" / "data" / "mnist_png").exists()
    assert mnist_path("auto").name == "sample" and quick == [30, 30]
    line = capsys.readouterr().out.splitlines()[-1]
    assert "4,000 training" in line and re.search(rf"\(the embedded sample, because: .*{said}", line)
    mirror.reply = whole
    assert mnist_path("auto") == mnist_path() == tmp_path / "fastai" / "data" / "mnist_png"
    assert re.search(r"40 training and 20 testing images in .*mnist_png \(MNIST_SCRATCH_DATA=sample takes 5,000\)",
                     capsys.readouterr().out)
    assert mnist_path("full").is_dir() and mirror.n_requests == 3


@pytest.mark.parametrize(("error", "cure"), [
    (OSError("Tunnel connection failed: 407 Proxy Authentication Required"), NETWORK),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), NETWORK),
    (OSError(errno.ENOSPC, "No space left on device"), DISK),
    (PermissionError(errno.EACCES, "Permission denied", "archive"), DISK),
], ids=str)
def test_what_the_network_or_the_disk_says_decides_the_cure(mirror, monkeypatch, error, cure):
    monkeypatch.setattr(fastdownload.core, "download_url", failing(error))
    with pytest.raises(DataError, match=rf"{re.escape(str(error))}\)\. {cure}"):
        mnist_path("full")


@pytest.mark.parametrize("part", ["", "config.ini"])
def test_a_place_that_fastai_cannot_use_is_said(mirror, tmp_path, monkeypatch, part):
    "A file in place of the folder, or settings that are empty."
    (home := tmp_path / "taken" / part).parent.mkdir(exist_ok=True)
    home.touch()
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "taken"))
    fastai.data.external.fastai_cfg.cache_clear()
    with pytest.raises(DataError, match=r"^fastai cannot use .*taken.config\.ini \(\w+Error: .*\)\. Delete that file, "
                                        "or set FASTAI_HOME to a folder that can be written, and run again"):
        mnist_path("full")
    assert mnist_path().name == "sample" and mirror.n_requests == 0


@pytest.mark.parametrize(("step", "error"), [
    ("unpack_archive", OSError(errno.ENOSPC, "No space left on device")),
    ("move", shutil.Error([("from", "to", "[Errno 28] No space left on device")])),  # to another file system
], ids=["unpacking", "moving"])
def test_a_full_disk_keeps_the_archive(mirror, monkeypatch, step, error):
    # BUG in _fetch and _full ("moving"): shutil.Error has no errno, so the archive goes and the connection is blamed
    with monkeypatch.context() as patch:
        patch.setattr(shutil, step, failing(error))
        with pytest.raises(DataError, match=f"No space left on device.*{DISK}"):
            mnist_path("full")
    assert mnist_path("full").is_dir() and mirror.n_requests == 1


def test_a_folder_that_was_half_unpacked_is_named(mirror, tmp_path):
    (tmp_path / "fastai" / "data" / "mnist_png" / "training" / "0").mkdir(parents=True)
    with pytest.raises(DataError, match="mnist_png is not the complete MNIST of 60,000.*Delete it and run again"):
        mnist_path("full")
    shutil.rmtree(tmp_path / "fastai" / "data" / "mnist_png")
    assert count_images(mnist_path("full")) == files.FULL_COUNTS != FULL_COUNTS


def test_what_is_there_needs_neither_a_network_nor_the_right_to_write(mirror, monkeypatch):
    # BUG in _full: it makes a folder and a lock beside the archive before it looks whether the images are there
    assert mnist_path("full") == mnist_path("full") and mirror.n_requests == 1
    monkeypatch.setattr(files, "FileLock", failing(PermissionError(errno.EACCES, "Permission denied", "lock")))
    assert mnist_path("full").name == "mnist_png"


DOWNLOAD = """
import fastai.data.external, fastdownload.core
url, size, md5 = sys.argv[1:]
fastai.data.external.URLs.MNIST = url
fastdownload.core.read_checks = lambda module: {url: (int(size), md5)}
files.FULL_COUNTS = {"training": 40, "testing": 20}
print(json.dumps(len(data.load_mnist("full", device="cpu").test)))
"""


def test_two_processes_download_once(mirror):
    arguments = mirror.url, *fastdownload.core.read_checks(None)[mirror.url]
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(lambda _: run_program(DOWNLOAD, *arguments), range(2))] == [20, 20]
    assert mirror.n_requests == 1


# Hostile archives


def member(outside: Path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name.format(outside=outside))
    info.type, info.linkname, info.size = kind, target.format(outside=outside), 4 if kind == tarfile.REGTYPE else 0
    return info


fenced = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.10.12 and 3.11.4 has none")
HOSTILE = {
    "upwards": [("../../evil",)], "absolute": [("{outside}/evil",)], "device": [("mnist_png/evil", tarfile.FIFOTYPE)],
    "upwards from inside": [("mnist_png/../../../evil",)],
    "through a link": [("mnist_png/link", tarfile.SYMTYPE, "{outside}"), ("mnist_png/link/evil",)],
    "through a relative link": [("mnist_png/link", tarfile.SYMTYPE, "../../.."), ("mnist_png/link/evil",)],
    "hard link": [("mnist_png/evil", tarfile.LNKTYPE, "{outside}/secret")],
    "link as a picture": [("mnist_png/training/0/evil.png", tarfile.SYMTYPE, "{outside}/secret")],
}


@fenced
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_cannot_write_outside_its_folder(mirror, small_folder, tmp_path, monkeypatch, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    mirror.archive = packed(small_folder, *(member(tmp_path / "outside", *one) for one in HOSTILE[kind]))
    monkeypatch.setattr(fastdownload.core, "read_checks", lambda module: {})  # as if fastai's own check were fooled
    with pytest.raises(DataError, match="could not be downloaded"):
        mnist_path("full")
    evil = [path for path in tmp_path.rglob("*evil*") if not path.is_relative_to(tmp_path / "fastai")]
    assert evil == [] and not (tmp_path / "fastai" / "data" / "mnist_png" / "training").exists()
    assert (tmp_path / "outside" / "secret").read_text() == "secret"


@fenced
@pytest.mark.parametrize("error", [ValueError("no archive"), OSError(errno.EIO, "bad disk")], ids=str)
def test_the_fence_is_taken_down_again(mirror, monkeypatch, error):
    def untar(url):
        seen.append(tarfile.TarFile.extraction_filter)
        raise error

    before, seen = vars(tarfile.TarFile).get("extraction_filter"), []
    monkeypatch.setattr(fastai.data.external, "untar_data", untar)
    with pytest.raises(DataError):
        mnist_path("full")
    assert seen == [tarfile.data_filter] and vars(tarfile.TarFile).get("extraction_filter") is before
