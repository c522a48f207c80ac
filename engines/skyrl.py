#!/usr/bin/env python3
"""Serve a model to demur from SkyRL's Tinker server, with its JAX backend on this machine's CPU.

    make engine                                        # its own virtual environment, engines/.venv
    engines/.venv/bin/python engines/skyrl.py          # the seed model at http://127.0.0.1:8000
    demur train correctness --policy tinker --base-url http://127.0.0.1:8000 --out runs/far

Four things stand in the way of `python -m skyrl.tinker.api`, and this script is all that deals with
them. SkyRL 0.3.0 starts its engine by repeating the `uv run` flags of its own parent process, so
that it has to be a child of `uv run`. Its types give pydantic a typing.TypedDict, which pydantic
takes from Python 3.12 on only: before that, typing_extensions' stands in. With several workers its
Ray backend is called with an argument, model_role, that it does not take: it is dropped. These two
are put right in a sitecustomize module, as each of its processes needs them. And its server listens
on every interface unless it is told not to.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = HERE.parent / "src" / "demur" / "world" / "seed_model"
SHIM = """\
import importlib.abc
import importlib.machinery
import sys

if sys.version_info < (3, 12):
    import typing

    import typing_extensions

    typing.TypedDict = typing_extensions.TypedDict


class Mended(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        create = module.RayJaxBackend.create_model
        module.RayJaxBackend.create_model = lambda self, model_id, lora_config, model_role=None: (
            create(self, model_id, lora_config)
        )


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "skyrl.backends.ray_jax":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Mended(name, spec.origin)
        return spec


sys.meta_path.insert(0, Finder())
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Serve a model to demur from SkyRL's Tinker server, on the CPU."
    )
    parser.add_argument("--model", default=str(SEED), help="Hugging Face folder (default: seed)")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1")
    parser.add_argument(
        "--state",
        type=Path,
        default=HERE / "state",
        help="folder of its checkpoints and requests; runs resume from it",
    )
    parser.add_argument(
        "--batch", type=int, default=256, help="sequences computed at once; fewer are filled up"
    )
    parser.add_argument("--adapters", type=int, default=8, help="runs and snapshots side by side")
    parser.add_argument("--rank", type=int, default=32, help="largest rank of an adapter")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that share the model, through Ray"
    )
    return parser.parse_args()


def main() -> None:
    """Become the server."""
    args = parse()
    if not (Path(args.model) / "config.json").is_file():
        sys.exit(f"{args.model} is no model folder: give one that holds config.json")
    args.state.mkdir(parents=True, exist_ok=True)
    state = args.state.resolve()
    shim = state / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text(SHIM)
    backend: dict[str, object] = {
        "max_lora_adapters": args.adapters + 1,  # the first is the base model's
        "max_lora_rank": args.rank,
        "sample_max_num_sequences": args.batch,
        "train_micro_batch_size": args.batch,
    }
    if args.workers > 1:
        backend |= {
            "use_ray": True,
            "num_processes": args.workers,
            "fully_sharded_data_parallel_size": args.workers,
            "ray_pg_bundles": [{"CPU": 1}] * args.workers,
        }
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "VIRTUAL_ENV": str(tools.parent),
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(shim),
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
        "HF_HUB_OFFLINE": "1",
        "UV_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [
        *("uv", "run", "--no-project", "--", "python", "-m", "skyrl.tinker.api"),
        *("--base-model", str(Path(args.model).resolve()), "--backend", "jax"),
        *("--backend-config", json.dumps(backend)),
        *("--host", "127.0.0.1", "--port", str(args.port)),
        *("--checkpoints-base", str(state / "checkpoints")),
        *("--database-url", f"sqlite:///{state / 'requests.db'}"),
    ]
    os.chdir(state)  # Ray sends the folder that it is started in to its workers
    os.execvpe(str(tools / "uv"), command, environment)


if __name__ == "__main__":
    main()
