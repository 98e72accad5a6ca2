#!/usr/bin/env python3
# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn to read handwritten digits from an array in NEO that is larger than the memory.

The images are the digits that scikit-learn ships (1797 images of 8 x 8 pixels: E. Alpaydin and
C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998). Each block of the array has
other shifts and noise, drawn from a generator seeded with the number of the block, so any block can
be made again and compared with what NEO returns.

1. load: dask workers write pixels and labels to NEO, block by block;
2. learn: each worker trains on its blocks, one at a time in memory; after each round the weights
   are averaged (McMahan et al., "Communication-Efficient Learning of Deep Networks", 2017);
3. predict: the workers write a prediction for each image to a third array;
4. verify: every block is read again and compared with what it has to be.

Every step does again only what is not in NEO yet, so the example can be stopped at any moment, or
lose storage nodes, masters and workers, and still ends with the right answer.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import shlex
import subprocess
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.utils import format_bytes, parse_bytes
from persistent.mapping import PersistentMapping
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from slapos_wendelin.errors import CommandError, ParameterError, WendelinError
from slapos_wendelin.neo import client, memory, ndarray
from slapos_wendelin.neo.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Images in a block: 8192 of 64 pixels in float32 are 2 MiB.
ROWS = 8192
PIXELS = 64
BLOCK_BYTES = ROWS * PIXELS * 4

#: Images from which the training blocks are drawn; the test blocks are drawn from the others.
TRAINING_IMAGES = 1400

#: Every eighth block is a test block: nothing is learned from it.
TEST_EVERY = 8

#: Models that learn side by side between two averages, whatever the number of workers is, so that
#: the result does not depend on it.
SHARDS = 4

#: Blocks for the model that is trained in memory to compare with.
SAMPLE_BLOCKS = 16

#: Blocks that one task writes in one transaction.
BLOCKS_PER_COMMIT = 2

DIGITS = np.arange(10)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What decides every number of the result. A run that goes on has to have the same."""

    blocks: int
    epochs: int
    rounds: int
    seed: int

    def is_test(self, number: int) -> bool:
        """Tell whether nothing is learned from a block."""
        return number % TEST_EVERY == TEST_EVERY - 1

    def training_blocks(self) -> list[int]:
        """Return the blocks to learn from."""
        return [number for number in range(self.blocks) if not self.is_test(number)]

    def round_blocks(self, number: int) -> list[list[int]]:
        """Return the blocks of each shard in a round; rounds count through all epochs."""
        parts = np.array_split(self.training_blocks(), self.rounds * SHARDS)
        first = number % self.rounds * SHARDS
        return [part.tolist() for part in parts[first : first + SHARDS] if len(part)]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the arrays are: the address of the database and the name in its root."""

    uri: str
    name: str

    def run(self, function: Callable[[PersistentMapping], Any], at: bytes | None = None) -> Any:
        """Call a function with the mapping of the arrays, in a transaction that is retried."""
        return client.run(self.uri, lambda root: function(root[self.name]), at=at)


def make_block(plan: Plan, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (float32, rows x 64) and labels (int8) of a block.

    Images move by up to one pixel each way; noise has a standard deviation of a tenth of black.
    """
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    generator = np.random.default_rng([plan.seed, number])
    first, last = (TRAINING_IMAGES, len(images)) if plan.is_test(number) else (0, TRAINING_IMAGES)
    picked = generator.integers(first, last, ROWS)
    down, right = generator.integers(-1, 2, (2, ROWS))
    padded = np.zeros((ROWS, 10, 10), np.float32)
    padded[:, 1:9, 1:9] = images[picked]
    rows = np.arange(1, 9) - down[:, None]
    columns = np.arange(1, 9) - right[:, None]
    moved = padded[np.arange(ROWS)[:, None, None], rows[:, :, None], columns[:, None, :]]
    moved += generator.standard_normal(moved.shape, np.float32) * np.float32(0.1)
    return moved.reshape(ROWS, PIXELS), labels[picked].astype(np.int8)


def checksum(*arrays: np.ndarray) -> bytes:
    """Return a checksum of the bytes of arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def new_model(plan: Plan) -> MLPClassifier:
    """Return a model that has seen a few images only, the same for everyone."""
    model = MLPClassifier(
        (64,),
        solver="sgd",
        learning_rate_init=0.1,
        momentum=0.9,
        batch_size=128,
        random_state=plan.seed,
    )
    pixels, labels = make_block(plan, 0)
    return learn(model, [(pixels[:128], labels[:128])])


def learn(model: MLPClassifier, blocks: Any) -> MLPClassifier:
    """Train a model on one block after another."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for pixels, labels in blocks:
            model.partial_fit(pixels, labels, classes=DIGITS)
    return model


def average(models: Sequence[MLPClassifier]) -> MLPClassifier:
    """Return a model with the mean of the weights; its momentum is that of the first."""
    result = models[0]
    for name in ("coefs_", "intercepts_"):
        for layer, weights in enumerate(getattr(result, name)):
            weights[...] = np.mean([getattr(model, name)[layer] for model in models], axis=0)
    return result


def write_blocks(place: Place, plan: Plan, numbers: Sequence[int]) -> tuple[int, int]:
    """On a worker: write blocks that are not there. Return how many there are and were written."""
    made = {number: make_block(plan, number) for number in numbers}

    def write(arrays: PersistentMapping) -> int:
        written = 0
        for number, (pixels, labels) in made.items():
            found = arrays["pixels"].read_block(number), arrays["labels"].read_block(number)
            if checksum(*found) != checksum(pixels, labels):
                arrays["pixels"].write_block(number, pixels)
                arrays["labels"].write_block(number, labels)
                written += 1
        return written

    return len(numbers), place.run(write)


def train_shard(place: Place, model: bytes, shard: int, numbers: Sequence[int]) -> tuple[int, Any]:
    """On a worker: train a copy of the model on the blocks of a shard, one at a time in memory."""

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        return place.run(
            lambda arrays: (
                arrays["pixels"].read_block(number),
                arrays["labels"].read_block(number),
            )
        )

    # Only this example has written the database that the model comes from.
    return shard, learn(pickle.loads(model), map(read, numbers))  # noqa: S301


def predict_blocks(place: Place, model: bytes, numbers: Sequence[int]) -> tuple[int, int]:
    """On a worker: write what the model reads in the images of blocks."""
    reader = pickle.loads(model)  # noqa: S301 - as in train_shard

    def predict(arrays: PersistentMapping) -> int:
        written = 0
        for number in numbers:
            with threadpool_limits(1):
                answer = reader.predict(arrays["pixels"].read_block(number)).astype(np.int8)
            if not np.array_equal(arrays["predictions"].read_block(number), answer):
                arrays["predictions"].write_block(number, answer)
                written += 1
        return written

    return len(numbers), place.run(predict)


def verify_block(
    place: Place, plan: Plan, model: bytes, at: bytes, number: int
) -> tuple[int, list[str], int]:
    """On a worker: compare a block with what it has to be.

    Return its number, what is wrong with it, and how many of its images were read rightly.
    """
    pixels, labels = make_block(plan, number)
    found = place.run(
        lambda arrays: {
            name: arrays[name].read_block(number) for name in ("pixels", "labels", "predictions")
        },
        at=at,
    )
    with threadpool_limits(1):
        answer = pickle.loads(model).predict(pixels).astype(np.int8)  # noqa: S301 - as above
    expected = {"pixels": pixels, "labels": labels, "predictions": answer}
    wrong = [name for name in expected if checksum(found[name]) != checksum(expected[name])]
    return number, wrong, int(np.count_nonzero(found["predictions"] == labels))


class Progress:
    """One line every two seconds, and one at the end of a step."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, total: int, unit_bytes: int = 0) -> Iterator[Callable[[int], None]]:
        """Yield a function that is told how much more is done."""
        start = shown = time.monotonic()
        done = shown_done = 0

        def advance(more: int) -> None:
            nonlocal done, shown, shown_done
            done += more
            if time.monotonic() - shown > 2:
                shown, shown_done = time.monotonic(), done
                self._show(name, done, total, unit_bytes, shown - start)

        yield advance
        self.seconds[name] = time.monotonic() - start
        if done != shown_done or not done:
            self._show(name, done, total, unit_bytes, self.seconds[name])

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.stream, flush=True)

    def _show(self, name: str, done: int, total: int, unit_bytes: int, seconds: float) -> None:
        """Print how far a step is."""
        rate = f", {done * unit_bytes / 1e6 / seconds:.0f} MB/s" if unit_bytes else ""
        self.say(f"{name:8} {done:5} of {total} in {seconds:5.1f} s{rate}")


class RestartStorage:
    """The command that restarts a storage process while blocks are being written."""

    def __init__(self, command: str | None, progress: Progress) -> None:
        self.command = shlex.split(command) if command else []
        self.progress = progress
        self.thread: threading.Thread | None = None
        self.result: subprocess.CompletedProcess[str] | Exception | None = None

    def start(self) -> None:
        """Start the command once, beside the writing."""
        if self.command and self.thread is None:
            self.progress.say(f"restart  {shlex.join(self.command)}")
            self.thread = threading.Thread(target=self._run)
            self.thread.start()

    def finish(self) -> None:
        """Wait for the command.

        :raises CommandError: when it has failed.
        """
        self.start()
        if self.thread is None:
            return
        self.thread.join()
        if isinstance(self.result, Exception):
            raise CommandError(
                f"cannot restart a storage: {self.result}", "correct --restart-storage"
            )
        if self.result is None or self.result.returncode:
            output = "" if self.result is None else self.result.stderr.strip()[-300:]
            raise CommandError(
                f"the command to restart a storage has failed: {output}",
                "correct --restart-storage; what was written is kept",
            )

    def _run(self) -> None:
        """Run the command and keep what came of it."""
        try:
            self.result = subprocess.run(
                self.command, capture_output=True, text=True, check=False, timeout=300
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.result = error


class Example:
    """One run of the example."""

    def __init__(self, arguments: argparse.Namespace, workers: Workers, progress: Progress) -> None:
        self.place = Place(arguments.zodb_uri, arguments.name)
        self.plan = arguments.plan
        self.memory_limit: int = arguments.memory_limit
        self.restart = RestartStorage(arguments.restart_storage, progress)
        self.workers = workers
        self.progress = progress
        self.result: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Do all steps and return the result."""
        memory.reset_peak()
        self.workers.on_each_worker(memory.reset_peak)
        client.run(self.place.uri, self._prepare)
        self.load()
        model = pickle.dumps(self.train())
        self.predict(model)
        self.verify(model)
        self.compare()
        self.check_memory()
        self.result["seconds"] = {k: round(v, 2) for k, v in self.progress.seconds.items()}
        return self.result

    def load(self) -> None:
        """Write all blocks; restart a storage process when half of them are there."""
        numbers = range(self.plan.blocks)
        tasks = ((self.place, self.plan, part) for part in chunked(numbers, BLOCKS_PER_COMMIT))
        done = written = 0
        try:
            with self.progress.step("load", self.plan.blocks, BLOCK_BYTES) as advance:
                for count, new in self.workers.each(write_blocks, tasks):
                    advance(count)
                    done, written = done + count, written + new
                    if done * 2 >= self.plan.blocks:
                        self.restart.start()
        finally:
            self.restart.finish()
        if written < done:
            self.progress.say(f"         {done - written} blocks were there already")
        self.result["bytes"] = self.plan.blocks * BLOCK_BYTES
        self.result["blocks_written"] = written
        self.result["restarted_storage"] = self.restart.thread is not None

    def train(self) -> MLPClassifier:
        """Train by rounds, from the last round that is in the database."""
        total = self.plan.epochs * self.plan.rounds
        done, model = self.place.run(lambda arrays: arrays.get("model", (0, None)))
        model = new_model(self.plan) if model is None else pickle.loads(model)  # noqa: S301
        with self.progress.step("learn", total) as advance:
            advance(done)
            for number in range(done, total):
                model = self._train_round(model, number)
                state = number + 1, pickle.dumps(model)
                self.place.run(lambda arrays, state=state: arrays.__setitem__("model", state))
                advance(1)
        return model

    def predict(self, model: bytes) -> None:
        """Write predictions for all blocks."""
        parts = chunked(range(self.plan.blocks), BLOCKS_PER_COMMIT)
        with self.progress.step("predict", self.plan.blocks, BLOCK_BYTES) as advance:
            tasks = ((self.place, model, part) for part in parts)
            for count, _ in self.workers.each(predict_blocks, tasks):
                advance(count)

    def verify(self, model: bytes) -> None:
        """Compare every block, all as they are at one moment.

        :raises WrongBlocksError: names the blocks that are not what was written.
        """
        at = client.last_transaction(self.place.uri)
        wrong = {}
        right = {False: 0, True: 0}
        with self.progress.step("verify", self.plan.blocks, BLOCK_BYTES) as advance:
            tasks = ((self.place, self.plan, model, at, n) for n in range(self.plan.blocks))
            for number, faults, rightly in self.workers.each(verify_block, tasks):
                advance(1)
                right[self.plan.is_test(number)] += rightly
                if faults:
                    wrong[number] = faults
        if wrong:
            raise WrongBlocksError(wrong)
        test_blocks = self.plan.blocks - len(self.plan.training_blocks())
        self.result["blocks_verified"] = self.plan.blocks
        self.result["accuracy"] = right[True] / (test_blocks * ROWS)
        self.result["accuracy_training_images"] = right[False] / (
            len(self.plan.training_blocks()) * ROWS
        )

    def compare(self) -> None:
        """Train the same kind of model in memory on a sample of blocks."""
        sample = [make_block(self.plan, n) for n in self.plan.training_blocks()[:SAMPLE_BLOCKS]]
        model = new_model(self.plan)
        with self.progress.step("compare", self.plan.epochs) as advance:
            for _ in range(self.plan.epochs):
                learn(model, sample)
                advance(1)
        tests = [n for n in range(self.plan.blocks) if self.plan.is_test(n)][:TEST_EVERY]
        with threadpool_limits(1):
            scores = [model.score(*make_block(self.plan, number)) for number in tests]
        self.result["accuracy_in_memory"] = float(np.mean(scores))
        self.result["sample_blocks"] = len(sample)

    def check_memory(self) -> None:
        """Collect the peak of each process.

        :raises MemoryLimitError: when one is above the limit.
        """
        peaks = dict(sorted(self.workers.on_each_worker(memory.peak_bytes).items()))
        peaks["this process"] = memory.peak_bytes()
        self.result["memory_limit"] = self.memory_limit
        self.result["memory_peak"] = peaks
        above = {name: peak for name, peak in peaks.items() if peak > self.memory_limit}
        if above:
            name, peak = max(above.items(), key=lambda item: item[1])
            raise MemoryLimitError(
                f"{name} took {format_bytes(peak)} of memory, the limit is"
                f" {format_bytes(self.memory_limit)}",
                "give a higher --memory-limit; the answer itself is right and is in the database",
            )

    def _train_round(self, model: MLPClassifier, number: int) -> MLPClassifier:
        """Train the shards side by side and average them, in their order."""
        state = pickle.dumps(model)
        shards = self.plan.round_blocks(number)
        tasks = ((self.place, state, shard, blocks) for shard, blocks in enumerate(shards))
        trained = dict(self.workers.each(train_shard, tasks))
        return average([trained[shard] for shard in sorted(trained)]) if trained else model

    def _prepare(self, root: PersistentMapping) -> None:
        """Make the arrays, or check that those which are there belong to this plan."""
        plan = dataclasses.asdict(self.plan)
        arrays = root.get(self.place.name)
        if arrays is None:
            root[self.place.name] = arrays = PersistentMapping(plan=plan)
            rows = self.plan.blocks * ROWS
            ndarray.create(arrays, "pixels", (rows, PIXELS), np.float32, chunks=(ROWS, PIXELS))
            ndarray.create(arrays, "labels", rows, np.int8, chunks=ROWS, fill_value=-1)
            ndarray.create(arrays, "predictions", rows, np.int8, chunks=ROWS, fill_value=-1)
        elif arrays.get("plan") != plan:
            raise ParameterError(
                f"{self.place.name!r} in the database was begun with {arrays.get('plan')}, this run"
                f" has {plan}",
                "repeat the earlier options, choose another --name, or add --erase",
            )


class WrongBlocksError(WendelinError):
    """Blocks in the database are not what was written."""

    def __init__(self, wrong: dict[int, list[str]]) -> None:
        listed = "; ".join(f"{n}: {', '.join(f)}" for n, f in itertools.islice(wrong.items(), 10))
        super().__init__(
            f"{len(wrong)} blocks are wrong: {listed}",
            "keep the database as it is and look at the logs of its storage nodes",
        )


class MemoryLimitError(WendelinError):
    """A process took more memory than it was allowed."""


def chunked(numbers: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Yield numbers in tuples of at most this size."""
    for first in range(0, len(numbers), size):
        yield tuple(numbers[first : first + size])


def erase(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run has left under this name."""
    client.run(arguments.zodb_uri, lambda root: root.pop(arguments.name, None) and None)


def show(result: dict[str, Any], progress: Progress) -> None:
    """Print the result for a reader."""
    size = format_bytes(result["bytes"])
    peak_name, peak = max(result["memory_peak"].items(), key=lambda item: item[1])
    progress.say(
        f"all {result['blocks_verified']} blocks ({size}) are what was written\n"
        f"accuracy on images that nothing was learned from: {result['accuracy']:.4f}"
        f" (the same model in memory, on {result['sample_blocks']} blocks:"
        f" {result['accuracy_in_memory']:.4f})\n"
        f"most memory of a process: {format_bytes(peak)} ({peak_name}), limit"
        f" {format_bytes(result['memory_limit'])}"
    )


def size_in_bytes(text: str) -> int:
    """Read a size like 2GiB."""
    try:
        size = parse_bytes(text)
    except ValueError as error:
        message = f"{text!r} is no size; write for example 512MiB"
        raise argparse.ArgumentTypeError(message) from error
    return size


def parse(options: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    :raises ParameterError: when something is missing or out of range.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    environment = os.environ.get
    add = parser.add_argument
    add(
        "--zodb-uri",
        default=environment("WENDELIN_ZODB_URI"),
        help="address of the database; otherwise WENDELIN_ZODB_URI of the environment",
    )
    add(
        "--scheduler",
        default=environment("WENDELIN_DASK_SCHEDULER"),
        help="address of a dask scheduler; otherwise WENDELIN_DASK_SCHEDULER of the environment,"
        " otherwise two workers are started here",
    )
    add("--size", type=size_in_bytes, help="size of the array of pixels (2GiB)")
    add("--small", action="store_true", help="64 MiB, to see that everything works")
    add("--epochs", type=int, help="how often to learn from each block (1, with --small 3)")
    add("--seed", type=int, default=1998, help="seed of shifts, noise and first weights (1998)")
    add(
        "--memory-limit",
        type=size_in_bytes,
        default=512 * 2**20,
        help="memory for each process (512MiB); more is an error",
    )
    add("--restart-storage", metavar="COMMAND", help="command to run while blocks are written")
    add("--name", default="digits", help="name in the root of the database (digits)")
    add("--erase", action="store_true", help="begin anew: remove what is there under the name")
    add("--json", action="store_true", help="print the result as JSON, the progress to stderr")
    arguments = parser.parse_args(options)
    arguments.size = arguments.size or (64 if arguments.small else 2048) * 2**20
    arguments.epochs = arguments.epochs or (3 if arguments.small else 1)
    blocks = -(-arguments.size // BLOCK_BYTES)
    if blocks < TEST_EVERY:
        raise ParameterError(
            f"--size {arguments.size} makes {blocks} blocks",
            f"give at least {format_bytes(TEST_EVERY * BLOCK_BYTES)}",
        )
    if not arguments.zodb_uri:
        raise ParameterError(
            "no database is named",
            "give --zodb-uri neo://CLUSTER@HOST:PORT or set WENDELIN_ZODB_URI",
        )
    arguments.plan = Plan(blocks, arguments.epochs, min(8, -(-blocks // 8)), arguments.seed)
    return arguments


def main(options: Sequence[str] | None = None) -> int:
    """Run the example and return the exit status."""
    try:
        arguments = parse(options)
        progress = Progress(sys.stderr if arguments.json else sys.stdout)
        if arguments.erase:
            erase(arguments)
        processes = 0 if arguments.zodb_uri.startswith("file:") else 2
        with Workers(
            arguments.scheduler or None, count=processes, memory_limit=arguments.memory_limit
        ) as workers:
            result = Example(arguments, workers, progress).run()
        show(result, progress)
        if arguments.json:
            print(json.dumps(result, indent=2))
    except WendelinError as error:
        print(f"digits: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"        {error.remedy}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("digits: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        client.close_databases()
    return 0


if __name__ == "__main__":
    sys.exit(main())
