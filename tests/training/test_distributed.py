"""Ranks: they share each batch without losing or doubling a row, stay equal bit for bit, and end together."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fashion.config.compose import compose
from fashion.config.schema import ConfigError
from fashion.config.train import AugmentationConfig, TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.storage.address import open_store
from fashion.training import launcher, nodes, recipe
from fashion.training.batches import Batches
from fashion.training.checkpoint import CHECKPOINT
from fashion.training.distributed import weights_digest
from fashion.training.divergence import Diverged
from fashion.training.ranks import Rank, RankLost, Ranks

ROWS, BATCH, EPOCHS = 300, 50, 2
STEPS = ROWS // BATCH
WORDS = [
    *("architecture.kwargs.widths=[8,16]", "architecture.drop_rate=0.2", f"training.num_epochs={EPOCHS}"),
    *(f"training.batch_size={BATCH}", "training.ema_decay=0.9", "augmentation.erase_probability=0.5"),
    "training.min_steps=0",
]
LONG = 300.0
"""Seconds: a busy machine takes its time to start processes."""
has_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def configured(*words: str) -> TrainConfig:
    return load_train_config(compose([*WORDS, *words]))


@pytest.fixture(scope="module")
def data(small_dataset: Dataset) -> Dataset:
    train, val = small_dataset.train, small_dataset.val
    return dataclasses.replace(
        small_dataset,
        train=Split(train.images[:ROWS], train.labels[:ROWS]),
        val=Split(val.images[:201], val.labels[:201]),  # no multiple of the ranks
    )


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[None]:
    """Ranks that are started see no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


def all_ranks(num_nodes: int, per_node: int) -> list[Rank]:
    return [Rank(Ranks(num_nodes, per_node, node), local) for node in range(num_nodes) for local in range(per_node)]


def worker_ids() -> list[int]:
    """Processes of ranks that this one has started, in the order of their ranks."""
    children = psutil.Process().children()
    return sorted(each.pid for each in children if "fashion.training.worker" in " ".join(each.cmdline()))


class TestShares:
    @given(st.integers(0, 200), st.integers(1, 5), st.integers(1, 4))
    def test_each_row_is_in_one_share(self, rows: int, num_nodes: int, per_node: int) -> None:
        shares = [list(range(rows))[rank.rows] for rank in all_ranks(num_nodes, per_node)]
        assert sorted(row for share in shares for row in share) == list(range(rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 15), st.integers(1, 4), st.booleans(), st.booleans())
    def test_ranks_see_what_one_alone_would_see(
        self, rows: int, batch_size: int, world_size: int, drop_last: bool, shuffle: bool
    ) -> None:
        images = torch.arange(rows * 16, dtype=torch.int64).remainder(251).to(torch.uint8).view(rows, 1, 4, 4)
        augmentation = AugmentationConfig(1, "random", 0.5, (0.1, 0.5), distort_share=0.5)

        def batches(share: slice) -> Batches:
            return Batches(
                images, torch.arange(rows), batch_size=batch_size, mean=[0.5], std=[0.5], augmentation=augmentation,
                seed=3, drop_last=drop_last, shuffle=shuffle, rows=share,
            )  # fmt: skip

        alone, ranks = batches(slice(None)), all_ranks(1, world_size)
        shared = [batches(rank.rows) for rank in ranks]
        for _ in range(2):  # epochs
            for whole, *parts in zip(alone, *shared, strict=True):
                for rank, part in zip(ranks, parts, strict=True):
                    torch.testing.assert_close(part[0], whole[0][rank.rows])
                    assert torch.equal(part[1], whole[1][rank.rows])
                assert sum(len(labels) for _, labels in parts) == len(whole[1])

    def test_a_batch_too_small_to_be_shared_is_refused(self, data: Dataset) -> None:
        with pytest.raises(ConfigError, match=r"a batch of 5 images .* too small for 3 ranks.*use a larger batch"):
            launcher.train(configured("training.batch_size=5"), data, ranks=Ranks(per_node=3))

    def test_impossible_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 node and 1 rank, got 1 and 0"):
            Ranks(per_node=0)
        with pytest.raises(ValueError, match=r"node must be in \[0, 2\), got 2"):
            Ranks(num_nodes=2, node=2)


class TestNodes:
    def test_nodes_meet_and_agree_on_a_port(self) -> None:
        first, second = self.met()
        assert first.store_port == second.store_port
        assert first.store is not None
        assert second.store is None
        first.end()
        second.end()

    @pytest.mark.fault("training node that fails")
    def test_a_node_learns_why_another_failed(self) -> None:
        first, second = self.met()
        second.end("the disk is full")
        assert self.heard(first) == "the disk is full"
        first.end()

    def test_a_node_learns_that_another_is_gone(self) -> None:
        first, second = self.met()
        second.links[0].close()
        assert self.heard(first) == "node 1 ended"
        first.end()

    def test_a_node_that_finished_is_no_failure(self) -> None:
        first, second = self.met()
        second.end()
        assert first.links[1].poll(10)
        assert first.failure([first.links[1]]) is None
        first.end()

    def test_waiting_for_a_node_that_does_not_come_ends(self) -> None:
        with pytest.raises(RankLost, match=r"of 2 nodes only 0 started within 0.3 seconds.*rank_timeout_minutes"):
            nodes.meet(Ranks(num_nodes=2, timeout_seconds=0.3))
        with pytest.raises(RankLost, match="node 0 did not answer at 127.0.0.1:1 within 0.3 seconds"):
            nodes.meet(Ranks(num_nodes=2, node=1, port=1, timeout_seconds=0.3))

    def test_waiting_ends_at_once_if_a_node_is_known_to_have_ended(self) -> None:
        with pytest.raises(RankLost, match="node 1 ended with exit code 1"):
            nodes.meet(Ranks(num_nodes=2, timeout_seconds=LONG), check=lambda: "node 1 ended with exit code 1")

    def met(self) -> tuple[nodes.Nodes, nodes.Nodes]:
        port = free_port()
        found: list[nodes.Nodes] = []
        other = threading.Thread(target=lambda: found.append(nodes.meet(Ranks(num_nodes=2, node=1, port=port))))
        other.start()
        first = nodes.meet(Ranks(num_nodes=2, port=port))
        other.join()
        return first, found[0]

    def heard(self, node: nodes.Nodes) -> str | None:
        (link,) = node.links.values()
        assert link.poll(10)
        return node.failure([link])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def uninterrupted(data: Dataset, on_cpu: None) -> tuple[Any, Any]:
    """A training by two ranks."""
    trained = launcher.train(configured(), data, ranks=Ranks(per_node=2, timeout_seconds=LONG))
    assert trained is not None
    return trained


@pytest.fixture
def store(data: Dataset, on_cpu: None, tmp_path: Path) -> str:
    """Checkpoints of a training by two ranks, of which one was killed in the second epoch."""

    def on_step(done: int, total: int, loss: float) -> None:
        if done == STEPS + 2:
            os.kill(worker_ids()[1], signal.SIGKILL)

    with pytest.raises(RankLost, match=r"rank 1 of 2 was killed by signal 9 \(SIGKILL\)"):
        launcher.train(
            configured(), data, ranks=Ranks(per_node=2, timeout_seconds=LONG), checkpoints=str(tmp_path),
            on_step=on_step,
        )  # fmt: skip
    assert worker_ids() == []
    return str(tmp_path)


@pytest.mark.slow
class TestTraining:
    def test_ranks_report_as_one(self, uninterrupted: tuple[Any, Any]) -> None:
        _, result = uninterrupted
        assert result.world_size == 2
        assert [epoch.epoch for epoch in result.history] == [1, 2]
        counts = [epoch.val_accuracy * 201 for epoch in result.history]  # all rows of the split, each once
        assert counts == pytest.approx([round(count) for count in counts], abs=1e-3)

    def test_reported_scores_are_those_of_the_model(self, uninterrupted: tuple[Any, Any], data: Dataset) -> None:
        from fashion.images.transform import normalise

        model, result = uninterrupted
        with torch.inference_mode():
            logits = model.eval()(torch.from_numpy(normalise(data.val.images, data.mean, data.std)))
        right = (logits.argmax(1) == torch.from_numpy(data.val.labels)).float().mean().item()
        assert result.best.val_accuracy == pytest.approx(right, abs=2 / 201)  # trained in bfloat16 where there is any

    def test_two_machines_of_two_ranks_compute_what_one_rank_does(self, data: Dataset, on_cpu: None) -> None:
        # Without batch norm and dropout only the order of sums differs; 50 images are 13 + 13 + 12 + 12.
        config = load_train_config(
            compose(
                [
                    *("architecture=visiontransformer", "architecture.kwargs.depth=2", "architecture.drop_rate=0"),
                    *("architecture.kwargs.embed_dim=32", "architecture.drop_path_rate=0", "optimizer=sgd"),
                    *("architecture.precision=32-true", f"training.batch_size={BATCH}", "training.num_epochs=2"),
                ]
            )
        )
        port, found = free_port(), []

        def train(node: int) -> None:
            ranks = Ranks(num_nodes=2, per_node=2, node=node, port=port, timeout_seconds=LONG)
            found.append(launcher.train(config, data, ranks=ranks))

        other = threading.Thread(target=train, args=(1,))
        other.start()
        train(0)
        other.join()
        (model, result), nothing = sorted(found, key=lambda each: each is None)  # type: ignore[misc]
        assert nothing is None
        expected, alone = recipe.train(config, data)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(result.history, alone.history, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
            assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-3)

    @pytest.mark.fault("kill -9 of a rank")
    def test_a_killed_and_resumed_training_equals_an_uninterrupted_one(
        self, store: str, uninterrupted: tuple[Any, Any], data: Dataset
    ) -> None:
        restored: list[int] = []
        trained = launcher.train(
            configured(), data, ranks=Ranks(per_node=2, timeout_seconds=LONG), checkpoints=store,
            on_restored=lambda history: restored.append(len(history)),
        )  # fmt: skip
        assert trained is not None
        assert restored == [1]
        assert weights_digest(trained[0]) == weights_digest(uninterrupted[0])
        histories = [[dataclasses.replace(epoch, cpu_seconds=0) for epoch in each.history] for each in
                     (trained[1], uninterrupted[1])]  # fmt: skip
        assert histories[0] == histories[1]
        # With another number of ranks it goes on from there too.
        _, result = recipe.train(configured("training.num_epochs=3"), data, checkpoints=open_store(store))
        assert [epoch.epoch for epoch in result.history] == [1, 2, 3]
        assert result.history[:2] == trained[1].history
        assert result.history[2].train_loss < result.history[0].train_loss


@pytest.mark.slow
class TestEnds:
    @pytest.mark.fault("training rank that hangs")
    def test_a_rank_that_hangs_ends_the_training(self, data: Dataset, on_cpu: None) -> None:
        def on_step(done: int, total: int, loss: float) -> None:
            if done == 2:
                os.kill(worker_ids()[1], signal.SIGSTOP)

        with pytest.raises(RankLost, match=r"rank 0 of 2 waited 30 seconds for another one, which hangs"):
            launcher.train(configured(), data, ranks=Ranks(per_node=2, timeout_seconds=30), on_step=on_step)
        assert worker_ids() == []

    def test_divergence_ends_all_ranks_alike(self, data: Dataset, on_cpu: None) -> None:
        config = configured("optimizer=sgd", "optimizer.learning_rate=1e30", "training.num_epochs=1")
        with pytest.raises(Diverged, match=r"not a finite number.*lower optimizer.learning_rate"):
            launcher.train(config, data, ranks=Ranks(per_node=2, timeout_seconds=LONG))
        assert worker_ids() == []

    def test_an_epoch_that_its_callback_refused_ends_all_ranks_and_is_not_stored(
        self, data: Dataset, on_cpu: None, tmp_path: Path
    ) -> None:
        def stop(*_: object) -> None:
            assert len(worker_ids()) == 2
            raise KeyboardInterrupt

        ranks = Ranks(per_node=2, timeout_seconds=LONG)
        with pytest.raises(KeyboardInterrupt):
            launcher.train(configured(), data, ranks=ranks, checkpoints=str(tmp_path), on_epoch=stop)
        assert worker_ids() == []
        assert not open_store(str(tmp_path)).exists(CHECKPOINT)

    @pytest.mark.fault("kill -9 of the launcher")
    def test_ranks_end_with_their_launcher(self, on_cpu: None) -> None:
        code = (
            "from fashion.config.compose import compose; from fashion.config.train import load_train_config\n"
            "from fashion.data.loading import load_dataset; from fashion.home import REPOSITORY\n"
            "from fashion.training import launcher; from fashion.training.ranks import Ranks\n"
            "config = load_train_config(compose(['data.limit=300', 'training.num_epochs=100000']))\n"
            "data = load_dataset(config.data, REPOSITORY / 'var' / 'data')\n"
            "launcher.train(config, data, ranks=Ranks(per_node=2), on_step=lambda *step: print(*step, flush=True))\n"
        )
        launching = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert launching.stdout is not None
        assert launching.stdout.readline()  # the first step
        ranks = psutil.Process(launching.pid).children()
        assert len(ranks) == 2
        launching.kill()
        launching.communicate()
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert launcher.ranks_per_node(dataclasses.replace(load_train_config(compose()).resources, gpu=2)) == 1
    assert f"resources.gpu=2, but torch {torch.__version__} finds no GPU here: training takes the CPU" in caplog.text


@has_gpus
class TestGpus:
    def test_each_gpu_is_a_rank(self) -> None:
        resources = dataclasses.replace(load_train_config(compose()).resources, gpu=2)
        assert launcher.ranks_per_node(resources) == 2
        too_many = dataclasses.replace(resources, gpu=torch.cuda.device_count() + 1)
        with pytest.raises(ConfigError, match=r"resources.gpu=\d+, but this machine has \d+"):
            launcher.ranks_per_node(too_many)

    def test_batch_norm_over_all_ranks_is_that_of_one(self, data: Dataset) -> None:
        config = configured("architecture.drop_rate=0", "architecture.precision=32-true")
        shared = launcher.train(config, data, ranks=Ranks(per_node=2, timeout_seconds=LONG))
        alone = launcher.train(config, data)
        assert shared is not None
        assert alone is not None
        assert shared[1].device.startswith("cuda")
        for ours, theirs in zip(shared[1].history, alone[1].history, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-2)
