"""A batch for each core."""

import multiprocessing
import os
import queue
import threading

import numpy as np
import pytest
import torch

from ppd_env.cores import on_all_cores
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator


def met(pieces=2):
    """Names of threads that were at work at the same time, and how many cores torch gave each."""
    together, seen = threading.Barrier(pieces, timeout=20), []

    def work(_):
        together.wait()
        seen.append((threading.current_thread().name, torch.get_num_threads()))

    on_all_cores(work, range(pieces))
    return seen


def test_pieces_are_done_at_the_same_time_on_one_core_each(two_threads):
    seen = met()
    assert len({name for name, _ in seen}) == 2
    assert [cores for _, cores in seen] == [1, 1]


def test_everyone_else_keeps_their_cores(two_threads):
    met()
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == 2
    assert later == [2]


def test_a_single_piece_stays_here_and_gets_all_cores(two_threads):
    seen = []
    on_all_cores(lambda piece: seen.append((piece, threading.current_thread(), torch.get_num_threads())), [7])
    assert seen == [(7, threading.current_thread(), 2)]


def test_errors_arrive(two_threads):
    def refuse(piece):
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 3"):
        on_all_cores(refuse, [3, 3])


def _in_fork(work, *arguments):
    """What ``work`` puts into a queue in a forked process, which is ended if it hangs."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=work, args=(answers, *arguments))
    child.start()
    try:
        return answers.get(timeout=60)
    except queue.Empty:
        pytest.fail("the forked process hangs")
    finally:
        child.kill()
        child.join()


def _work_in_child(answers):
    torch.set_num_threads(2)
    answers.put((os.getpid(), len(met())))


def test_a_forked_process_that_asks_for_more_cores_has_threads_of_its_own(two_threads):
    met()
    pid, pieces = _in_fork(_work_in_child)
    assert pid != os.getpid()
    assert pieces == 2


def _decode_in_child(answers, segment):
    answers.put((torch.get_num_threads(), segment().numpy()))


def test_a_forked_process_decodes_after_its_parent_did_on_two_threads(two_threads, tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    bank = open_bank("shapes://val?count=1&seed=9", "mini", "mini", 8)
    simulator = Simulator(bank, load_segmenter("mini"))
    status = torch.zeros((1, 64), dtype=torch.int8)
    status[:, ::9] = 1

    def segment():
        return simulator.segment(torch.zeros(1, dtype=torch.int64), status).logits

    expected = segment().numpy()
    cores, found = _in_fork(_decode_in_child, segment)
    assert cores == 1
    np.testing.assert_allclose(found, expected, atol=1e-3)
