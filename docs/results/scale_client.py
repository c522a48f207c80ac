"""What the client of an engine costs: docs/results/scale.md, "Through the client".

python docs/results/scale_client.py [TOKENS]

Steps of demur's own loop against a scripted engine: a server on loopback that speaks the Tinker
protocol and answers at once with what the seed model once said, made TOKENS long where that is
given. The loop has one core and the server the other, so what is timed is the client alone: the
loop, the protocol's client library and its HTTP.
"""

import itertools
import json
import logging
import multiprocessing
import os
import statistics
import sys
import time

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demur.bench.loop import Load, play, rehearse
from demur.config import load_recipe
from demur.errors import EndpointError
from demur.policies.connection import Connection
from demur.policies.tinker import TinkerPolicy
from demur.stages import heap_at_rest
from demur.world.seed import SEED_FOLDER

PORT, STEPS, SAMPLES = 8811, 6, 16
MODEL = str(SEED_FOLDER)


def serve(bank: list[list[int]]) -> None:
    """The engine: every answer is ready before it is asked for."""
    os.sched_setaffinity(0, {1})
    rng, numbers, ready = np.random.default_rng(0), itertools.count(), {}
    rows = [
        {"stop_reason": "stop", "tokens": row, "logprobs": [-0.51234567] * len(row)} for row in bank
    ]
    said = [
        json.dumps({"type": "sample", "sequences": [rows[i] for i in chosen]}).encode()
        for chosen in rng.integers(len(rows), size=(200, SAMPLES))
    ]

    def later(body: bytes, **more: str) -> JSONResponse:
        number = str(next(numbers))
        ready[number] = body
        return JSONResponse({"future_id": number, "request_id": number, **more})

    def says(**facts: object):
        async def answer(_: Request) -> JSONResponse:
            return JSONResponse(facts)

        return answer

    async def sample(request: Request) -> Response:
        await request.body()
        return later(said[int(rng.integers(len(said)))])

    async def gradient(request: Request) -> Response:
        data = json.loads(await request.body())["forward_backward_input"]["data"]
        lengths = [len(each["loss_fn_inputs"]["target_tokens"]["data"]) for each in data]
        outputs = [
            {"logprobs": {"data": [-0.51234567] * n, "dtype": "float32", "shape": [n]}}
            for n in lengths
        ]
        whole = {"loss_fn_output_type": "x", "loss_fn_outputs": outputs, "metrics": {}}
        return later(json.dumps(whole).encode())

    def answers(**facts: object):
        async def answer(_: Request) -> JSONResponse:
            return later(json.dumps(facts).encode(), model_id="m", base_model=MODEL)

        return answer

    async def future(request: Request) -> Response:
        number = (await request.json())["request_id"]
        return Response(ready.pop(number), media_type="application/json")

    lora = {"rank": 16, "alpha": 32.0, "seed": 0}
    get = {
        "healthz": says(status="ok"),
        "get_server_capabilities": says(supported_models=[{"model_name": MODEL}]),
    }
    post = {
        "client/config": says(),
        "telemetry": says(),
        "create_session": says(session_id="s"),
        "session_heartbeat": says(),
        "create_model": answers(model_id="m", base_model=MODEL, lora_config=lora),
        "save_weights_for_sampler": answers(
            type="save_weights_for_sampler", sampling_session_id="x"
        ),
        "asample": sample,
        "forward_backward": gradient,
        "optim_step": answers(metrics={}),
        "retrieve_future": future,
    }
    routes = [Route("/", says(name="scripted"))]
    routes += [Route(f"/api/v1/{path}", call) for path, call in get.items()]
    routes += [Route(f"/api/v1/{path}", call, methods=["POST"]) for path, call in post.items()]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=PORT, log_level="error")


def longer(row: list[int], tokens: int) -> list[int]:
    """A reply with its first words over and over before it."""
    filler = row[:4]
    missing = max(tokens - len(row), 0)
    return [*itertools.islice(itertools.cycle(filler), missing), *row]


def reached(url: str) -> Connection:
    """The engine, once it has started."""
    for _ in range(60):
        time.sleep(0.5)
        try:
            return Connection(url)
        except EndpointError:
            pass
    return Connection(url)


def main() -> None:
    """Print the seconds of a step."""
    logging.disable(logging.WARNING)
    recipe = "docs/results/scale.toml"
    spoken = rehearse(Load(recipe, prompts=64), 1, "cpu")
    replies = [list(c.token_ids) for turn in spoken for row in turn for c in row]
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    bank = [longer(row, tokens) for row in replies]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(bank,), daemon=True)
    server.start()
    os.sched_setaffinity(0, {0})
    policy = TinkerPolicy(reached(f"http://127.0.0.1:{PORT}"), MODEL)
    stage = load_recipe(recipe, []).stages[0]
    policy.optimise(stage.learning_rate)
    load = Load(recipe)
    began = time.process_time()
    with heap_at_rest():  # as training does it
        steps = play(load, STEPS, policy)[1:]
    busy = (time.process_time() - began) / STEPS
    whole = statistics.median(sum(parts.values()) for parts in steps)
    print(f"{statistics.fmean(map(len, bank)):.0f} tokens a reply, {load.replies} replies a step")
    print(f"{whole:.2f} s a step, {busy:.2f} of them on the client's core: ", end="")
    print(f"{load.replies / whole:.0f} replies/s")
    for part in steps[0]:
        print(f"  {part}: {statistics.median(parts[part] for parts in steps):.3f} s")
    server.kill()


if __name__ == "__main__":
    main()
