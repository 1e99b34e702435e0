"""Reads what W&B wrote offline: the LevelDB log format around its protocol buffers."""

import json
import struct
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def records(path):
    """Every record of a ``run-<id>.wandb`` file, in order."""
    content = Path(path).read_bytes()
    position, parts, found = FILE_HEADER, b"", []
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # the rest of a block that has no room for a header
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


class OfflineRun:
    """What one offline part of a run tells the server when it is synced."""

    def __init__(self, path):
        self.path = Path(path)
        self.files = self.path.parent / "files"
        self.records = records(path)
        self.history, self.summary, self.config = [], {}, {}
        self.metrics, self.media, self.exit_code = {}, [], None
        for record in self.records:
            kind = record.WhichOneof("record_type")
            value = getattr(record, kind)
            if kind == "run":
                self.run = value
            elif kind == "history":
                self.history.append(values(value.item))
            elif kind == "summary":
                for name, entry in values(value.update).items():
                    self.summary[name] = entry
                    if isinstance(entry, dict):  # as the server stores it
                        self.summary |= {f"{name}.{key}": item for key, item in entry.items()}
            elif kind == "config":
                self.config |= values(value.update)
            elif kind == "metric":
                self.metrics[value.name or value.glob_name] = value
            elif kind == "files":
                self.media += [file.path for file in value.files]
            elif kind == "exit":
                self.exit_code = value.exit_code

    def table(self, name):
        """A logged table: its columns, and its rows as dictionaries."""
        path = json.loads((self.files / self.summary[f"{name}.path"]).read_text())
        return path["columns"], [dict(zip(path["columns"], r, strict=True)) for r in path["data"]]

    def sent(self):
        """All text that would be sent: records without local paths, which stay here."""
        texts = []
        for record in self.records:
            copy = wandb_internal_pb2.Record()
            copy.CopyFrom(record)
            for entry in copy.artifact.manifest.contents:
                entry.local_path = ""
            texts.append(str(copy))
        return "\n".join(texts)


def values(items):
    """Name to the decoded value; the names of nested values are joined by a dot."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
