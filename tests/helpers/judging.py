"""A local judge with scripted replies."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = "sk-secret"


def says(content):
    return 200, {}, {"choices": [{"message": {"content": content}}]}


class Stub(ThreadingHTTPServer):
    """Replies from `script`, whose last entry repeats, and keeps the requests in `asked`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked = [says("Right.\nFactuality Score: 8")], []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub = self.server
        assert isinstance(stub, Stub)
        stub.asked.append((self.path, self.headers["Authorization"], body))
        status, headers, reply = stub.script.pop(0) if len(stub.script) > 1 else stub.script[0]
        data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def local_judge() -> Iterator[Stub]:
    """Runs the judge's server until the end of the block."""
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def write_predictions(workdir: Path) -> None:
    """Writes two open answers about pictures, one in words, and a cloze, which is not judged."""
    kinds = [("vqa", "generation"), ("vqa", "generation"), ("qa", "generation"), ("qa", "cloze")]
    lines = [
        dict(split="forget", modality=modality, task=task, question=f"Question {i}?")
        | dict(answer="a baker", response=f"answer {i}")
        for i, (modality, task) in enumerate(kinds)
    ]
    folder = workdir / "predictions"
    folder.mkdir()
    (folder / "after-forget.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
