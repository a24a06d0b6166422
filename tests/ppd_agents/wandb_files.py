"""Reads the files of offline W&B runs: LevelDB's log format around W&B's protocol buffers."""

import json
import struct
import time

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7
LAST, FULL = 4, 1
PATIENCE = 60.0
"""Seconds: W&B's own process may still be writing when the run has finished."""


def records(path):
    """Return the records of a run that has finished, once its last one is written."""
    until = time.monotonic() + PATIENCE
    while True:
        found = list(written(path.read_bytes()))
        if any(record.HasField("exit") for record in found):
            return found
        if time.monotonic() > until:
            raise AssertionError(f"{path} ends without the end of the run after {len(found)} records.")
        time.sleep(0.1)


def written(data):
    place, parts = HEADER, []  # a header of seven bytes begins the file
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        if kind == 0 and length == 0:
            place += left
            continue
        parts.append(data[place + HEADER : place + HEADER + length])
        place += HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def history(path):
    """Every logged line; a picture or table is a dict."""
    for record in records(path):
        if record.WhichOneof("record_type") != "history":
            continue
        line = {}
        for item in record.history.item:
            name, *inner = list(item.nested_key) or [item.key]
            value = json.loads(item.value_json)
            if inner:
                line.setdefault(name, {})[inner[0]] = value
            else:
                line[name] = value
        yield line


def artifacts(path):
    """Artifacts by type: name, and entries by path."""
    found = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "request" or record.HasField("artifact"):
            artifact = (
                record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact
            )
            if artifact.name:
                found[artifact.type] = (
                    artifact.name,
                    {entry.path: entry for entry in artifact.manifest.contents},
                )
    return found
