"""The real `untar_data` against a server on this machine: downloads that fail, archives that are damaged or hostile."""
import hashlib
import io
import os
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


class Mirror(ThreadingHTTPServer):
    "A server on this machine that answers every request with `reply(archive)`: status, announced length, content."

    def __init__(self, archive: bytes):
        self.archive, self.reply, self.n_requests = archive, whole, 0
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist_png.tgz"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.n_requests += 1
        status, length, content = self.server.reply(self.server.archive)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def whole(archive):
    return 200, len(archive), archive


def broken_off(archive):
    return 200, len(archive), archive[: len(archive) // 2]


def cut_by_a_proxy(archive):
    "All that was announced comes."
    return 200, len(archive) // 2, archive[: len(archive) // 2]


def other_bytes(archive):
    return 200, len(archive), archive[::-1]


def damaged_behind_the_first_megabyte(archive):
    "Where fastai's check does not look."
    return 200, len(archive), archive[:-1000] + bytes(1000)


def not_there(archive):
    page = b"<html>\n<h1>Not here</h1>\n</html>" * 100
    return 404, len(page), page


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
    server = Mirror(packed(small_folder))
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
    server.shutdown()
    server.server_close()


FAULTS = {
    broken_off: "ContentTooShortError",
    cut_by_a_proxy: "Downloaded file is corrupt",
    other_bytes: "Downloaded file is corrupt",
    damaged_behind_the_first_megabyte: "the archive does not hold 60,000",
    not_there: "404: Not Found",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_failed_download_is_said_and_the_next_run_works(mirror, fault, tmp_path, capsys):
    mirror.reply = fault
    said = f"could not be downloaded from {mirror.url} .*{FAULTS[fault]}"
    cure = r"\)\. Connect to the internet and run again, or set MNIST_SCRATCH_DATA=sample"
    with pytest.raises(DataError, match=f"{said}.*{cure}") as raised:
        mnist_path("full")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 700
    assert not (tmp_path / "fastai" / "data" / "mnist_png").exists()
    assert mnist_path("auto").name == "sample"
    line = capsys.readouterr().out.splitlines()[-1]
    assert "4,000 training" in line and re.search(f"the embedded sample, because: .*{FAULTS[fault]}", line)
    mirror.reply = whole
    assert mnist_path("auto") == tmp_path / "fastai" / "data" / "mnist_png"
    assert "40 training and 20 testing images" in capsys.readouterr().out
    assert mnist_path("full").is_dir() and mirror.n_requests == 3


def test_a_server_that_is_gone_is_said(mirror):
    mirror.shutdown()
    mirror.server_close()
    with pytest.raises(DataError, match="refused.*Connect to the internet"):
        mnist_path("full")


def test_a_place_that_fastai_cannot_write_is_said(mirror, tmp_path, monkeypatch):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "taken"))
    fastai.data.external.fastai_cfg.cache_clear()
    with pytest.raises(DataError, match="taken.*Free some space or set FASTAI_HOME to a folder that can be written"):
        mnist_path("full")


def test_a_full_disk_while_unpacking_keeps_the_archive(mirror, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "unpack_archive", full)
        with pytest.raises(DataError, match="No space left on device.*Free some space"):
            mnist_path("full")
    assert mnist_path("full").is_dir() and mirror.n_requests == 1


def test_a_folder_that_was_half_unpacked_is_named(mirror, tmp_path):
    half = tmp_path / "fastai" / "data" / "mnist_png" / "training" / "0"
    half.mkdir(parents=True)
    with pytest.raises(DataError, match="mnist_png is not the complete MNIST.*Delete it and run again"):
        mnist_path("full")
    shutil.rmtree(tmp_path / "fastai" / "data" / "mnist_png")
    assert count_images(mnist_path("full")) == files.FULL_COUNTS != FULL_COUNTS


DOWNLOAD = """
import fastai.data.external, fastdownload.core
url, size, md5 = sys.argv[1:]
fastai.data.external.URLs.MNIST = url
fastdownload.core.read_checks = lambda module: {url: (int(size), md5)}
files.FULL_COUNTS = {"training": 40, "testing": 20}
print(json.dumps(len(data.load_mnist("full", device="cpu").test)))
"""


@pytest.mark.skipif(os.name == "nt", reason="fastdownload has no lock on Windows")
def test_two_processes_download_once(mirror):
    arguments = mirror.url, *fastdownload.core.read_checks(None)[mirror.url]
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(lambda _: run_program(DOWNLOAD, *arguments), range(2))] == [20, 20]
    assert mirror.n_requests == 1


# Hostile archives


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
    return info


HOSTILE = {
    "upwards": lambda outside: [member("../../evil")],
    "upwards from inside": lambda outside: [member("mnist_png/../../../evil")],
    "absolute": lambda outside: [member(f"{outside}/evil")],
    "through a link": lambda outside: [member("mnist_png/link", tarfile.SYMTYPE, str(outside)),
                                       member("mnist_png/link/evil")],
    "through a relative link": lambda outside: [member("mnist_png/link", tarfile.SYMTYPE, "../../.."),
                                                member("mnist_png/link/evil")],
    "hard link": lambda outside: [member("mnist_png/evil", tarfile.LNKTYPE, f"{outside}/secret")],
    "link as a picture": lambda outside: [member("mnist_png/training/0/evil.png", tarfile.SYMTYPE,
                                                 f"{outside}/secret")],
    "device": lambda outside: [member("mnist_png/evil", tarfile.FIFOTYPE)],
}


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.10.12 and 3.11.4 has no filter")
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_cannot_write_outside_its_folder(mirror, small_folder, tmp_path, monkeypatch, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    mirror.archive = packed(small_folder, *HOSTILE[kind](tmp_path / "outside"))
    monkeypatch.setattr(fastdownload.core, "read_checks", lambda module: {})  # as if fastai's own check were fooled
    with pytest.raises(DataError):
        mnist_path("full")
    evil = [path for path in tmp_path.rglob("*evil*") if not path.is_relative_to(tmp_path / "fastai")]
    assert evil == [] and not (tmp_path / "fastai" / "data" / "mnist_png" / "training").exists()
    assert (tmp_path / "outside" / "secret").read_text() == "secret"


@pytest.mark.parametrize("error", [None, OSError])
def test_the_fence_is_taken_down_again(monkeypatch, error):
    def untar(url):
        assert tarfile.TarFile.extraction_filter is getattr(tarfile, "data_filter", None)
        raise error or ValueError

    before = vars(tarfile.TarFile).get("extraction_filter")
    monkeypatch.setattr(fastai.data.external, "untar_data", untar)
    with pytest.raises(DataError):
        mnist_path("full")
    assert vars(tarfile.TarFile).get("extraction_filter") is before
