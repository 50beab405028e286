"""Faults from outside: the disk is full, the process is killed, rights are missing, the cache lies. Each through the
real code and, where the system can play the fault, with real limits, signals and rights."""
import os
import pickle
import random
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NOTEBOOKS, ROOT, read_notebook, run_program

from mnist_scratch import files
from mnist_scratch.data import load_mnist
from mnist_scratch.files import cache_home

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and limits of POSIX")
FULL_DISK = """
import contextlib, io, resource
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def finished(): return sorted(name.split(".")[-1] for name in os.listdir(files.cache_home()) if not name.endswith("k"))
def load():
    with contextlib.redirect_stdout(io.StringIO()) as printed: count = len(data.load_mnist("sample", "cpu").train)
    return [count, finished(), [line for line in printed.getvalue().splitlines() if "Not cached" in line]]
limit(100)  # the longest file in bytes: less than a picture of noise needs
seen = {"sample": message(files.mnist_path, "sample"), "left of it": finished()}
for size in (100_000, 3_000_000, 3_970_000, resource.RLIM_INFINITY): limit(size); seen[f"{size:,}"] = load()
print(json.dumps(seen))
"""


@posix
def test_a_full_disk_is_said_and_leaves_nothing_behind_but_unfinished_files():
    "Pictures fit at last, then the first array of the cache, then all but the end of its directory, then everything."
    seen = run_program(FULL_DISK)
    said = "The sample cannot be written to .*sample.*File too large.*Free some space, or set MNIST_SCRATCH_CACHE"
    assert re.search(said, seen["sample"]) and seen["left of it"] == ["unfinished"]
    for size in ("100,000", "3,000,000"):
        count, left, (line,) = seen[size]
        assert count == 3000 and left == ["sample", "unfinished"]
        assert re.search("Not cached, so the next load.*cannot be written .*File too large", line)
    assert seen["-1"] == seen["3,970,000"] == [3000, ["npz", "sample"], []]


KILLED = """
import shutil
home, savez = files.cache_home(), np.savez
files.DIGITS = data.DIGITS = ("0", "1")  # two digits are enough, and quicker
files.SAMPLE_COUNTS = {"training": 800, "testing": 200}

def killed(work, event, count):
    "Run `work` in a fork that kills itself at the `count`-th `event` on a file of ours; True if it came to that."
    def watch(name, arguments):
        nonlocal count
        if name == event and (str(home) in str(arguments) or name == "os.remove"):  # rmtree has relative names
            if (count := count - 1) == 0: os.kill(os.getpid(), signal.SIGKILL)
    if (child := os.fork()) == 0:
        sys.addaudithook(watch)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
def half_a_file(file, **arrays):
    savez(file, **arrays)
    file.truncate(file.tell()//2)
    sys.audit("half a file", str(home))
def sample(): return files.mnist_path("sample")
def load(): return files.cached(sample(), lambda folder: {"images": torch.arange(100_000)})["images"]
def left_over(): return [name for name in os.listdir(home) if name.split(".")[-1] not in ("lock", "npz", "sample")]

results = {}
for moment in sys.argv[1:]:
    work, event, count = moment.split(", ")
    if work == "sample":
        shutil.rmtree(home, ignore_errors=True)
        (home/"sample/training/0").mkdir(parents=True)  # so that there is something to replace
        (home/"sample/training/0/000.png").touch()
    else:
        load()
        for file in home.glob("*.npz"): file.rename(file.with_stem(file.stem[:17] + "0"*32))  # of other pictures
    np.savez = half_a_file if event == "half a file" else savez
    died, np.savez = killed(globals()[work], event, int(count)), savez
    found = len([*(home/"sample").rglob("*.png")] if work == "sample" else [*home.glob("*.npz")])
    results[moment] = [died, left_over(), found if (home/"sample").exists() else "absent"]
    right = files.count_images(sample()) == files.SAMPLE_COUNTS and load().equal(torch.arange(100_000))
    results[moment] += [right and left_over() == []]
print(json.dumps(results))
"""
MOMENTS = {  # how many pictures or caches are there then
    "sample, os.mkdir, 4": 1, "sample, open, 2": 1, "sample, open, 501": 1, "sample, shutil.rmtree, 2": 1,
    "sample, os.remove, 1": 1, "sample, os.rename, 1": "absent",
    "load, open, 4": 1, "load, half a file, 1": 1, "load, os.rename, 1": 1, "load, os.remove, 1": 2}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return run_program(KILLED, *MOMENTS, MNIST_SCRATCH_CACHE=tmp_path_factory.mktemp("killed") / "cache")


@posix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_nothing_half_written_under_a_final_name(killed, moment):
    died, left_over, found, next_run_is_right = killed[moment]
    assert died, "the moment was never reached"
    assert found == MOMENTS[moment] and next_run_is_right
    assert all(name.endswith(".unfinished") for name in left_over) and any(left for _, left, *_ in killed.values())


def test_two_processes_at_once_and_a_sample_that_lost_files():
    "Both load all images, and nothing else is left: sample and cache."
    (cache_home() / "sample" / "training" / "0").mkdir(parents=True)
    load = 'print(json.dumps(len(data.load_mnist("sample", device="cpu").test)))'
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(run_program, [load, load])] == [1000, 1000]
    assert sorted(path.suffix for path in cache_home().iterdir() if path.suffix != ".lock") == ["", ".npz"]


LOCKED = {"folder": "", "split": "training", "digit": "training/6", "picture": "training/6/000.png"}
WITHOUT_RIGHTS = """
import contextlib, io
base, user = Path(sys.argv[1]), int(sys.argv[2])
if os.geteuid() == 0: os.setgroups([]), os.setgid(user), os.setuid(user)  # the superuser may do everything
if user == 12345: os.environ.pop("HOME", None)
with contextlib.redirect_stdout(io.StringIO()) as printed: counts = [
    len(data.load_mnist(source, "cpu").test) for source in ("sample", "sample", base/"good")]
lines = [line for line in printed.getvalue().splitlines() if line[-1:] in (".", ")")]  # and no progress bar
locked = {name: message(data.load_mnist, base/name, "cpu") for name in sys.argv[3:]}
print()
print(json.dumps([counts, lines, locked, str(files.cache_home()), os.listdir()]))
"""


@pytest.fixture
def open_folder(small_folder):
    "A folder that everybody may enter, which pytest's own are not, and data folders in it that nobody may read."
    folder = Path(tempfile.mkdtemp())
    for name in (*LOCKED, "good"):
        shutil.copytree(small_folder, folder / name)
    modes = {"": 0o755, "cache": 0o555, "anyone": 0o777, **{f"{name}/{part}": 0 for name, part in LOCKED.items()}}
    for name, mode in modes.items():
        (folder / name).is_file() or (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    yield folder
    for name, part in LOCKED.items():
        (folder / name / part).chmod(0o700)
    shutil.rmtree(folder)


@posix
def test_what_may_not_be_read_or_written_is_named(open_folder):
    counts, (line, sample, again, good), locked, home, _ = run_program(
        WITHOUT_RIGHTS, open_folder, 65534, *LOCKED, MNIST_SCRATCH_CACHE=open_folder / "cache",
        TMPDIR=open_folder / "anyone")
    for name, part in (("folder", "/training/0"), ("split", "/0"), ("digit", ""), ("picture", "")):
        named = f"{open_folder / name / LOCKED[name]}{part}"
        assert locked[name].startswith(f"{named} cannot be read (Permission denied). Make it readable for yourself")
    assert counts == [1000, 1000, 20] and home.startswith(str(open_folder / "anyone"))
    assert line == (f"{open_folder / 'cache'} cannot be written (Permission denied), so nothing is kept for the next "
                    "run. Free some space, or set MNIST_SCRATCH_CACHE to a folder that can be written.")
    assert sample == again and sample.startswith("4,000 training and 1,000 testing images in ")
    assert [*(open_folder / "anyone").iterdir()] == []  # it goes with the process


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="only the superuser can become another user")
@pytest.mark.parametrize("cache", ["", "own"])
def test_no_home_folder_at_all(open_folder, cache):
    "As in a container that runs under any number: no HOME, no entry among the users."
    # BUG in cache_home: expanduser leaves "~" as it is, so a folder of this name is made in the working directory
    anyone = open_folder / "anyone"
    counts, _, _, home, here = run_program(WITHOUT_RIGHTS, open_folder, 12345, cwd=anyone, XDG_CACHE_HOME="",
                                           TMPDIR=anyone, MNIST_SCRATCH_CACHE=cache and anyone / cache)
    assert counts == [1000, 1000, 20] and (not cache or home == str(anyone / cache)) and "~" not in here


def test_a_file_in_place_of_the_cache_folder(small_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("MNIST_SCRATCH_CACHE", str(tmp_path / "taken"))
    assert len(load_mnist(small_folder).test) == len(load_mnist(small_folder).test) == 20
    assert capsys.readouterr().out.count("taken cannot be written (File exists), so nothing is kept") == 1
    assert (tmp_path / "taken").is_file() and [*cache_home().glob("*.npz")]


# The cache lies


@pytest.fixture
def cache_file(small_folder):
    load_mnist(small_folder)
    (file,) = cache_home().glob("*.npz")
    return file


def test_a_cache_damaged_anywhere_is_noticed(cache_file):
    "Each byte of its directory, 500 of the heads and 300 of the numbers: noticed, or harmless."
    content, chance, right, seen = cache_file.read_bytes(), random.Random(0), files._read(cache_file), []
    heads = [match.start() for match in re.finditer(b"PK\x03\x04", content)]
    positions = [*range(content.index(b"PK\x01\x02"), len(content)), *chance.choices(range(len(content)), k=300),
                 *(chance.choice(heads) + chance.randrange(200) for _ in range(500))]
    assert right.keys() == {"training", "training_labels", "testing", "testing_labels"} and len(heads) == 4
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= chance.randrange(1, 256)
        cache_file.write_bytes(damaged)
        read = files._read(cache_file)
        seen.append("noticed" if read is None else "harmless" if read.keys() == right.keys() and all(
            read[name].dtype == right[name].dtype and read[name].equal(right[name]) for name in right) else position)
    # BUG in _read: a changed length in the directory hides the arrays that follow, and load_mnist raises KeyError
    assert set(seen) == {"noticed", "harmless"} and seen.count("noticed") > 700


def test_what_is_loaded_does_not_change_with_the_cache_which_is_built_anew(cache_file, small_folder):
    loaded, content = load_mnist(small_folder, "cpu"), cache_file.read_bytes()
    piles = [tensor for pile in (loaded.train, loaded.valid, loaded.test) for tensor in (pile.images, pile.labels)]
    before = [tensor.clone() for tensor in piles]
    with open(cache_file, "r+b") as file:  # in place, so that a view of the file sees it
        file.write(bytes(byte ^ 0xFF for byte in content))
    assert all(tensor.equal(copy) for tensor, copy in zip(piles, before, strict=True))
    assert load_mnist(small_folder, "cpu").test.images.equal(before[4]) and files._read(cache_file)
    cache_file.write_bytes(content[:1000])
    assert load_mnist(small_folder, "cpu").train.images.equal(before[0]) and files._read(cache_file)


def objects(trap, file):
    np.savez(file, training=np.array([trap], dtype=object))


@pytest.mark.parametrize("write", [pickle.dump, torch.save, objects])
def test_a_pickle_in_place_of_the_cache_is_not_executed(cache_file, small_folder, tmp_path, write):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    with open(cache_file, "wb") as file:
        write(Trap(), file)
    assert len(load_mnist(small_folder).test) == 20
    assert not (tmp_path / "sprung").exists()


# What is nowhere in the source

SOURCES = {path: path.read_text(encoding="utf-8") for folder in ("mnist_scratch", "scripts")
           for path in (ROOT / folder).glob("*.py")}
SOURCES |= {path: "\n".join("".join(cell["source"]) for cell in read_notebook(path)["cells"]
                            if cell["cell_type"] == "code") for path in NOTEBOOKS}
NOWHERE = {  # a pattern, and what it must find; np.load reads no pickle unless it is told to
    r"\b(pickle|joblib|dill|shelve|allow_pickle|load_learner|weights_only)\b|\btorch\.load\b": "torch.load(path)",
    r"os\.(system|popen)\b|shell\s*=\s*True|getoutput|^\s*[!%]": "subprocess.run(command, shell=True)",
    r"(?<![\w.])(eval|exec)\(|__import__": "answer = eval(text)",
    r"(?i)(password|secret|api_?key|token)\s*[=:]\s*['\"]\w|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|PRIVATE KEY":
        "password = 'hunter2'",
}


@pytest.mark.parametrize("pattern", NOWHERE, ids=["pickles", "shell strings", "text as code", "secrets"])
def test_nowhere(pattern):
    assert re.search(pattern, NOWHERE[pattern], re.M), "a pattern that finds nothing proves nothing"
    found = {str(path): match[0] for path, text in SOURCES.items() if (match := re.search(pattern, text, re.M))}
    assert found == {} and len(SOURCES) > 20
