"""Train ``mini``: one encoding, several objects, several rounds of clicks.

Each stage goes on from the last checkpoint in the output folder, with all its steps and with the learning
rate moving linearly from ``lr_start`` to ``lr_end``; a stage that was interrupted is begun again with the
steps that are left. Under ``torchrun`` the processes share each batch and average their gradients: on
few cores, processes of one thread each are faster than one process of as many threads. See README.md in this
folder for the stages that made the shipped weights.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from experiments.train_mini.data import PADDING, PhotoPool, TrainingScenes
from ppd_env.allocator import keep_freed_memory
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.network import MiniNetwork
from ppd_env.segmenters.mini.segmenter import load_weights


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Args:
        out: Folder for checkpoints, weights and the log.
        name: Name of the stage in the log.
        steps: Optimiser steps of this stage.
        side: Side of the training images in pixels, a multiple of 32.
        lr_start: Learning rate at the first step, after a warm-up of 100 steps in a first stage.
        lr_end: Learning rate at the last step.
        shares: How often images are shapes, composites, regions and objects (``data.SOURCES``).
        batch: Images per step.
        seed: Seed of weights and data.
        workers: Processes that draw images.
        ema: Decay of the averaged weights that are saved.
        init: Weights (``mini.safetensors``) to begin a first stage from; random ones where None.
        max_minutes: Stop early, as if the stage ended, when this much time has passed; 0 for never.
    """

    out: Path
    name: str
    steps: int
    side: int = 256
    lr_start: float = 1e-3
    lr_end: float = 1e-3
    shares: tuple[float, float, float, float] = (0.42, 0.28, 0.2, 0.1)
    batch: int = 12
    seed: int = 0
    workers: int = 1
    ema: float = 0.998
    init: Path | None = None
    max_minutes: float = 0.0


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus Dice loss.

    Args:
        logits: (M, m, L, L) float32.
        target: (M, 1, L, L) float32 in [0, 1].

    Returns:
        (M, m) float32.
    """
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(-2, -1))
    shown = logits.sigmoid()
    overlap = 2 * (shown * target).sum(dim=(-2, -1)) + 1
    return 2 * entropy + 1 - overlap / (shown.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded logits (M, m, L, L) with targets (M, 1, L, L); (M, m) float32."""
    shown, wanted = logits > 0, target >= 0.5
    union = (shown | wanted).sum(dim=(-2, -1)).clamp(min=1)
    return (shown & wanted).sum(dim=(-2, -1)) / union


def corrective_clicks(logits: Tensor, target: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose clicks inside the regions where a mask is wrong.

    Args:
        logits: (M, 1, L, L) float32.
        target: (M, 1, L, L) float32.
        valid: (M, 1, L, L) bool.
        count: Clicks per mask.

    Returns:
        points (M, count, 2) float32 in the unit square, labels (M, count) int64, -1 where nothing is wrong.
    """
    wanted = target >= 0.5
    wrong = ((logits > 0) != wanted) & valid
    depth = F.avg_pool2d(F.avg_pool2d(wrong.float(), 3, 1, 1), 3, 1, 1) + 0.05
    score = (wrong * depth * (0.3 + torch.rand_like(depth))).flatten(1)
    best, cell = score.topk(count, dim=1)
    side = logits.shape[-1]
    offset = torch.rand(len(cell), count, 2)
    points = (torch.stack([cell % side, cell // side], dim=-1) + offset) / side
    labels = wanted.flatten(1).gather(1, cell).long()
    return points, torch.where(best > 0, labels, -1)


def grouping_loss(tokens: Tensor, masks: Tensor, anchors: int = 4) -> Tensor:
    """Ask that cells of one object point the same way in feature space and others elsewhere.

    For random cells inside each object, the cosine to every other cell, both seen from the image's mean, is
    read as the logit of belonging to it.

    Args:
        tokens: (B, cells, d) float32, the embedding.
        masks: (B, K, h, w) uint8.
        anchors: Cells drawn per object.

    Returns:
        Scalar; inside and outside cells count the same.
    """
    side = math.isqrt(tokens.shape[1])
    share = _shrink(masks == 1, side).flatten(1)
    shown = _shrink(masks != PADDING, side).flatten(1) > 0.5
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    unit = F.normalize(centred, dim=-1).repeat_interleave(masks.shape[1], dim=0)
    drawn = torch.multinomial((share + 1e-6) ** 2, anchors)
    cosine = unit.gather(1, drawn[..., None].expand(-1, -1, unit.shape[-1])) @ unit.transpose(1, 2)
    target = share[:, None].expand_as(cosine)
    loss = F.binary_cross_entropy_with_logits(6 * (cosine - 0.25), target, reduction="none")
    inside, outside = share * shown, (1 - share) * shown
    shares = [part / part.sum(1, keepdim=True).clamp(min=1) for part in (inside, outside)]
    weight = shares[0] + shares[1]
    return (loss * weight[:, None]).sum(dim=-1).mean() / 2


def step_loss(network: MiniNetwork, sample: list[Tensor], side: int) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch of images: all prompt sets, then corrected first clicks once more."""
    images, masks, points, labels, clicks = sample
    pixels = images.permute(0, 3, 1, 2).float()
    if side != pixels.shape[-1]:
        pixels = F.interpolate(pixels, size=(side, side), mode="area")
    target = _shrink(masks == 1, side // 4)
    valid = _shrink(masks != PADDING, side // 4) > 0.5
    points, labels, clicks = points.flatten(0, 1), labels.flatten(0, 1), clicks.flatten()
    row = torch.arange(len(images)).repeat_interleave(masks.shape[1])
    encoded = network.encoder(pixels)
    prepared = network.decoder.prepare(*encoded)
    longest = int((labels >= 0).sum(dim=1).max())

    dense, click = (~clicks).nonzero()[:, 0], clicks.nonzero()[:, 0]
    grouping = 0.5 * grouping_loss(encoded[0], masks)
    total, parts = grouping, {"grouping": grouping.item()}
    for name, chosen, width in (("sets", dense, longest), ("click", click, 1)):
        if not len(chosen):
            continue
        image = {key: value.index_select(0, row[chosen]) for key, value in prepared.items()}
        logits, iou = network.decode(image, points[chosen, :width], labels[chosen, :width], None, slice(0, 4))
        loss, shown = _loss_of(logits, iou, target[chosen], ambiguous=name == "click")
        total, parts[name] = total + loss * len(chosen) / len(clicks), shown
    if len(click):
        count = int(torch.randint(1, 7, ()))
        more, signs = corrective_clicks(logits[:, :1].detach(), target[click], valid[click], count)
        image = {key: value.index_select(0, row[click]) for key, value in prepared.items()}
        again = torch.cat([points[click, :1], more], dim=1), torch.cat([labels[click, :1], signs], dim=1)
        earlier = logits[:, :1].detach() if torch.rand(()) < 0.2 else None
        logits, iou = network.decode(image, *again, earlier, slice(0, 4))
        loss, parts["corrected"] = _loss_of(logits, iou, target[click], ambiguous=False)
        total = total + loss * len(click) / len(clicks)
    return total, parts


def _shrink(masks: Tensor, side: int) -> Tensor:
    """Average (B, K, h, w) bool over cells: (B * K, 1, side, side) float32."""
    return F.interpolate(masks.float(), size=(side, side), mode="area").flatten(0, 1)[:, None]


def _loss_of(logits: Tensor, iou: Tensor, target: Tensor, ambiguous: bool) -> tuple[Tensor, float]:
    """Loss of the single mask, of the best ambiguity mask after a lone click, and of the predicted IoU."""
    reached = true_iou(logits.detach(), target)
    losses = mask_loss(logits[:, : 4 if ambiguous else 1], target)
    loss = losses[:, 0].mean() + F.mse_loss(iou[:, 0], reached[:, 0])
    if ambiguous:
        loss = loss + 0.5 * losses[:, 1:].min(dim=1).values.mean() + F.mse_loss(iou[:, 1:], reached[:, 1:])
    return loss, float(reached[:, 0].mean())


class Team:
    """The processes that train together; a single one without ``torchrun``."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.size > 1:
            dist.init_process_group("gloo")

    def average_gradients(self, network: MiniNetwork) -> None:
        """Replace all gradients by their mean over the team."""
        if self.size == 1:
            return
        parameters = list(network.parameters())
        # A layer that one process did not use this time, another may have used.
        parts = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        flat /= self.size
        means = flat.split([part.numel() for part in parts])
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean.view_as(parameter)

    def agree(self, value: float) -> float:
        """Return the first process's value."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)


class Run:
    """Network, averaged network, optimiser and counters, saved and resumed together."""

    def __init__(self, stage: Stage, team: Team) -> None:
        torch.manual_seed(stage.seed)
        self.stage = stage
        self.network = MiniNetwork(MiniConfig()).train()
        if stage.init is not None:
            weights = {name: value.float() for name, value in load_file(stage.init).items()}
            load_weights(self.network, weights, stage.init)
        self.network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        decay = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=stage.lr_start, betas=(0.9, 0.98), fused=True)
        self.steps_done, self.seconds, self.since = 0, 0.0, time.monotonic()
        self.file = stage.out / "checkpoint.pt"
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.steps_done, self.seconds = state["steps_done"], state["seconds"]
        torch.manual_seed(stage.seed + team.size * self.steps_done + team.rank)

    def step(self, sample: list[Tensor], team: Team) -> dict[str, float]:
        """Take one optimiser step; return the parts of the loss."""
        loss, parts = step_loss(self.network, sample, self.stage.side)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        team.average_gradients(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.steps_done += 1
        if team.rank == 0:
            self.update_average()
        return {"loss": loss.item(), **parts}

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights a little towards the current ones."""
        weight = 1 - min(self.stage.ema, (1 + self.steps_done) / (20 + self.steps_done))
        pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
        for kept, new in pairs:
            if kept.dtype.is_floating_point:
                kept.lerp_(new, weight)
            else:
                kept.copy_(new)

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each aside and then renamed."""
        self.seconds += time.monotonic() - self.since
        self.since = time.monotonic()
        self.stage.out.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps_done": self.steps_done,
            "seconds": self.seconds,
        }
        aside = self.file.with_suffix(".tmp")
        torch.save(state, aside)
        aside.rename(self.file)
        weights = {k: v.half() for k, v in self.average.state_dict().items() if v.dtype.is_floating_point}
        aside = self.stage.out / "mini.safetensors.tmp"
        save_file({k: v.contiguous() for k, v in weights.items()}, aside)
        aside.rename(self.stage.out / "mini.safetensors")

    def finish(self, team: Team, means: dict[str, float]) -> None:
        """Save, and add the stage to the log."""
        self.save()
        stage = self.stage
        settings = {**asdict(stage), "out": str(stage.out), "init": str(stage.init or "")}
        counts = {"steps_done": self.steps_done, "seconds": round(self.seconds), "processes": team.size}
        with (stage.out / "log.jsonl").open("a") as log:
            log.write(json.dumps({**settings, **counts, "means": means}) + "\n")


def open_loader(stage: Stage, team: Team, steps_done: int) -> DataLoader:
    """Return this process's share of every batch, endlessly."""
    start = steps_done * stage.batch * 2  # twice as far as needed: some drawings hold no object that fits
    scenes = TrainingScenes(PhotoPool(), stage.seed, stage.shares, start, (team.rank, team.size))
    return DataLoader(
        scenes,
        batch_size=stage.batch // team.size,
        num_workers=stage.workers,
        prefetch_factor=6,
        multiprocessing_context="spawn",  # a fork would inherit the locks of OpenMP's threads
    )


def train(stage: Stage) -> None:
    """Run one stage and leave ``checkpoint.pt``, ``mini.safetensors`` and a line in ``log.jsonl`` behind."""
    team = Team()
    run = Run(stage, team)
    started, warm = time.monotonic(), run.steps_done == 0
    means: dict[str, float] = {}
    samples = zip(range(stage.steps), open_loader(stage, team, run.steps_done), strict=False)
    progress = tqdm(samples, total=stage.steps, desc=stage.name, mininterval=5, disable=team.rank > 0)
    for step, sample in progress:
        passed = step / stage.steps
        if stage.max_minutes:
            passed = team.agree(max(passed, (time.monotonic() - started) / 60 / stage.max_minutes))
        if passed >= 1:
            break
        rate = stage.lr_start + (stage.lr_end - stage.lr_start) * passed
        for group in run.optimiser.param_groups:
            group["lr"] = rate * (min(1.0, (step + 1) / 100) if warm else 1.0)
        parts = run.step(sample, team)
        for key, value in parts.items():
            means[key] = value if key not in means else 0.98 * means[key] + 0.02 * value
        progress.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)
        if run.steps_done % 250 == 0 and team.rank == 0:
            run.save()
    if team.rank == 0:
        run.finish(team, means)


if __name__ == "__main__":
    keep_freed_memory()
    train(tyro.cli(Stage))
