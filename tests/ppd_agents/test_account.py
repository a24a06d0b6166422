"""Where the decoder's time goes: every product is booked on a line, and all of it adds up."""

import re

import pytest
import tiny_sam
import torch

from ppd_agents.speed import account
from ppd_agents.speed.account import account_table, decoder_account, random_decode
from ppd_env.errors import ConfigError
from ppd_env.segmenters.sam.flops import decode_flops


@pytest.fixture(scope="module")
def found():
    return decoder_account(points=7, rounds=2, largest=64, config=tiny_sam.SIZES)


def test_every_product_is_booked_on_a_line_of_the_decoder(found):
    with torch.no_grad():
        decoder, _ = random_decode("float32", 7, tiny_sam.SIZES)
    assert sum(line["flops"] for line in found["lines"]) == decode_flops(decoder, 7)
    booked = {line["source"]: line["method"] for line in found["lines"] if line["flops"]}
    assert booked["state = layer.update(state, codes, keys, values, bias)"] == "attend"
    assert "upscale" in booked.values()
    assert all(line["seconds"] > 0 for line in found["lines"])


def test_the_table_adds_up(found):
    table = account_table(found)
    cells = [
        [cell.strip() for cell in row.split(" | ")] for row in table.splitlines() if row.startswith("| ")
    ]
    *parts, whole = [float(row[1]) for row in cells[1:]]
    assert sum(parts) == pytest.approx(whole, abs=0.01 * len(parts))
    assert float(cells[-1][5].strip(" |")) <= whole  # equal where the limit is under a hundredth of a ms
    assert re.search(r"One core, float32, 7 prompts; its limit: \d+ GFLOP/s", table)
    assert re.search(r"Without the clock a decode takes \d+\.\d\d ms", table)
    assert 0 < found["plain_seconds"] < found["seconds"]


def test_the_number_of_threads_is_as_before(two_threads):
    decoder_account(points=2, rounds=1, largest=16, config=tiny_sam.SIZES)
    assert torch.get_num_threads() == 2


def test_emulated_arithmetic_is_refused(monkeypatch):
    monkeypatch.setattr(account, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="no bfloat16 arithmetic"):
        decoder_account("bfloat16")
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        decoder_account("float16")
