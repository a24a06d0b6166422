"""A batch for each core."""

import multiprocessing
import os
import threading

import pytest
import torch

from ppd_env.cores import on_all_cores


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


def _work_in_child(answers):
    answers.put((os.getpid(), len(met())))


def test_a_forked_process_has_threads_of_its_own(two_threads):
    """The pool is one per process; whether torch's own threads survive a fork is not tested here."""
    met()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_work_in_child, args=(answers,))
    child.start()
    pid, pieces = answers.get(timeout=60)
    child.join()
    assert pid == child.pid
    assert pieces == 2
