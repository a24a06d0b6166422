"""The decoder alone: how many operations a decode takes, and how fast they go."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ppd_agents.speed.clock import Job
from ppd_agents.speed.official import decode_officially
from ppd_agents.speed.subjects import Subject, subject_bank, subject_segmenter


def decode_job(subject: Subject, device: str, batch: int, points: int, repeats: int | None = None) -> Job:
    """Return one call of a subject's decoder, its unit one prompt set.

    Args:
        subject: The segmenter.
        device: A torch device.
        batch: Prompt sets of the call, over the subject's images in turn.
        points: Prompts of each set.
        repeats: Rounds it takes part in at most.
    """
    bank, segmenter = subject_bank(subject, device), subject_segmenter(subject, device)
    where, labels, rows = _prompts(bank.embedding.sizes.cpu().numpy(), batch, points)
    given = [values.to(bank.device) for values in (where, labels, rows)]

    @torch.inference_mode()
    def work() -> None:
        segmenter.decode(bank.embedding, given[0], given[1], rows=given[2])

    return Job(work, batch, repeats=repeats)


def _prompts(sizes: np.ndarray, batch: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw points (batch, points, 2) in pixels, labels (batch, points) and rows (batch,)."""
    rng = np.random.default_rng(0)
    rows = np.arange(batch) % len(sizes)
    where = rng.random((batch, points, 2)) * sizes[rows, None, ::-1]
    labels = (rng.random((batch, points)) < 0.5).astype(np.int64)
    labels[:, 0] = 1
    return torch.from_numpy(where).float(), torch.from_numpy(labels), torch.from_numpy(rows)


def decode_flops(subject: Subject, device: str, points: int) -> int:
    """Count the floating-point operations of one decode of ``points`` prompts.

    Counted are the matrix products and convolutions of the official modules where the subject has them, and
    of our own decoder otherwise: what has to be done, not what an implementation makes of it.

    Returns:
        Operations, a multiplication with its addition being two.
    """
    counter = FlopCounterMode(display=False)
    if subject.official is None:
        job = decode_job(subject, device, 1, points)
        # The counter does not know the CPU's fused attention.
        with sdpa_kernel(SDPBackend.MATH), counter:
            job.work()
        return int(counter.get_total_flops())
    side, encoder = subject.official.image_encoder.img_size, subject.official.prompt_encoder
    where, labels, _ = _prompts(np.array([[side, side]]), 1, points)
    features = torch.zeros(1, encoder.embed_dim, *encoder.image_embedding_size, device=device)
    with torch.no_grad(), counter:
        decode_officially(subject.official, features, where.to(device), labels.to(device))
    return int(counter.get_total_flops())
