"""The real download against a server on this machine: downloads that fail, archives that are damaged or hostile."""
import hashlib
import io
import random
import re
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastai.data.external
import fastdownload.core
import pytest
from conftest import run_program

from mnist_scratch import files
from mnist_scratch.files import DataError, count_images, mnist_path
from mnist_scratch.ledger import ledger

FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE

class Answer(BaseHTTPRequestHandler):
    "What `server.reply(archive)` says: status, announced length, content; a status of dots is followed by silence."
    def log_message(self, *args): pass
    def do_GET(self):
        self.server.n_requests += 1
        status, length, content = self.server.reply(self.server.archive)
        self.wfile.write(f"HTTP/1.0 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + content)
        if status.endswith("..."):
            self.server.released.wait(60)

def packed(folder, *extra) -> bytes:
    "`folder` as fastai packs MNIST, and members (name, type, target of the link)."
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, "mnist_png")
        for name, kind, target in extra:
            (member := tarfile.TarInfo(name)).type, member.linkname, member.size = kind, target, 4*(kind == FILE)
            archive.addfile(member, io.BytesIO(b"evil"))
    return file.getvalue()

@pytest.fixture
def mirror(small_folder, tmp_path, sample_folder, monkeypatch):
    "What fastai downloads MNIST from, with its checks; a small MNIST, complete with 40 + 20 images."
    (small_folder / "noise").write_bytes(random.Random(0).randbytes(3 << 19))  # fastai checks a megabyte
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.n_requests, server.released, server.archive = 0, threading.Event(), packed(small_folder)
    server.reply = lambda archive: ("200 OK", len(archive), archive)
    server.url = f"http://127.0.0.1:{server.server_port}/mnist_png.tgz"
    server.check = len(server.archive), hashlib.md5(server.archive[: 1 << 20]).hexdigest()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for owner, name, value in (
            (fastdownload.core, "read_checks", lambda module: {server.url: server.check}),
            (fastai.data.external.URLs, "MNIST", server.url),
            (files, "FULL_COUNTS", {"training": 40, "testing": 20})):
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai")), monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MNIST_SCRATCH_CACHE", str(sample_folder.parent))
    fastai.data.external.fastai_cfg.cache_clear()
    yield server
    fastai.data.external.fastai_cfg.cache_clear()
    server.released.set(), server.shutdown(), server.server_close()

@pytest.mark.parametrize(("reply", "reason"), [
    (lambda archive: ("200 OK", len(archive), archive[:9999]), "ContentTooShortError"),
    (lambda archive: ("200 OK", 9999, archive[:9999]), "what came is damaged"),  # by a proxy that announces it
    (lambda archive: ("200 OK", len(archive), archive[:-1000] + bytes(1000)), "does not hold 60,000"),
    (lambda archive: ("404 Not Found", 3997, b"<html>\n"*571), "404: Not Found"),
    (lambda archive: ("407 Who are you?", 0, b""), "407: Who are"),
    (lambda archive: ("200 ...", len(archive), archive[:9999]), "timed out")])
def test_a_failed_download_is_said_and_the_next_run_works(mirror, reply, reason, tmp_path, capsys, monkeypatch):
    limits, original, right = [], fastdownload.core.download_url, mirror.reply
    monkeypatch.setattr(fastdownload.core, "download_url", lambda url, dest, timeout: (
        limits.append(timeout), original(url, dest, timeout=min(timeout, 1))))
    mirror.reply, folder = reply, tmp_path / "fastai" / "data" / "mnist_png"
    said = rf"downloaded from {mirror.url} .*{reason}.*HTTPS_PROXY.* run again.*MNIST_SCRATCH_DATA=sample"
    with pytest.raises(DataError, match=said) as raised:
        mnist_path("full")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 700 and not folder.exists()
    assert mnist_path("auto").name == "sample" and limits == [30, 30]
    assert re.search(f"4,000 training .* sample, because: .*{said}", capsys.readouterr().out.splitlines()[-1])
    mirror.reply = right
    assert mnist_path("auto") == mnist_path() == mnist_path("full") == folder and mirror.n_requests == 3
    assert re.search("40 training and 20 testing .*mnist_png .*MNIST_SCRATCH_DATA=sample", capsys.readouterr().out)

@pytest.mark.parametrize(("content", "n_requests"), [(None, 0), (b"of yesterday", 1)])
def test_an_archive_that_is_there_is_taken_if_it_is_the_right_one(mirror, tmp_path, content, n_requests, monkeypatch):
    (archive := tmp_path / "fastai" / "archive" / "mnist_png.tgz").parent.mkdir(parents=True)
    archive.write_bytes(content or mirror.archive)
    assert count_images(folder := mnist_path("full")) == files.FULL_COUNTS and mirror.n_requests == n_requests
    monkeypatch.setattr(files, "FileLock", lambda file: 1 / 0)  # what is there needs no right to write
    assert mnist_path("full") == folder and mirror.n_requests == n_requests
    (folder / "training" / "0" / "000.png").unlink()
    with pytest.raises(DataError, match="mnist_png is not the complete MNIST.*Delete it"):
        mnist_path("full")

def test_a_place_that_fastai_cannot_use_is_said(mirror, tmp_path, monkeypatch):
    (tmp_path / "taken").touch(), monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "taken"))
    with pytest.raises(DataError, match=r"fastai cannot use .*taken.config\.ini \(\w+Error: .*FASTAI_HOME"):
        mnist_path("full")
    assert mnist_path().name == "sample" and mirror.n_requests == 0

@pytest.mark.parametrize("error", [OSError(28, "No space left"), shutil.Error([("from", "to", "No space left")]),
                                   KeyboardInterrupt()], ids=repr)
def test_an_end_while_unpacking_leaves_nothing_half_unpacked(mirror, monkeypatch, tmp_path, error):
    def unpack(archive, target, **options):
        (target / "mnist_png" / "training").mkdir(parents=True)
        assert not folder.exists()  # also where the process is killed, and cannot clean up
        raise error
    folder = tmp_path / "fastai" / "data" / "mnist_png"
    with monkeypatch.context() as patch, pytest.raises((DataError, KeyboardInterrupt), match="No space.*space|^$"):
        patch.setattr(tarfile.TarFile, "extractall", unpack)
        mnist_path("full")
    assert [*folder.parent.iterdir()] == []
    assert count_images(mnist_path("full")) == files.FULL_COUNTS and mirror.n_requests <= 2

LOAD = """
import fastai.data.external, fastdownload.core
from mnist_scratch import ledger, training
url, size, md5, name = sys.argv[1:]
fastai.data.external.URLs.MNIST = url
fastdownload.core.read_checks = lambda module: {url: (int(size), md5)}
files.FULL_COUNTS = {"training": 40, "testing": 20}
counts = [len(data.load_mnist(source, "cpu").test) for source in ("full", "sample")]
guesses = training.Evaluation(torch.arange(9), torch.zeros(9, dtype=torch.int64), torch.full((9,), 0.1))
for index in range(40): ledger.record(f"{name} {index}", torch.nn.Linear(2, 2), guesses, 1.0, "full")
print(json.dumps(counts))
"""

def test_two_processes_at_once_lose_nothing(mirror, own_folders):
    "One download, two caches, a sample of which some files were lost, and one table of results."
    ((cache := own_folders / "cache") / "sample" / "training" / "0").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        run = partial(run_program, LOAD, mirror.url, *mirror.check, MNIST_SCRATCH_CACHE=cache)
        assert [*pool.map(run, "ab")] == [[20, 1000]]*2 and mirror.n_requests == 1
    left = [path.suffix for path in cache.iterdir() if path.suffix != ".lock"]
    assert len(left) == 3 and ".unfinished" not in left
    assert set(ledger()["model"]) == {f"{name} {index}" for name in "ab" for index in range(40)}

@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.10.12 and 3.11.4 has none")
@pytest.mark.parametrize("extra", [
    [("../../evil", FILE, "")], [("mnist_png/evil", tarfile.FIFOTYPE, "")],
    [("mnist_png/evil", tarfile.LNKTYPE, "{}/secret")], [("mnist_png/training/0/evil.png", LINK, "{}/secret")],
    [("mnist_png/link", LINK, "../../.."), ("mnist_png/link/evil", FILE, "")]], ids=repr)
def test_an_archive_cannot_write_outside_its_folder(mirror, small_folder, tmp_path, monkeypatch, extra):
    (secret := tmp_path / "outside" / "secret").parent.mkdir()
    secret.write_text("secret")
    mirror.archive = packed(small_folder, *(
        (name.format(secret.parent), kind, target.format(secret.parent)) for name, kind, target in extra))
    monkeypatch.setattr(fastdownload.core, "read_checks", lambda module: {})  # as if fastai's own check were fooled
    with pytest.raises(DataError, match="could not be downloaded"):
        mnist_path("full")
    evil = [path for path in tmp_path.rglob("*evil*") if not path.is_relative_to(tmp_path / "fastai")]
    assert evil == [] and not (tmp_path / "fastai" / "data" / "mnist_png").exists() and secret.read_text() == "secret"
