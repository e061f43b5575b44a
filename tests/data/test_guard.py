"""FileImages: in order, in other processes, and a bad file costs only itself."""

import gc
import os
import pickle
import subprocess
import sys
import time

import image_files
import numpy as np
import pytest
from image_files import encoded, grey, text_bomb, write_pngs, zeros_png

from lucency.data.arrays import ArrayImages
from lucency.data.guard import (
    DIED,
    HUNG,
    OUTCOMES,
    FileImages,
    WorkerError,
    decoding_limits,
)
from lucency.errors import DataError


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    return write_pngs(tmp_path_factory.mktemp("thirty"), 30)


@pytest.fixture(scope="module")
def images(thirty):
    with FileImages(thirty[0], workers=2) as images:
        yield images


def test_streams_in_the_order_asked_for(images, thirty):
    rows = [5, 3, 29, 3, 0, *range(30)]
    films = list(images.read(rows, image_files.as_stored))
    assert [film.index for film in films] == rows
    for film in films:
        np.testing.assert_array_equal(film.image, thirty[1][film.index])
        assert film.native_shape == (16, 12)


def test_the_transform_is_told_the_row(images, thirty):
    for film in images.read([4, 9], image_files.add_row):
        np.testing.assert_array_equal(film.image, thirty[1][film.index] + np.uint8(film.index))


def test_sixteen_bits_survive_the_journey(tmp_path):
    stored = grey(1, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(encoded(stored))
    with FileImages([tmp_path / "a.png"], workers=1) as images:
        (film,) = images.read([0], image_files.as_stored)
    np.testing.assert_array_equal(film.image, stored)
    assert film.image.dtype == np.uint16


def test_two_reads_can_be_interleaved(images, thirty):
    pairs = zip(
        images.read(range(30), image_files.as_stored),
        images.read(range(30), image_files.add_row),
        strict=True,
    )
    for plain, shifted in pairs:
        np.testing.assert_array_equal(plain.image + np.uint8(plain.index), shifted.image)


def test_is_lazy_and_may_be_abandoned(images):
    stream = images.read(range(30), image_files.fail_on_row_2)
    stream.close()  # never started: no transform has run
    stream = images.read(range(30), image_files.as_stored)
    assert next(stream).index == 0
    stream.close()
    assert len(list(images.read(range(30), image_files.as_stored))) == 30


def test_no_rows_start_no_worker(tmp_path):
    images = FileImages([tmp_path / "a.png"])
    assert list(images.read([], image_files.as_stored)) == []
    assert images._pool is None


def test_workers_are_other_processes_and_stay(images):
    first = {film.image.item() for film in images.read(range(30), image_files.process_id)}
    second = {film.image.item() for film in images.read(range(30), image_files.process_id)}
    assert os.getpid() % 65536 not in first
    assert len(first | second) <= 2


def test_workers_start_light(images):
    (film,) = images.read([0], image_files.loaded_modules)
    assert film.image.item() == 0


@pytest.mark.parametrize(
    ("transform", "reason"),
    [(image_files.hang_on_row_2, HUNG), (image_files.die_on_row_2, DIED)],
)
def test_a_lost_worker_costs_only_its_file(thirty, transform, reason):
    with FileImages(thirty[0], workers=2, timeout_s=1.0) as images:
        outcomes = list(images.read(range(30), transform))
    assert outcomes[2] == (2, reason)
    assert [film.index for k, film in enumerate(outcomes) if k != 2] == [0, 1, *range(3, 30)]


def test_a_slow_consumer_is_not_a_hanging_decoder(thirty):
    with FileImages(thirty[0], workers=1, timeout_s=0.3) as images:
        stream = images.read(range(30), image_files.as_stored)
        next(stream)
        time.sleep(1.0)
        assert [film.index for film in stream] == list(range(1, 30))


def test_a_worker_killed_while_idle_is_replaced(thirty):
    with FileImages(thirty[0], workers=1) as images:
        next(images.read([0], image_files.as_stored))
        worker = images._pool._workers[0]._process
        worker.kill()
        worker.wait()
        (film,) = images.read([1], image_files.as_stored)
    assert film.index == 1


def test_a_fault_of_the_transform_is_raised_with_its_traceback(images):
    with pytest.raises(WorkerError, match=r"(?s)fail_on_row_2.*ZeroDivisionError: row two"):
        list(images.read(range(30), image_files.fail_on_row_2))
    assert len(list(images.read(range(30), image_files.as_stored))) == 30


@pytest.mark.parametrize("transform", [lambda image, row: image, image_files.as_float])
def test_unusable_transforms_are_faults_of_the_program(images, transform):
    with pytest.raises(WorkerError, match="transform"):
        list(images.read([0], transform))


def test_can_be_pickled_and_used_again(images, thirty):
    with pickle.loads(pickle.dumps(images)) as copy:  # noqa: S301 - our own bytes
        (film,) = copy.read([7], image_files.as_stored)
    np.testing.assert_array_equal(film.image, thirty[1][7])


def test_works_in_a_forked_child_without_disturbing_the_parent(images):
    list(images.read([0], image_files.as_stored))
    child = os.fork()
    if child == 0:
        ok = len(list(images.read(range(3), image_files.as_stored))) == 3
        images.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(images.read(range(30), image_files.as_stored))) == 30


def test_a_limit_holds_for_readers_made_within_it(thirty):
    with decoding_limits(1):
        limited, asked = FileImages(thirty[0]), FileImages(thirty[0], workers=2)
        with decoding_limits(2):
            inner = FileImages(thirty[0])
    free = FileImages(thirty[0])
    here = len(os.sched_getaffinity(0))
    assert [i._n_workers for i in (limited, asked, inner, free)] == [1, 2, min(2, here), here]


def test_workers_end_with_the_object_and_with_the_context(thirty):
    images = FileImages(thirty[0], workers=1)
    next(images.read([0], image_files.as_stored))
    process = images._pool._workers[0]._process
    del images
    gc.collect()
    assert process.poll() is not None
    with FileImages(thirty[0], workers=1) as images:
        next(images.read([0], image_files.as_stored))
        process = images._pool._workers[0]._process
    assert process.poll() is not None


def test_a_script_needs_no_main_guard_and_leaves_no_process(thirty):
    script = (
        "import image_files; from lucency.data.guard import FileImages\n"
        f"images = FileImages({[str(p) for p in thirty[0]]!r}, workers=2)\n"
        "stream = images.read(range(30), image_files.as_stored); next(stream)\n"
        "print(*[w._process.pid for w in images._pool._workers if w._process])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.path.dirname(image_files.__file__)},  # noqa: PTH120
    )
    assert (done.returncode, done.stderr) == (0, "")
    pids = done.stdout.split()
    assert pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110


def test_bombs_loops_and_pipes_are_refused_quickly(tmp_path):
    good = encoded(grey())
    (tmp_path / "bomb.png").write_bytes(zeros_png(13_000))
    (tmp_path / "text.png").write_bytes(text_bomb())
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "good.png").write_bytes(good)
    names = ["bomb", "text", "fifo", "good", "zero", "absent", "good"]
    with FileImages([tmp_path / f"{name}.png" for name in names], workers=1) as images:
        outcomes = list(images.read(range(7), image_files.as_stored))
    for k, outcome in enumerate(outcomes):
        if names[k] == "good":
            np.testing.assert_array_equal(outcome.image, grey())
        else:
            row, reason = outcome
            assert row == k
            assert reason in OUTCOMES
            assert str(tmp_path) not in reason


def test_decoding_is_limited_in_memory(tmp_path):
    """A worker with 1 MiB to spare refuses an image of 30 million pixels, and reads on."""
    (tmp_path / "large.png").write_bytes(zeros_png(5500))
    (tmp_path / "small.png").write_bytes(encoded(grey()))
    script = (
        "import sys; from lucency.data import decode_worker as w\n"
        "from lucency.data.decode import DecodeError, decode\n"
        "decode(sys.argv[2]); w.MEMORY_BYTES = 2**20\n"
        "with w._limited_memory():\n"
        "    try: decode(sys.argv[1])\n"
        "    except DecodeError as error: print(error)\n"
        "print(decode(sys.argv[1]).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "large.png", tmp_path / "small.png"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["needs too much memory", "(5500, 5500)"], done.stderr


def test_200_mutated_files_among_50_good_ones(tmp_path):
    generator = np.random.default_rng(7)
    good, arrays = write_pngs(tmp_path / "good", 50, (64, 48))
    paths = [*good]
    for k in range(200):
        data = bytearray(encoded(arrays[k % 50], ["PNG", "JPEG"][k % 2]))
        for place in generator.integers(0, len(data), 1 + k % 7):
            data[place] = generator.integers(256)
        if k % 5 == 0:
            del data[generator.integers(1, len(data)) :]
        paths.append(tmp_path / f"bad{k}.png")
        paths[-1].write_bytes(bytes(data))
    rows = generator.permutation(250)
    with FileImages(paths, workers=2) as images:
        outcomes = list(images.read(rows, image_files.as_stored))
    rejected = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    accepted = [outcome for outcome in outcomes if not isinstance(outcome, tuple)]
    assert len(rejected) + len(accepted) == 250
    assert len(rejected) >= 100
    assert all(reason in OUTCOMES for _, reason in rejected)
    films = {film.index: film.image for film in accepted}
    for row in range(50):
        np.testing.assert_array_equal(films[row], arrays[row])


def test_array_images_read_like_files():
    array = np.stack([grey(seed) for seed in range(5)])
    films = list(ArrayImages(array).read([3, 1], image_files.add_row))
    assert [(film.index, film.native_shape) for film in films] == [(3, (16, 12)), (1, (16, 12))]
    np.testing.assert_array_equal(films[0].image, array[3] + np.uint8(3))


def test_array_images_show_a_transform_no_writable_pixels():
    def scribble(image, row):
        image[:] = 0
        return image

    array = np.stack([grey()])
    with pytest.raises(ValueError, match="read-only"):
        list(ArrayImages(array).read([0], scribble))
    np.testing.assert_array_equal(array[0], grey())


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.uint8), np.zeros((1, 2, 3))])
def test_array_images_refuse_other_forms(array):
    with pytest.raises(DataError, match="must be"):
        ArrayImages(array)
