"""Faults from outside: the disk is full, the process is killed, rights are missing, the cache lies. Each through the
real code and, where the system can play the fault, with real limits, signals and rights."""
import os
import pickle
import random
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import run_program

from mnist_scratch.files import cache_home, cached

IN_FORKS = """
import resource, shutil
home = files.cache_home()
files.DIGITS, files.SAMPLE_COUNTS = ("0", "1"), {"training": 800, "testing": 200}  # two digits are enough, and quicker
def in_fork(work, event, count):
    "Whether a fork is killed by its `count`-th `event` or write of `count` bytes, and what it says on a full disk."
    def watch(name, arguments):
        nonlocal count
        count -= name == event and str(home) in str(arguments)
        if name == event and count == 0: os.kill(os.getpid(), signal.SIGKILL)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        sys.stdout = os.fdopen(writing, "w")
        if event == "write": signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
        if event in ("write", "full"): resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
        sys.addaudithook(watch)
        try: print(work())
        except files.DataError as error: print(error)
        sys.stdout.close(), os._exit(0)
    os.close(writing)
    return [os.fdopen(reading).read(), os.WIFSIGNALED(os.waitpid(child, 0)[1])]
def sample(): return files.mnist_path("sample")
def load():
    found = files.cached(sample(), lambda folder: {"images": torch.arange(100_000)})["images"]
    return found.equal(torch.arange(100_000)) and files.count_images(home/"sample") == files.SAMPLE_COUNTS
results = {}
for moment in sys.argv[1:]:
    work, event, count = moment.split(", ")
    shutil.rmtree(home, ignore_errors=True)
    (home/"sample/training/0").mkdir(parents=True)
    (home/"sample/training/0/000.png").touch()  # so that there is something to replace
    if work == "load": load(), os.utime(home/"sample/training/0/000.png", (1, 1))
    results[moment] = in_fork(globals()[work], event, int(count))
    left = [path.suffix for path in home.iterdir() if path.suffix not in (".lock", "")]
    results[moment] += [".unfinished" in left, len(left) - left.count(".unfinished")]
    results[moment] += [len([*home.glob("sample/*/*/*.png")]), load() and not [*home.glob("*.unfinished")]]
print(json.dumps(results))
"""
MOMENTS = {  # what is said; is something unfinished left, how many caches, how many pictures
    "sample, full, 100": ["sample cannot be written .*File too large.*MNIST_SCRATCH_CACHE", True, 0, 1],
    "load, full, 400000": ["Not cached.*cannot be written .*File too large(.|\n)*True\n$", True, 1, 1000],
    "sample, write, 100": [None, True, 0, 1], "sample, open, 501": [None, True, 0, 1],
    "sample, os.rename, 1": [None, True, 0, 0], "load, write, 400000": [None, True, 1, 1000],
    "load, os.rename, 1": [None, True, 1, 1000]}

@pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and limits of POSIX")
def test_a_full_disk_and_a_killed_process_leave_nothing_half_written_under_a_final_name(tmp_path):
    seen = run_program(IN_FORKS, *MOMENTS, MNIST_SCRATCH_CACHE=tmp_path / "cache")
    for moment, (said, *left) in MOMENTS.items():
        assert seen[moment][1:] == [said is None, *left, True] and re.search(said or "^$", seen[moment][0]), moment

LOCKED = {"folder": "", "split": "training", "digit": "training/6", "picture": "training/6/000.png"}
WITHOUT_RIGHTS = """
import contextlib, io
base, user = Path(sys.argv[1]), int(sys.argv[2])
os.setgroups([]), os.setgid(user), os.setuid(user)
if user == 12345: os.environ.pop("HOME", None)
with contextlib.redirect_stdout(io.StringIO()) as printed: counts = [
    len(data.load_mnist(source, "cpu").test) for source in ("sample", "sample", base/"good")]
said, locked = [line for line in printed.getvalue().splitlines() if "cannot be written" in line], {}
for name in sys.argv[3:]:
    try: data.load_mnist(base/name, "cpu")
    except files.DataError as error: locked[name] = str(error)
print()
print(json.dumps([counts, said, locked, str(files.cache_home()), os.listdir()]))
"""

@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only the superuser can become another user")
@pytest.mark.parametrize(("user", "cache"), [(65534, "cache"), (12345, "")])
def test_what_may_not_be_read_or_written_is_named(small_folder, user, cache):
    "A cache that may not be written; no home folder, as in a container that runs under any number."
    folder = Path(tempfile.mkdtemp())  # which everybody may enter, and pytest's own not
    for name in (*LOCKED, "good"):
        shutil.copytree(small_folder, folder / name)
    modes = {"": 0o755, "cache": 0o555, "anyone": 0o777, **{f"{name}/{part}": 0 for name, part in LOCKED.items()}}
    for name, mode in modes.items():
        (folder / name).is_file() or (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    counts, (said,), locked, home, here = run_program(
        WITHOUT_RIGHTS, folder, user, *LOCKED, cwd=folder / "anyone", TMPDIR=folder / "anyone",
        XDG_CACHE_HOME="", MNIST_SCRATCH_CACHE=cache and folder / cache)
    assert [*(folder / "anyone").iterdir()] == []  # the temporary cache goes with the process
    shutil.rmtree(folder)
    for name, part in LOCKED.items():
        assert re.match(rf"{folder / name / part}.* cannot be read \(Permission denied\)", locked[name])
    assert counts == [1000, 1000, 20] and "nothing is kept" in said and "set MNIST_SCRATCH_CACHE" in said
    assert Path(home).parent == folder / "anyone" and here == [Path(home).name]

TENSORS = {"images": torch.arange(600, dtype=torch.uint8).view(-1, 2), "labels": torch.arange(30)}

def stored() -> Path: return [path for path in cache_home().iterdir() if path.suffix != ".lock"][0]

def test_a_cache_damaged_anywhere_is_noticed(small_folder):
    cached(small_folder, lambda folder: TENSORS)
    built, chance, damages, content = [], random.Random(0), [], stored().read_bytes()
    for position in chance.sample(range(len(content)), 300):
        changed = bytes([content[position] ^ chance.randrange(1, 256)])
        damages += [content[:position] + changed + content[position + 1:], content[:position]]
    for damaged in [*damages, content]:
        stored().write_bytes(damaged)
        tensors = cached(small_folder, lambda folder: built.append(folder) or TENSORS)
        assert tensors.keys() == TENSORS.keys()
        assert all(tensors[name].dtype == one.dtype and tensors[name].equal(one) for name, one in TENSORS.items())
    assert 0.9*len(damages) < len(built) <= len(damages)

class Trap:
    "What a pickle brings to life."
    def __reduce__(self): return Path("sprung").touch, ()

def test_a_pickle_in_place_of_the_cache_is_not_executed(small_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached(small_folder, lambda folder: TENSORS)
    for write in (pickle.dump, torch.save):
        with open(stored(), "wb") as file:
            write(Trap(), file)
        assert cached(small_folder, lambda folder: TENSORS) is TENSORS
    assert not Path("sprung").exists()
