#!/usr/bin/env python3
"""What `tamt serve` promises, and how fast it is beside ONNX Runtime's int8.

    python benches/serve.py load --model MODEL        # 10,000 requests of 32 clients, each with the vector of `encode`
    python benches/serve.py malformed --model MODEL   # 1,000 requests with mistakes
    python benches/serve.py signals --model MODEL     # SIGTERM under load
    python benches/serve.py clients --model MODEL     # openai and huggingface_hub
    python benches/serve.py speed --model MODEL       # throughput and latency beside an onnxruntime server

MODEL is an encoder in Hugging Face layout. Texts are words of its vocabulary, 1 to 500 tokens long, uniformly. The ticket
drops 90 % of the weights by magnitude. Clients are threads of this process that hold a connection each and send the next
request when they have the answer; vectors come in base64. `load` compares every vector bit for bit with that of `tamt
encode`, and the server's largest resident set (VmHWM) with the bound that the server states.

The peer of `speed` is a small HTTP server around ONNX Runtime: the dense model, exported by `tamt export --format onnx` and
quantised to int8 by onnxruntime's `quantize_dynamic`, as many threads, the texts that wait sorted by length and run in
batches with little padding. The sides take turns; a round is --requests requests of --clients clients. The column "peak" is
VmHWM. Client and servers share the processor. Packages: numpy, safetensors; tokenizers, onnx, onnxruntime (`speed`); openai,
huggingface_hub (`clients`).
"""

import argparse
import base64
import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy

PADDED_TOKENS = 4096
"""Tokens of a batch of the peer, padding included."""


# ---- texts, models, servers


def words(model):
    """Words that are a token each."""
    pieces = (Path(model) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [piece for piece in pieces if re.fullmatch(r"[a-z]{3,}", piece)]


def texts(args, count):
    """Texts of 1 to 500 tokens, special tokens left out."""
    draw, vocabulary = random.Random(args.seed), words(args.model)
    return [" ".join(draw.choices(vocabulary, k=draw.randint(1, 500))) for _ in range(count)]


def run(args, *line):
    subprocess.run([args.tamt, *map(str, line)], check=True, stdout=subprocess.DEVNULL)


def ticket(args):
    path = args.work / "ticket"
    if not (path / "ticket.safetensors").exists():
        shutil.rmtree(path, ignore_errors=True)
        run(args, "find", "--model", args.model, "--method", "magnitude", "--sparsity", "0.9", "--output-dir", path)
    return path


def encoded(args, all_texts):
    """The vectors of `tamt encode` under the ticket."""
    from safetensors.numpy import load_file

    source, target = args.work / "texts.txt", args.work / "vectors.safetensors"
    source.write_text("\n".join(all_texts) + "\n")
    run(args, "encode", "--model", args.model, "--ticket", ticket(args), "--input", source, "--output", target,
        "--threads", args.threads)
    return load_file(target)["embeddings"]


class Server:
    """A server, from its start to its end."""

    def __init__(self, line):
        self.process = subprocess.Popen([str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        for said in self.process.stdout:
            if found := re.search(r"http://([\d.]+):(\d+)", said):
                self.address = (found[1], int(found[2]))
                return
        raise SystemExit(self.process.stderr.read())

    @classmethod
    def of_tamt(cls, args, *flags):
        return cls([args.tamt, "serve", "--model", args.model, "--ticket", f"sparse={ticket(args)}", "--dense", "--name",
                    "dense", "--address", "127.0.0.1:0", "--threads", args.threads, *flags])

    @property
    def url(self):
        return "http://{}:{}".format(*self.address)

    def mebibytes(self, key):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


class Connection:
    """A connection of a client. A request is bytes, so that the client takes little time."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request):
        """Status, head and body of the answer; None if the connection ends without one."""
        try:
            self.socket.sendall(request)
            answer = bytearray()
            while (end := answer.find(b"\r\n\r\n")) < 0:
                if not (part := self.socket.recv(65536)):
                    return None
                answer += part
            head = bytes(answer[:end]).lower()
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            while len(answer) < end + 4 + length:
                if not (part := self.socket.recv(65536)):
                    return None
                answer += part
            return int(head[9:12]), head, bytes(answer[end + 4:])
        except ConnectionError:
            return None


def post(path, body, headers=""):
    return (f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{headers}\r\n").encode() + body


def request(text, model="sparse"):
    body = {"model": model, "input": text, "encoding_format": "base64"}
    return post("/v1/embeddings", json.dumps(body).encode())


def vector(body):
    found = re.search(rb'"embedding":\s*"([^"]+)"', body)
    return numpy.frombuffer(base64.b64decode(found[1]), dtype=numpy.float32)


def clients(count, work):
    """Runs `work(number)` on so many threads; the results in order."""
    results = [None] * count

    def one(number):
        results[number] = work(number)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def shares(requests, clients):
    """The requests of each client."""
    return [requests // clients + (client < requests % clients) for client in range(clients)]


# ---- promises


def load(args):
    all_texts = texts(args, args.texts)
    expected = encoded(args, all_texts)
    server = Server.of_tamt(args)
    resident = server.mebibytes("VmRSS")
    chosen = [random.Random(args.seed + 1 + client).choices(range(args.texts), k=share)
              for client, share in enumerate(shares(args.requests, args.clients))]

    def one(client):
        connection, wrong, lost = Connection(server.address), 0, 0
        for i in chosen[client]:
            answer = connection.ask(request(all_texts[i]))
            if answer is None or answer[0] != 200:
                lost, connection = lost + 1, Connection(server.address)
            elif not numpy.array_equal(vector(answer[2]), expected[i]):
                wrong += 1
        return wrong, lost

    began = time.perf_counter()
    outcomes = clients(args.clients, one)
    seconds = time.perf_counter() - began
    wrong, lost = (sum(column) for column in zip(*outcomes))
    count = sum(map(len, chosen))
    info = json.loads(Connection(server.address).ask(b"GET /info HTTP/1.1\r\nhost: bench\r\n\r\n")[2])
    peak, bound = server.mebibytes("VmHWM"), info["memory_bound_bytes"] / 2**20
    code = server.end()
    print(f"load: {count:,} requests of {args.clients} clients in {seconds:.1f} s: {lost} lost, {wrong} other than encode's "
          f"vector; resident {resident:.0f} MiB at the start, {peak:.0f} MiB at most, bound {bound:.0f} MiB; exit code {code}")
    return wrong + lost + (peak > bound) + (code != 143)


def malformed(args):
    draw = random.Random(args.seed)
    good = json.dumps({"input": "a text", "inputs": "a text"}).encode()
    paths = ["/v1/embeddings", "/embed", "/predict"]

    def last(path, body):
        return post(path, body, "connection: close\r\n")

    def wrong_types():
        value = draw.choice([None, 3, True, {}, [], [3], [[3]], [None], [["a", "b", "c"]], ["a", ["b"]], {"a": 1}])
        return last(draw.choice(paths), json.dumps({"input": value, "inputs": value}).encode())

    def bad_json():
        body = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            body[draw.randrange(len(body))] = draw.choice(b'{}[]",:\x00\xff\\x')
        return last(draw.choice(paths), bytes(body).replace(b'"input', b'"inpu'))

    def huge():
        return last(draw.choice(paths), b'{"input": "' + b"a" * draw.randint(3 << 20, 8 << 20) + b'"}')

    def long_text():
        return last(draw.choice(paths[:2]), json.dumps({"input": "a" * 100_000, "inputs": "b" * 100_000}).encode())

    def deep():
        return last(draw.choice(paths), b'{"input": ' + b"[" * 500_000)

    def noise():
        return draw.randbytes(draw.randint(1, 2000))

    def cut():
        whole = last(draw.choice(paths), good)
        return whole[:draw.randint(1, len(whole) - 1)]

    kinds = [wrong_types, bad_json, huge, long_text, deep, noise, cut]
    server = Server.of_tamt(args, "--read-timeout", "0.5")

    def one(kind, data):
        """The status of the answer, or nothing."""
        with socket.create_connection(server.address, timeout=60) as connection:
            try:
                connection.sendall(data)
                # Half of the clients that send a part of a request are slow, and the server gives them up.
                if kind is noise or kind is cut and draw.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                if draw.random() < 0.2:  # a client that is gone
                    return "gone"
                answer = b""
                while part := connection.recv(65536):
                    answer += part
                return answer[9:12].decode() if answer else "nothing"
            except OSError:  # the server has ended the connection
                return "nothing"

    counts, failed = {}, 0
    for number in range(args.malformed):
        kind = kinds[number % len(kinds)]
        status = one(kind, kind())
        key = kind.__name__, status
        counts[key] = counts.get(key, 0) + 1
        failed += not (status in ("gone", "nothing") or status.startswith("4"))
    answer = Connection(server.address).ask(request("a text"))
    peak, code = server.mebibytes("VmHWM"), server.end()
    for (kind, status), count in sorted(counts.items()):
        print(f"    {kind:12} {status:8} {count}")
    print(f"malformed: {args.malformed:,} requests, {failed} with another answer than 4xx; then a good one: {answer[0]}; "
          f"resident {peak:.0f} MiB at most; exit code {code}")
    return failed + (answer[0] != 200) + (code != 143)


def signals(args):
    all_texts = texts(args, 200)
    expected, failed = encoded(args, all_texts), 0
    for turn in range(args.signals):
        server, asked = Server.of_tamt(args), threading.Event()

        def one(client):
            """Answered requests, wrong ones and lost ones, up to the answer that ends the connection."""
            connection, draw, answered, wrong = Connection(server.address), random.Random(client), 0, 0
            while True:
                i = draw.randrange(len(all_texts))
                answer = connection.ask(request(all_texts[i]))
                if answer is None or answer[0] != 200:
                    return answered, wrong, 1
                answered, wrong = answered + 1, wrong + (not numpy.array_equal(vector(answer[2]), expected[i]))
                if client == 0 and answered == 5 + turn:
                    asked.set()
                if b"connection: close" in answer[1]:
                    return answered, wrong, 0

        sender = threading.Thread(target=lambda: (asked.wait(), server.process.send_signal(signal.SIGTERM)))
        sender.start()
        outcomes = clients(args.clients, one)
        sender.join()
        code = server.process.wait(60)
        answered, wrong, lost = (sum(column) for column in zip(*outcomes))
        failed += wrong + lost + (code != 143)
        print(f"signals: SIGTERM after some of {answered} requests of {args.clients} clients: {lost} lost, {wrong} wrong; "
              f"exit code {code}", flush=True)
    return failed


def real_clients(args):
    from huggingface_hub import InferenceClient
    from openai import AuthenticationError, NotFoundError, OpenAI

    all_texts = texts(args, 20)
    expected = encoded(args, all_texts)
    server = Server.of_tamt(args, "--api-key", "key")
    client = OpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0)
    for encoding in [None, "float"]:  # without a choice the client asks for base64
        more = {"encoding_format": encoding} if encoding else {}
        answer = client.embeddings.create(model="sparse", input=all_texts, **more)
        found = numpy.array([entry.embedding for entry in answer.data], dtype=numpy.float32)
        assert numpy.array_equal(found, expected), "openai: other vectors"
    assert answer.usage.prompt_tokens == sum(min(len(text.split()) + 2, 512) for text in all_texts)
    assert [model.id for model in client.models.list()] == ["sparse", "dense"]
    for key, model, error in [("key", "other", NotFoundError), ("wrong", "sparse", AuthenticationError)]:
        try:
            OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0).embeddings.create(model=model, input="a")
            raise SystemExit(f"openai: no {error.__name__}")
        except error:
            pass

    hub = InferenceClient(model=f"{server.url}/embed?model=sparse", token="key")
    found = numpy.concatenate([hub.feature_extraction(text, normalize=False) for text in all_texts])
    assert numpy.array_equal(found, expected), "huggingface_hub: other vectors"
    norms = numpy.linalg.norm(hub.feature_extraction(all_texts[0]), axis=-1)
    assert numpy.allclose(norms, 1, atol=1e-6), norms
    print(f"clients: openai and huggingface_hub get encode's vectors of {len(all_texts)} texts; exit code {server.end()}")
    return 0


# ---- the peer


def quantised(args):
    """The dense model as ONNX with int8 products."""
    source, target = args.work / "onnx", args.work / "int8.onnx"
    if not target.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        shutil.rmtree(source, ignore_errors=True)
        run(args, "export", "--model", args.model, "--format", "onnx", "--output-dir", source)
        quantize_dynamic(source / "model.onnx", target, weight_type=QuantType.QInt8)
    return target


class Peer:
    """Texts to vectors by ONNX Runtime: what waits is run in batches of similar lengths."""

    def __init__(self, path, model, threads):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [entry.name for entry in self.session.get_inputs()]
        outputs = [entry.name for entry in self.session.get_outputs()]
        self.output = outputs[-1] if len(outputs) > 1 else outputs[0]
        self.tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(512)
        self.waiting = queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()

    def vector(self, text):
        ids, done = self.tokenizer.encode(text).ids, queue.SimpleQueue()
        self.waiting.put((ids, done))
        return done.get()

    def work(self):
        while True:
            taken = [self.waiting.get()]
            while not self.waiting.empty():
                taken.append(self.waiting.get())
            taken.sort(key=lambda entry: len(entry[0]))
            while taken:
                batch = []
                while taken and (len(batch) + 1) * len(taken[0][0]) <= max(PADDED_TOKENS, len(taken[0][0])):
                    batch.append(taken.pop(0))
                self.batch(batch)

    def batch(self, batch):
        longest = len(batch[-1][0])
        ids = numpy.zeros((len(batch), longest), numpy.int64)
        mask = numpy.zeros_like(ids)
        for row, (own, _) in enumerate(batch):
            ids[row, :len(own)], mask[row, :len(own)] = own, 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        states = self.session.run([self.output], {name: inputs[name] for name in self.names})[0]
        if states.ndim == 3:
            weights = mask[:, :, None].astype(numpy.float32)
            states = (states * weights).sum(1) / weights.sum(1)
        for (_, done), own in zip(batch, states):
            done.put(own)


def peer(args):
    """Serves until a signal."""
    engine = Peer(args.onnx, args.model, args.threads)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = base64.b64encode(engine.vector(body["input"]).tobytes()).decode()
            answer = json.dumps({"data": [{"index": 0, "embedding": found}]}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            self.wfile.write(head.encode() + answer)

        def log_message(self, *_):
            pass

    class Quick(ThreadingHTTPServer):
        request_queue_size = 128

    server = Quick(("127.0.0.1", 0), Handler)
    print("http://{}:{}".format(*server.server_address), flush=True)
    server.serve_forever()


def speed(args):
    all_texts = texts(args, args.texts)
    peer_line = [sys.executable, __file__, "peer", "--model", args.model, "--onnx", quantised(args), "--threads",
                 args.threads]
    sides = {"tamt, 90 %": (Server.of_tamt(args), "sparse"), "tamt, dense": (Server.of_tamt(args), "dense"),
             "onnxruntime int8": (Server(peer_line), "dense")}
    measured = {name: [] for name in sides}
    tokens = [len(text.split()) + 2 for text in all_texts]

    def turn(server, model, requests, seed):
        """Seconds, latencies and tokens of a round."""
        chosen = [random.Random(seed * 1000 + client).choices(range(args.texts), k=share)
                  for client, share in enumerate(shares(requests, args.clients))]
        prepared = [[request(all_texts[i], model) for i in own] for own in chosen]
        opened = [Connection(server.address) for _ in range(args.clients)]

        def one(client):
            latencies = []
            for data in prepared[client]:
                began = time.perf_counter()
                answer = opened[client].ask(data)
                latencies.append(time.perf_counter() - began)
                assert answer and answer[0] == 200, answer
            return latencies

        began = time.perf_counter()
        latencies = [latency for own in clients(args.clients, one) for latency in own]
        return time.perf_counter() - began, latencies, sum(tokens[i] for own in chosen for i in own)

    own = {name: vector(Connection(server.address).ask(request(all_texts[0], model))[2])
           for name, (server, model) in sides.items()}
    own = {name: values / numpy.linalg.norm(values) for name, values in own.items()}
    print(f"cosine of the peer's vector with the dense one: {own['onnxruntime int8'] @ own['tamt, dense']:.4f}")
    for server, model in sides.values():
        turn(server, model, 4 * args.clients, 0)
    for number in range(args.rounds):
        for name, (server, model) in sides.items():
            measured[name].append(turn(server, model, args.requests, number + 1))
    print(f"{args.rounds} rounds of {args.requests} requests, {args.clients} clients, {args.threads} threads; medians "
          "(smallest to largest)")
    print(f"{'':18}{'requests/s':>22}{'tokens/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'peak MiB':>10}")
    rates = {}
    for name, rounds in measured.items():
        own = [len(latencies) / seconds for seconds, latencies, _ in rounds]
        rates[name] = statistics.median(own)
        per_token = statistics.median(count / seconds for seconds, _, count in rounds)
        p50, p99 = (statistics.median(1e3 * float(numpy.quantile(latencies, q)) for _, latencies, _ in rounds)
                    for q in (0.5, 0.99))
        spread = f"{rates[name]:.1f} ({min(own):.1f} to {max(own):.1f})"
        print(f"{name:18}{spread:>22}{per_token:>10,.0f}{p50:>9.1f}{p99:>9.1f}{sides[name][0].mebibytes('VmHWM'):>10.0f}")
    for name in ["tamt, 90 %", "tamt, dense"]:
        print(f"{name}: {rates[name] / rates['onnxruntime int8']:.2f} times the requests of onnxruntime int8")
    for server, _ in sides.values():
        server.end()
    return 0


def main():
    works = {"load": load, "malformed": malformed, "signals": signals, "clients": real_clients, "speed": speed,
             "peer": peer}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=works)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tamt-serve")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=None, help="[default: 10,000 in load, 1,600 a round in speed]")
    parser.add_argument("--texts", type=int, default=1000, help="different texts")
    parser.add_argument("--malformed", type=int, default=1000)
    parser.add_argument("--signals", type=int, default=5, help="servers that a signal ends")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--onnx", help="the file that `peer` serves")
    args = parser.parse_args()
    args.requests = args.requests or (1600 if args.what == "speed" else 10_000)
    args.work.mkdir(exist_ok=True, parents=True)
    return int(bool(works[args.what](args)))


if __name__ == "__main__":
    sys.exit(main())
