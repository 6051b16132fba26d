"""Does what each line of standard input says, and prints what came of it as JSON, one line each.

`get HOST PORT`: one HTTP request for raw.demo.svc; `hold HOST PORT`: opens a connection and keeps it; `held`: how that one is now;
`ask HOST PORT`: a DNS question for raw.demo.svc; `touch HOST PORT`: opens a TCP connection.
"""

import json
import select
import socket
import sys

REQUEST = b"GET /mcp HTTP/1.1\r\nhost: raw.demo.svc\r\nconnection: close\r\n\r\n"
kept = []
QUESTION = bytes.fromhex("123401000001000000000000") + b"\3raw\4demo\3svc\0\0\1\0\1"


def get(host, port):
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        connection.sendall(REQUEST)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return {"status": int(answer.split(b" ", 2)[1]), "text": answer.decode("latin-1")}


def hold(host, port):
    kept[:] = [socket.create_connection((host, int(port)), 10)]
    return {"held": True}


def held():
    if not select.select(kept, [], [], 0)[0]:
        return {"held": True}
    return {"held": bool(kept[0].recv(1))}


def ask(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(10)
        asked.sendto(QUESTION, (host, int(port)))
        return {"answers": int.from_bytes(asked.recv(512)[6:8], "big")}


def touch(host, port):
    socket.create_connection((host, int(port)), 10).close()
    return {"opened": True}


for line in sys.stdin:
    name, *arguments = line.split()
    try:
        said = {"get": get, "hold": hold, "held": held, "ask": ask, "touch": touch}[name](*arguments)
    except OSError as error:
        said = {"error": error.errno, "text": str(error)}
    print(json.dumps(said), flush=True)
