"""Sends bytes as they are: standard input is a JSON list of {host, port, data, tls?}; prints what came back, as JSON.

A `data` is Latin-1 text. An outcome is {"answer": …} or {"error": …}.
"""

import json
import socket
import ssl
import sys

outcomes = []
for attempt in json.load(sys.stdin):
    try:
        with socket.create_connection((attempt["host"], attempt["port"]), 10) as connection:
            connection.settimeout(10)
            if attempt.get("tls"):
                context = ssl.create_default_context()
                connection = context.wrap_socket(connection, server_hostname=attempt["tls"])
            connection.sendall(attempt["data"].encode("latin-1"))
            answer = b""
            while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < int(
                dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]).get(b"content-length", b"0")
            ):
                chunk = connection.recv(65536)
                if not chunk:
                    break
                answer += chunk
            outcomes.append({"answer": answer.decode("latin-1")})
    except OSError as error:
        outcomes.append({"error": f"{type(error).__name__}: {error}"})
print(json.dumps(outcomes))
