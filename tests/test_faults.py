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

import pytest
import torch
from conftest import NOTEBOOKS, ROOT, read_notebook, run_program

from mnist_scratch import cache
from mnist_scratch.cache import cache_home
from mnist_scratch.data import load_mnist

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and limits of POSIX")

# The disk is full

FULL_DISK = """
import resource
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def load(): return len(data.load_mnist("sample", device="cpu").train)
seen = {}
limit(100)  # the longest file in bytes: less than a picture of noise needs
seen["sample"] = message(files.mnist_path, "sample")
seen["left of the sample"] = os.listdir(files.cache_home())
limit(100_000)  # pictures fit, the cache does not
seen["loaded without a cache"] = load()
seen["left of the cache"] = os.listdir(files.cache_home())
limit(resource.RLIM_INFINITY)
seen["loaded later"] = load()
seen["in the end"] = sorted(os.listdir(files.cache_home()))
print(json.dumps(seen))
"""


@posix
def test_a_full_disk_is_said_and_leaves_nothing_behind():
    "torchvision's own writer leaves short files on a full disk and says nothing."
    seen = run_program(FULL_DISK)
    assert re.search("The sample cannot be written to .*sample.*File too large.*Free some space, or set MNIST_SCRATCH_"
                     "CACHE", seen["sample"])
    assert seen["left of the sample"] == [] and seen["left of the cache"] == ["sample"]
    assert seen["loaded without a cache"] == seen["loaded later"] == 3000
    assert len(seen["in the end"]) == 2 and seen["in the end"][0].endswith(".safetensors")


# The process is killed

KILLED = """
import shutil
home, save_file = files.cache_home(), cache.save_file
files.DIGITS = cache.DIGITS = ("0", "1")  # two digits are enough, and quicker
files.SAMPLE_COUNTS = {"training": 800, "testing": 200}

def killed(work, event, count):
    "Run `work` in a fork that kills itself at the `count`-th `event` on a file of ours; True if it came to that."
    def watch(name, arguments):
        nonlocal count
        if name == event and str(home) in str(arguments):
            count -= 1
            if count == 0: os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        sys.addaudithook(watch)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

def half_a_file(tensors, file, metadata):
    save_file(tensors, file, metadata)
    os.truncate(file, os.path.getsize(file)//2)
    sys.audit("half a file", str(file))

def sample(): return files.mnist_path("sample")
def load(): return cache.cached(sample(), lambda folder: {"images": torch.arange(100_000)})["images"]
def state():
    folder = home/"sample"
    if not folder.exists(): return "absent"
    return {1000: "complete", 1: "as before"}.get(sum(name.endswith(".png") for *_, names in os.walk(folder)
                                                      for name in names), "half")
def left_over(): return sorted(name for name in os.listdir(home) if name.startswith("."))

results = {}
for event, count in (("tempfile.mkdtemp", 1), ("os.mkdir", 4), ("open", 1), ("open", 501), ("os.rename", 1),
                     ("os.rename", 2), ("shutil.rmtree", 1)):
    shutil.rmtree(home, ignore_errors=True)
    damaged = home/"sample"/"training"/"0"  # so that there is something to replace
    damaged.mkdir(parents=True)
    (damaged/"000.png").touch()
    result = {"killed": killed(sample, event, count), "found": state(), "left over": left_over()}
    result["next run"] = files.count_images(sample()) == files.SAMPLE_COUNTS
    results[f"sample, {event} {count}"] = result

right = load()
for event in ("tempfile.mkdtemp", "half a file", "os.rename", "shutil.rmtree"):
    for file in home.glob("*.safetensors"): file.unlink()
    for name in left_over(): shutil.rmtree(home/name)
    cache.save_file = half_a_file if event == "half a file" else save_file
    result = {"killed": killed(load, event, 1), "left over": left_over()}
    cache.save_file = save_file
    result["found"] = "complete" if list(home.glob("*.safetensors")) else "absent"
    result["next run"] = load().equal(right)
    results[f"cache, {event}"] = result
print(json.dumps(results))
"""
MOMENTS = ["sample, tempfile.mkdtemp 1", "sample, os.mkdir 4", "sample, open 1", "sample, open 501",
           "sample, os.rename 1", "sample, os.rename 2", "sample, shutil.rmtree 1",
           "cache, tempfile.mkdtemp", "cache, half a file", "cache, os.rename", "cache, shutil.rmtree"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return run_program(KILLED, MNIST_SCRATCH_CACHE=tmp_path_factory.mktemp("killed") / "cache")


@posix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_nothing_half_written_under_a_final_name(killed, moment):
    result = killed[moment]
    assert result["killed"], "the moment was never reached"
    assert result["found"] in {"absent", "as before", "complete"}
    assert result["next run"]
    # Before the first rename nothing may have changed, after the last all must be there.
    expected = {"open 501": "as before", "os.rename 2": "absent", "rmtree": "complete", "half a file": "absent"}
    assert all(result["found"] == state for part, state in expected.items() if part in moment)


@posix
def test_every_moment_was_tried_and_some_left_something_over(killed):
    assert set(killed) == set(MOMENTS)
    assert all(name.endswith(cache.UNFINISHED) for result in killed.values() for name in result["left over"])
    assert any(result["left over"] for result in killed.values())


@pytest.mark.parametrize(("hours", "remains"), [(1, True), (25, False)])
def test_leftovers_of_killed_processes_go_after_a_day(small_folder, hours, remains):
    left = cache_home() / f".sample-abc{cache.UNFINISHED}"
    (left / "fresh").mkdir(parents=True)
    mine = cache_home() / ".mine"
    mine.mkdir()
    then = left.stat().st_mtime - hours * 3600
    for folder in (left, mine):
        os.utime(folder, (then, then))
    load_mnist(small_folder)
    assert left.exists() == remains and mine.exists()


def test_a_process_that_was_faster_is_not_disturbed(tmp_path):
    "Somebody may be reading its folder."
    final = tmp_path / "final"
    with cache.replacing(final) as slow:
        with cache.replacing(final) as fast:
            (fast / "fast.txt").touch()
        (slow / "slow.txt").touch()
    assert [path.name for path in final.iterdir()] == ["fast.txt"] and [*tmp_path.iterdir()] == [final]


@pytest.mark.parametrize("moment", ["before the look", "after the look"])
def test_a_process_that_has_taken_the_old_folder_away_is_not_waited_for(tmp_path, monkeypatch, moment):
    "It is between its two renames, and may be killed there."
    final, aside, rename = tmp_path / "final", tmp_path / "aside", Path.rename
    final.mkdir()

    def late(path, target):
        if path == final and final.exists():
            rename(final, aside)
        return rename(path, target)

    with cache.replacing(final) as fresh:
        (fresh / "mine.txt").touch()
        if moment == "before the look":
            rename(final, aside)
        monkeypatch.setattr(Path, "rename", late)
    assert [path.name for path in final.iterdir()] == ["mine.txt"] and aside.exists()


@pytest.mark.parametrize("before", ["nothing", "a sample that lost files"])
def test_two_processes_at_once(before):
    "Both load all images, and nothing else is left: sample and cache."
    if before != "nothing":
        (cache_home() / "sample" / "training" / "0").mkdir(parents=True)
    load = 'print(json.dumps(len(data.load_mnist("sample", device="cpu").test)))'
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(run_program, [load, load])] == [1000, 1000]
    assert sorted(path.suffix for path in cache_home().iterdir()) == ["", ".safetensors"]


# Rights are missing

WITHOUT_RIGHTS = """
import contextlib, io
base = Path(sys.argv[1])
if os.geteuid() == 0:  # the superuser may do everything, so become nobody
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
seen = {name: message(data.load_mnist, base/name, "cpu") for name in ("folder", "digit", "split", "picture")}
seen["sample"] = message(files.mnist_path, "sample")
with contextlib.redirect_stdout(io.StringIO()) as printed: data.load_mnist(base/"good", "cpu")
seen["cache"] = printed.getvalue()
print(json.dumps(seen))
"""


@pytest.fixture
def open_folder():
    "A folder that everybody may enter, which pytest's own are not."
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o700)
    for path in (folder / "split" / "training", folder / "digit" / "training" / "6"):
        path.chmod(0o700)
    shutil.rmtree(folder)


@posix
def test_what_may_not_be_read_or_written_is_named(open_folder, small_folder):
    locked = {"folder": "", "split": "training", "digit": "training/6", "picture": "training/6/mine.png"}
    for name in (*locked, "good"):
        shutil.copytree(small_folder, open_folder / name)
    picture = open_folder / "picture" / "training" / "6" / "mine.png"
    shutil.copy(next(picture.parent.iterdir()), picture)
    for name, part in locked.items():
        (open_folder / name / part).chmod(0)
    (open_folder / "cache").mkdir()
    (open_folder / "cache").chmod(0o555)
    seen = run_program(WITHOUT_RIGHTS, open_folder, MNIST_SCRATCH_CACHE=open_folder / "cache")
    right = r"cannot be read \(Permission denied\)\. Give yourself the right to read it"
    assert re.search(f"folder.training.0 {right}", seen["folder"])
    assert re.search(f"split.training.0 {right}", seen["split"])
    assert re.search(f"digit.training.6 {right}", seen["digit"])
    assert re.search(r"mine\.png is not a readable PNG\. Give yourself the right to read it", seen["picture"])
    assert re.search("The sample cannot be written.*Permission denied.*MNIST_SCRATCH_CACHE", seen["sample"])
    assert re.search("Not cached, .*cannot be written", seen["cache"])


# The cache lies


@pytest.fixture
def cache_file(small_folder):
    load_mnist(small_folder)
    (file,) = cache_home().glob("*.safetensors")
    return file


def test_a_cache_damaged_anywhere_is_noticed(cache_file):
    "2,000 bytes of the head, which says what the numbers mean, and 200 of the numbers: noticed, or harmless."
    content, chance = cache_file.read_bytes(), random.Random(0)
    with cache.safe_open(cache_file, framework="pt") as opened:
        stamp = opened.metadata()["stamp"]
    right, n_noticed = {name: view.clone() for name, view in cache._read_cache(cache_file, stamp).items()}, 0
    head = 8 + int.from_bytes(content[:8], "little")
    positions = [chance.randrange(head) for _ in range(2000)] + [chance.randrange(len(content)) for _ in range(200)]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= chance.randrange(1, 256)
        cache_file.write_bytes(damaged)
        read = cache._read_cache(cache_file, stamp)
        n_noticed += read is None
        assert read is None or (read.keys() == right.keys() and all(
            read[name].dtype == right[name].dtype and read[name].equal(right[name]) for name in right)), position
    assert n_noticed > 2000


def test_what_is_loaded_does_not_change_with_the_cache(cache_file, small_folder):
    loaded, content = load_mnist(small_folder, "cpu"), cache_file.read_bytes()
    piles = [tensor for pile in (loaded.train, loaded.valid, loaded.test) for tensor in (pile.images, pile.labels)]
    before = [tensor.clone() for tensor in piles]
    with open(cache_file, "r+b") as file:  # in place, so that a view of the file sees it
        file.write(bytes(byte ^ 0xFF for byte in content))
    assert all(tensor.equal(copy) for tensor, copy in zip(piles, before, strict=True))


def test_a_cache_whose_numbers_change_their_meaning_is_noticed(cache_file, small_folder):
    "The bytes are right, but int64 became float64."
    content = cache_file.read_bytes()
    cache_file.write_bytes(content.replace(b'"I64"', b'"F64"'))
    assert cache_file.read_bytes() != content
    assert load_mnist(small_folder).train.labels.dtype == torch.int64


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_in_place_of_the_cache_is_not_executed(cache_file, small_folder, tmp_path, write):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    with open(cache_file, "wb") as file:
        write(Trap(), file)
    assert len(load_mnist(small_folder).test) == 20
    assert not (tmp_path / "sprung").exists()


def test_all_that_is_cached_is_safetensors(cache_file):
    assert [*cache_home().iterdir()] == [cache_file]
    with cache.safe_open(cache_file, framework="pt") as opened:
        assert set(opened.keys()) == {"training", "training_labels", "testing", "testing_labels"}


@posix
def test_a_picture_that_kept_its_size_and_its_date_is_noticed(small_folder):
    "By the time of the last change, which no program can set; Windows keeps none."
    first = load_mnist(small_folder, "cpu")
    file = sorted((small_folder / "testing" / "6").iterdir())[0]
    before, content = file.stat(), bytearray(file.read_bytes())
    other = next(other for other in small_folder.rglob("*.png")
                 if other.stat().st_size <= len(content) and other.read_bytes() != content)
    content[:] = other.read_bytes().ljust(len(content), b"\0")  # a PNG may have something behind it
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not load_mnist(small_folder, "cpu").test.images.equal(first.test.images)


# What is nowhere in the source

SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("mnist_scratch", "scripts") for path in (ROOT / folder).glob("*.py")
}
SOURCES |= {
    path: "\n".join("".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code")
    for path in NOTEBOOKS
}
NOWHERE = {
    "a pickle is loaded": (
        r"\b(pickle|joblib|dill|shelve|allow_pickle|load_learner|weights_only)\b|\b(torch|np)\.load\b",
        "model = torch.load(path)"),
    "a shell gets a string": (
        r"os\.(system|popen)\b|shell\s*=\s*True|getoutput|^\s*[!%]",
        "subprocess.run(command, shell=True)"),
    "text becomes code": (
        r"(?<![\w.])(eval|exec)\(|__import__",
        "answer = eval(text)"),
    "there is a secret": (
        r"(?i)(password|secret|api_?key|token)\s*[=:]\s*['\"]\w|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|PRIVATE KEY",
        "password = 'hunter2'"),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_nowhere(what):
    pattern, example = NOWHERE[what]
    assert re.search(pattern, example, re.M), "a pattern that finds nothing proves nothing"
    found = {str(path): match[0] for path, text in SOURCES.items() if (match := re.search(pattern, text, re.M))}
    assert found == {} and len(SOURCES) > 20
