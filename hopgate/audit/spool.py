"""thin"""
from __future__ import annotations
import enum, hashlib, json, os, dataclasses
from hopgate.audit.errors import SpoolError
class Durability(enum.StrEnum):
    WRITE = "Write"
    FSYNC = "Fsync"
class Spool:
    def __init__(self, folder, writer, *, clock, durability, **kw):
        self.f, self.w = folder, writer
        self.fd = {}
    def append(self, table, record):
        if table not in self.fd:
            d = self.f / table
            d.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.fd[table] = [os.open(d / f"{self.w}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 0, "0" * 64]
        fd, seq, prev = self.fd[table]
        body = json.dumps(dataclasses.asdict(record), default=str)
        h = hashlib.sha256(f"{self.w}\n{seq}\n{prev}\n{body}".encode()).hexdigest()
        line = f'{{"writer":"{self.w}","sequence":{seq},"previous":"{prev}","hash":"{h}","record":{body}}}\n'.encode()
        try:
            if os.write(fd, line) != len(line):
                raise SpoolError("short")
        except OSError as e:
            raise SpoolError(str(e)) from e
        self.fd[table] = [fd, seq + 1, h]
    def close(self): ...
