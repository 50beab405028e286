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

# The disk is full

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


# The process is killed

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
            count -= 1
            if count == 0: os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
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
def state():
    folder = home/"sample"
    if not folder.exists(): return "absent"
    return {1000: "complete", 1: "as before", 0: "emptied"}.get(len([*folder.rglob("*.png")]), "half")
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
    result = {"killed": killed(globals()[work], event, int(count)), "left over": left_over()}
    np.savez = savez
    result["found"] = state() if work == "sample" else ["absent", "as before", "complete"][len([*home.glob("*.npz")])]
    right = files.count_images(sample()) == files.SAMPLE_COUNTS if work == "sample" else load().equal(torch.arange(100_000))
    results[moment] = {**result, "next run": right and left_over() == []}
print(json.dumps(results))
"""
MOMENTS = {
    "sample, os.mkdir, 4": "as before", "sample, open, 2": "as before", "sample, open, 501": "as before",
    "sample, shutil.rmtree, 2": "as before", "sample, os.remove, 1": "as before", "sample, os.rename, 1": "absent",
    "load, open, 4": "as before", "load, half a file, 1": "as before", "load, os.rename, 1": "as before",
    "load, os.remove, 1": "complete"}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return run_program(KILLED, *MOMENTS, MNIST_SCRATCH_CACHE=tmp_path_factory.mktemp("killed") / "cache")


@posix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_nothing_half_written_under_a_final_name(killed, moment):
    result = killed[moment]
    assert result["killed"], "the moment was never reached"
    assert result["found"] == MOMENTS[moment] and result["next run"]
    assert all(name.endswith(".unfinished") for name in result["left over"])
    assert any(result["left over"] for result in killed.values())


@pytest.mark.parametrize("before", ["nothing", "a sample that lost files"])
def test_two_processes_at_once(before):
    "Both load all images, and nothing else is left: sample and cache."
    if before != "nothing":
        (cache_home() / "sample" / "training" / "0").mkdir(parents=True)
    load = 'print(json.dumps(len(data.load_mnist("sample", device="cpu").test)))'
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(run_program, [load, load])] == [1000, 1000]
    assert sorted(path.suffix for path in cache_home().iterdir() if path.suffix != ".lock") == ["", ".npz"]


# Rights are missing

WITHOUT_RIGHTS = """
import contextlib, io
base, user = Path(sys.argv[1]), int(sys.argv[2])
if os.geteuid() == 0:  # the superuser may do everything, so become another
    os.setgroups([]), os.setgid(user), os.setuid(user)
if user == 12345: os.environ.pop("HOME", None)
seen = {}
with contextlib.redirect_stdout(io.StringIO()) as printed: counts = [
    len(data.load_mnist(source, "cpu").test) for source in ("sample", "sample", base/"good")]
lines = [line for line in printed.getvalue().splitlines() if len(line) > 9 and "|" not in line]  # no bars
for name in ("folder", "digit", "split", "picture"): seen[name] = message(data.load_mnist, base/name, "cpu")
print()
print(json.dumps({**seen, "counts": counts, "lines": lines, "home": str(files.cache_home()), "here": os.listdir()}))
"""


@pytest.fixture
def open_folder(small_folder):
    "A folder that everybody may enter, which pytest's own are not, and data folders in it that nobody may read."
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    locked = {"folder": "", "split": "training", "digit": "training/6", "picture": "training/6/000.png"}
    for name in (*locked, "good"):
        shutil.copytree(small_folder, folder / name)
    for name, part in locked.items():
        (folder / name / part).chmod(0)
    for name, mode in (("cache", 0o555), ("anyone", 0o777)):
        (folder / name).mkdir(), (folder / name).chmod(mode)
    yield folder
    for name, part in locked.items():
        (folder / name / part).chmod(0o700)
    shutil.rmtree(folder)


@posix
def test_what_may_not_be_read_or_written_is_named(open_folder):
    seen = run_program(WITHOUT_RIGHTS, open_folder, 65534, MNIST_SCRATCH_CACHE=open_folder / "cache",
                       TMPDIR=open_folder / "anyone")
    for name, part in (("folder", "folder.training.0"), ("split", "split.training.0"), ("digit", "digit.training.6"),
                       ("picture", r"picture.training.6.000\.png")):
        assert re.match(rf"\S*{part} cannot be read \(Permission denied\)\. Make it readable for yourself", seen[name])
    said = (f"{open_folder / 'cache'} cannot be written (Permission denied), so nothing is kept for the next run. Free "
            "some space, or set MNIST_SCRATCH_CACHE to a folder that can be written.")
    line, sample, again, good = seen["lines"]
    assert seen["counts"] == [1000, 1000, 20] and seen["home"].startswith(str(open_folder / "anyone"))
    assert line == said and sample == again and sample.startswith("4,000 training and 1,000 testing images in ")
    assert [*(open_folder / "anyone").iterdir()] == []  # it goes with the process


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="only the superuser can become another user")
@pytest.mark.parametrize("cache", ["", "own"])
def test_no_home_folder_at_all(open_folder, cache):
    "As in a container that runs under any number: no HOME, no entry among the users."
    # BUG in cache_home: expanduser leaves "~" as it is, so a folder of this name is made in the working directory
    seen = run_program(WITHOUT_RIGHTS, open_folder, 12345, cwd=open_folder / "anyone", XDG_CACHE_HOME="",
                       MNIST_SCRATCH_CACHE=cache and open_folder / "anyone" / cache, TMPDIR=open_folder / "anyone")
    assert seen["counts"] == [1000, 1000, 20] and (not cache or seen["home"] == str(open_folder / "anyone" / cache))
    assert "~" not in seen["here"]


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
    r"\b(pickle|joblib|dill|shelve|allow_pickle|load_learner|weights_only)\b|\btorch\.load\b": "model = torch.load(path)",
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
