"""Training: reproducible, resumable after a kill, stopped where it is hopeless, and left with its best weights."""

import contextlib
import copy
import dataclasses
import io
import math
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.stores import KINDS, Clouds
from torch import Tensor, nn

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data import dataset
from fashion.data.dataset import Dataset, Split
from fashion.home import REPOSITORY
from fashion.images.transform import normalise
from fashion.storage.address import open_store
from fashion.training import divergence, fit, models, recipe
from fashion.training.checkpoint import CHECKPOINT, DAMAGED
from fashion.training.divergence import Diverged
from fashion.training.state import Epoch

ROWS, BATCH, EPOCHS = 300, 50, 3
STEPS = ROWS // BATCH
# Every source of randomness at once: order, crops, flips, erasing, dropout; and an average of weights beside them.
WORDS = [
    *("architecture.drop_rate=0.2", f"training.num_epochs={EPOCHS}", f"training.batch_size={BATCH}"),
    *("training.ema_decay=0.9", "augmentation.erase_probability=0.5", "training.min_steps=0"),
    "augmentation.distort_share=0.3",
]
SMALL = "architecture.kwargs.widths=[8,16]"


def configured(*words: str, network: tuple[str, ...] = (SMALL,)) -> TrainConfig:
    return load_train_config(compose([*WORDS, *network, *words]))


def sliced(data: Dataset, rows: int = ROWS) -> Dataset:
    return dataclasses.replace(
        data,
        train=Split(data.train.images[:rows], data.train.labels[:rows]),
        val=Split(data.val.images[:200], data.val.labels[:200]),
    )


@pytest.fixture(scope="module")
def data(small_dataset: Dataset) -> Dataset:
    return sliced(small_dataset)


def one_bit_flipped_in_a_tensor(checkpoint: bytes) -> bytes:
    """The same bytes but one, of the largest tensor."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        position = checkpoint.index(archive.read(largest)) + largest.file_size // 2
    return checkpoint[:position] + bytes([checkpoint[position] ^ 1]) + checkpoint[position + 1 :]


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different


def without_time(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, cpu_seconds=0.0) for epoch in history]


def train_in_process_of_its_own(checkpoints: str, weights: str, die_at: int) -> None:
    """What the subprocess below runs: kill -9 after `die_at` steps, 0 for never."""

    def on_step(done: int, total: int, loss: float) -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    data = load_train_config(compose(["data.limit=1000"])).data
    loaded = sliced(dataset.load(data, REPOSITORY / "var" / "data"))
    model, _ = recipe.train(configured(), loaded, checkpoints=open_store(checkpoints), on_step=on_step)
    torch.save(model.state_dict(), weights)


def run_process(checkpoints: Path, weights: Path, die_at: int = 0) -> int:
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # of this file, and of its `support`
    code = f"import sys; sys.path[:0] = {folders}; import test_fit as t; "
    code += f"t.train_in_process_of_its_own({str(checkpoints)!r}, {str(weights)!r}, {die_at})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


class TestReproducible:
    def test_equal_seeds_are_bit_identical_and_others_are_not(self, data: Dataset) -> None:
        (first, one), (second, two) = (recipe.train(configured(), data) for _ in range(2))
        assert_same_weights(first.state_dict(), second.state_dict())
        assert without_time(one.history) == without_time(two.history)
        other, _ = recipe.train(configured("training.seed=1"), data)
        assert not torch.equal(first.head.weight, other.head.weight)  # type: ignore[union-attr, arg-type]

    def test_what_was_drawn_before_does_not_matter(self, data: Dataset) -> None:
        first, _ = recipe.train(configured("training.num_epochs=1"), data)
        torch.randn(17)
        second, _ = recipe.train(configured("training.num_epochs=1"), data)
        assert_same_weights(first.state_dict(), second.state_dict())


class TestResume:
    @pytest.mark.fault("kill -9 of a training, twice")
    @pytest.mark.slow
    def test_training_killed_twice_equals_an_uninterrupted_one(self, data: Dataset, tmp_path: Path) -> None:
        store, weights = tmp_path / "checkpoints", tmp_path / "weights.pt"
        for die_at in (STEPS + 2, 2 * STEPS + 3):  # in the second epoch, then in the third
            assert run_process(store, weights, die_at) == -signal.SIGKILL
            assert not weights.exists()
            assert [path.name for path in store.iterdir()] == [CHECKPOINT]
        assert run_process(store, weights) == 0
        model, _ = recipe.train(configured(), data)
        assert_same_weights(torch.load(weights, weights_only=True), model.state_dict())

    @pytest.mark.parametrize(
        "network",
        [
            ("architecture=visiontransformer", "architecture.kwargs.depth=2", "architecture.kwargs.embed_dim=32"),
            ("architecture=vgg", "architecture.kwargs={cfg: [8, M, 16, M], head_width: 16}", "training.ema_decay=null"),
        ],
        ids=["transformer", "sgd"],
    )
    @pytest.mark.parametrize("stop_at", [2, STEPS, 3 * STEPS - 1])
    @pytest.mark.slow
    def test_training_stopped_anywhere_equals_an_uninterrupted_one(
        self, network: tuple[str, ...], stop_at: int, data: Dataset, tmp_path: Path
    ) -> None:
        settings = configured(network=network)

        def on_step(done: int, total: int, loss: float) -> None:
            assert total == EPOCHS * STEPS
            if done == stop_at:
                raise KeyboardInterrupt

        store = open_store(str(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            recipe.train(settings, data, checkpoints=store, on_step=on_step)
        heard: list[int] = []
        model, result = recipe.train(
            settings, data, checkpoints=store, on_epoch=lambda epoch, _: heard.append(epoch.epoch)
        )
        expected, uninterrupted = recipe.train(settings, data)
        assert_same_weights(model.state_dict(), expected.state_dict())
        assert without_time(result.history) == without_time(uninterrupted.history)
        assert heard == list(range((stop_at - 1) // STEPS + 1, EPOCHS + 1))
        seconds = [epoch.cpu_seconds for epoch in result.history]
        assert seconds == sorted(seconds)

    @pytest.mark.parametrize("kind", KINDS)
    def test_training_resumes_from_a_bucket(
        self, kind: str, data: Dataset, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def on_step(done: int, total: int, loss: float) -> None:
            if done == STEPS + 2:
                raise KeyboardInterrupt

        address = f"{clouds.bucket(kind, monkeypatch)}/checkpoints/TrainFlow/1"
        with pytest.raises(KeyboardInterrupt):
            recipe.train(configured(), data, checkpoints=open_store(address), on_step=on_step)
        heard: list[int] = []
        model, _ = recipe.train(
            configured(), data, checkpoints=open_store(address), on_epoch=lambda epoch, _: heard.append(epoch.epoch)
        )
        assert heard == list(range(2, EPOCHS + 1))
        assert_same_weights(model.state_dict(), recipe.train(configured(), data)[0].state_dict())

    def test_finished_training_is_not_repeated(self, data: Dataset, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        model, result = recipe.train(configured(), data, checkpoints=store)

        def refuse(*_: object) -> None:
            raise AssertionError("trained again")

        again, found = recipe.train(configured(), data, checkpoints=store, on_step=refuse, on_epoch=refuse)
        assert_same_weights(again.state_dict(), model.state_dict())
        assert found.history == result.history
        assert found.best == result.best

    @pytest.mark.fault("a damaged checkpoint")
    @pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "older", "bit"])
    def test_a_damaged_checkpoint_is_put_aside_and_training_starts_anew(
        self, damage: str, data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store, short = open_store(str(tmp_path)), configured("training.num_epochs=1")
        expected, _ = recipe.train(short, data, checkpoints=store)
        content = store.get(CHECKPOINT)
        older = io.BytesIO()
        torch.save({"model": {}}, older)
        damaged = {"cut": content[: len(content) // 2], "garbage": b"x" * 99, "empty": b"", "older": older.getvalue()}
        damaged["bit"] = one_bit_flipped_in_a_tensor(content)
        store.put(CHECKPOINT, damaged[damage])
        epochs: list[int] = []
        model, _ = recipe.train(short, data, checkpoints=store, on_epoch=lambda epoch, _: epochs.append(epoch.epoch))
        assert epochs == [1]
        assert_same_weights(model.state_dict(), expected.state_dict())
        assert store.get(DAMAGED) == damaged[damage]
        (sentence,) = caplog.messages
        assert sentence.startswith(f"the checkpoint {tmp_path}/{CHECKPOINT} cannot be used (")
        caplog.clear()
        recipe.train(short, data, checkpoints=store)  # the new one is sound
        assert caplog.messages == []

    def test_an_epoch_that_its_callback_refused_is_not_stored(self, data: Dataset, tmp_path: Path) -> None:
        def stop(epoch: Epoch, _: nn.Module) -> None:
            raise KeyboardInterrupt

        store = open_store(str(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            recipe.train(configured(), data, checkpoints=store, on_epoch=stop)
        assert not store.exists(CHECKPOINT)


class TestDiverged:
    def test_absurd_learning_rate_ends_early_with_a_sentence_that_names_it(self, data: Dataset) -> None:
        steps: list[int] = []
        settings = configured("optimizer=sgd", "optimizer.learning_rate=1e4", "training.num_epochs=20")
        with pytest.raises(Diverged, match=r"loss .* lower optimizer.learning_rate, now 10000") as caught:
            recipe.train(settings, data, on_step=lambda done, total, loss: steps.append(done))
        assert "\n" not in str(caught.value)
        assert len(steps) <= 2 * divergence.CHANCE_STEPS

    def test_short_training_is_caught_at_the_end_of_its_epoch(self, data: Dataset) -> None:
        settings = configured("optimizer=sgd", "optimizer.learning_rate=1e30", "training.num_epochs=1")
        with pytest.raises(Diverged, match="not a finite number"):
            recipe.train(settings, data)

    @pytest.mark.fault("weights that are not finite after the last step of an epoch")
    def test_an_update_that_breaks_the_weights_is_caught_though_every_loss_was_finite(self, data: Dataset) -> None:
        words = [
            "optimizer=sgd",
            "optimizer.learning_rate=1e30",
            "training.num_epochs=3",
            f"training.batch_size={ROWS}",
        ]
        with pytest.raises(Diverged, match="after 1 steps .*not a finite number"):
            recipe.train(configured(*words, "training.gradient_clip_norm=null"), data)

    def test_a_network_that_learns_nothing_is_stopped_half_way(self, data: Dataset) -> None:
        steps: list[int] = []
        settings = configured("optimizer=sgd", "optimizer.learning_rate=1e-9", "training.num_epochs=20")
        with pytest.raises(Diverged, match=r"guessing has 2\.303"):
            recipe.train(settings, data, on_step=lambda done, total, loss: steps.append(done))
        assert len(steps) <= 20 * STEPS // 2

    @pytest.mark.parametrize(("rate", "diverges"), [("20", True), ("0.01", False)])
    def test_a_training_that_ends_before_the_first_look_is_looked_at_then(
        self, data: Dataset, rate: str, diverges: bool
    ) -> None:
        words = ["optimizer=sgd", f"optimizer.learning_rate={rate}", "optimizer.warmup_fraction=0.5"]
        settings = configured(*words, "training.num_epochs=4", "training.gradient_clip_norm=null")
        with pytest.raises(Diverged, match=r"after 24 steps \(guessing has") if diverges else contextlib.nullcontext():
            recipe.train(settings, data)

    def test_a_slow_start_that_falls_goes_on(self, data: Dataset) -> None:
        words = ["optimizer=sgd", "optimizer.learning_rate=0.03", "training.num_epochs=12", "training.ema_decay=null"]
        words += ["architecture.drop_rate=0", "augmentation.distort_share=0"]
        settings, losses = configured(*words), list[float]()
        model = recipe.build(settings)
        with torch.no_grad():  # a first loss far above guessing, as of a network with many layers
            model.get_classifier().weight.mul_(10)
        fit.fit(model, data, settings, on_step=lambda done, total, loss: losses.append(loss))
        first_look = losses[divergence.CHANCE_STEPS - 5 : divergence.CHANCE_STEPS]
        assert np.mean(first_look) > math.log(10)
        assert len(losses) == 12 * STEPS

    def test_usual_values_do_not_diverge(self, data: Dataset) -> None:
        recipe.train(configured("training.num_epochs=5", "training.patience_to_diverge=0.1"), data)


class TestWeights:
    def test_the_average_is_what_is_evaluated_and_kept(self, data: Dataset) -> None:
        seen: list[dict[str, Tensor]] = []
        averaged, result = recipe.train(
            configured(), data, on_epoch=lambda _, model: seen.append(copy.deepcopy(model.state_dict()))
        )
        _, plain = recipe.train(configured("training.ema_decay=null"), data)
        # The average takes no part in training, and gives other weights than training's own.
        assert [epoch.train_loss for epoch in result.history] == [epoch.train_loss for epoch in plain.history]
        assert [epoch.val_loss for epoch in result.history] != [epoch.val_loss for epoch in plain.history]
        assert_same_weights(averaged.state_dict(), seen[result.best.epoch - 1])

    def test_the_average_is_exponential(self, data: Dataset) -> None:
        def train(decay: str) -> tuple[list[Tensor], Tensor]:
            settings = configured("architecture.drop_rate=0", "training.num_epochs=1", f"training.ema_decay={decay}")
            weights: list[Tensor] = []
            torch.manual_seed(0)
            model = models.build(settings.architecture, channels=1, size=28, num_classes=10)
            head: Tensor = model.head.weight  # type: ignore[union-attr, assignment]
            fit.fit(model, data, settings, on_step=lambda done, total, loss: weights.append(head.detach().clone()))
            return weights, head.detach()

        weights, average = train("0.5")
        expected = weights[0]  # the first step starts the average
        for weight in weights[1:]:
            expected = 0.5 * expected + 0.5 * weight
        torch.testing.assert_close(average, expected)

    def test_the_best_epoch_is_kept_though_later_ones_are_worse(self, data: Dataset) -> None:
        # Labels that are always wrong: the more is learnt, the fewer are met.
        wrong = dataclasses.replace(data, val=Split(data.val.images, (data.val.labels + 1) % 10))
        settings = configured("training.ema_decay=null", "training.num_epochs=6")
        seen: list[dict[str, Tensor]] = []
        model, result = recipe.train(
            settings, wrong, on_epoch=lambda _, model: seen.append(copy.deepcopy(model.state_dict()))
        )
        accuracies = [epoch.val_accuracy for epoch in result.history]
        best = max(range(6), key=lambda index: (accuracies[index], index))
        assert accuracies[best] > accuracies[-1]
        assert result.best == result.history[best]
        assert_same_weights(model.state_dict(), seen[best])

    def test_reported_scores_are_those_of_the_model(self, data: Dataset) -> None:
        model, result = recipe.train(configured("architecture.precision=32-true"), data)
        model.eval()
        inputs = torch.from_numpy(normalise(data.val.images, data.mean, data.std))
        labels = torch.from_numpy(data.val.labels)
        with torch.inference_mode():
            logits = model(inputs)
        assert result.best.val_accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert result.best.val_loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
        assert result.device == "cpu" or torch.cuda.is_available()
        assert next(model.parameters()).device.type == "cpu"

    def test_it_learns_real_clothes(self, small_dataset: Dataset) -> None:
        settings = configured(
            "architecture.kwargs.widths=[16,32]", "training.ema_decay=null", "training.num_epochs=6",
            "augmentation.erase_probability=0", "architecture.drop_rate=0",
        )  # fmt: skip
        _, result = recipe.train(settings, small_dataset)
        assert result.best.val_accuracy > 0.75
        assert result.history[-1].train_loss < result.history[0].train_loss
        rates = [epoch.learning_rate for epoch in result.history]
        assert rates == sorted(rates, reverse=True)

    def test_more_classes_of_colour_are_a_matter_of_the_data(self) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(60) % 3
        images = rng.integers(0, 80, (60, 16, 16, 3), dtype=np.uint8)
        images[np.arange(60), :, :, labels] += 150  # a class is a colour
        split = Split(images, labels)
        data = Dataset("colours", "0" * 64, ("red", "green", "blue"), split, split, split, (0.4,) * 3, (0.3,) * 3)
        words = ["training.batch_size=20", "training.num_epochs=12", "training.ema_decay=null"]
        settings = configured("data.class_names=[red,green,blue]", "data.channels=3", "data.size=16", *words)
        model, result = recipe.train(settings, data)
        assert result.best.val_accuracy > 0.9
        assert model.head.weight.shape == (3, 16)  # type: ignore[union-attr]


class TestSettings:
    def test_gradient_clipping_takes_effect(self, data: Dataset) -> None:
        def moved(*words: str) -> float:
            plain = ["optimizer=sgd", "optimizer.weight_decay=0", "optimizer.momentum=0", "training.ema_decay=null"]
            settings = configured("training.num_epochs=1", *plain, *words)
            torch.manual_seed(settings.training.seed)
            start = models.build(settings.architecture, channels=1, size=28, num_classes=10)
            model, _ = recipe.train(settings, data)
            pairs = zip(start.parameters(), model.parameters(), strict=True)
            return math.sqrt(sum((a - b).detach().square().sum().item() for a, b in pairs if b.requires_grad))

        limit = 1e-3
        # Each of STEPS steps moves by at most the learning rate times the norm.
        assert 0 < moved(f"training.gradient_clip_norm={limit}") <= 0.1 * limit * STEPS * 1.01
        assert moved("training.gradient_clip_norm=null") > 0.1 * limit * STEPS * 10

    def test_label_smoothing_counts_in_training_alone(self, data: Dataset) -> None:
        words = ["training.num_epochs=6", "architecture.drop_rate=0", "augmentation.erase_probability=0"]
        _, smooth = recipe.train(configured(*words, "training.label_smoothing=0.9"), data)
        _, sharp = recipe.train(configured(*words, "training.label_smoothing=0"), data)
        # Targets of 0.91 and 0.01 have an entropy of 2.2: their loss cannot fall below it.
        assert smooth.history[-1].train_loss > 2.2 > sharp.history[-1].train_loss

    def test_batches_larger_than_the_data_are_the_data(self, data: Dataset) -> None:
        totals: list[int] = []
        settings = configured("training.batch_size=100000", "training.num_epochs=2")
        recipe.train(settings, data, on_step=lambda done, total, loss: totals.append(total))
        assert totals == [2, 2]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="is about CPUs")
    def test_precision_falls_back_where_the_processor_has_no_bfloat16(
        self, data: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert fit.supported_precision("32-true") == "32-true"
        with contextlib.suppress(FileNotFoundError):
            has_bf16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
            assert fit.supported_precision("bf16-mixed") == ("bf16-mixed" if has_bf16 else "32-true")
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        _, result = recipe.train(configured("training.num_epochs=1"), data)
        assert result.precision == "32-true"
        assert result.num_threads == 1


@pytest.mark.skipif(not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc's")
@pytest.mark.slow
def test_freed_memory_is_used_again() -> None:
    code = (
        "import resource, torch; from fashion.images import malloc\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for keep in (False, True):\n"
        "    if keep: malloc.keep_freed_memory()\n"
        "    use = lambda: [torch.ones(2_500_000) for _ in range(5)]\n"
        "    use(); before = faults()\n"
        "    for _ in range(10): use()\n"
        "    print(faults() - before)\n"
    )
    fixed = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # else glibc learns, or not
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **fixed}
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 100_000  # each use touches 50 MB, 12,000 pages
    assert kept < given_back / 5
