"""A real server with a real network that speaks what AgentRL asks of vLLM, and can be wrong in each way that matters.

It answers over HTTP from a thread. `make test-engines` tries the same against vLLM itself.
"""

import asyncio
import threading
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from transformers import DynamicCache

from agentrl_resources.learning import load_policy
from agentrl_resources.learning.adapters import load_adapter, shared_copy


class TokenServer:
    """Args:
    base: folder of a causal language model.
    tokenizer: its tokenizer, for `/tokenize`.
    fault: what is wrong with it; see where it is asked for.
    """

    def __init__(self, base: Path, tokenizer: Any, fault: str = "", version: str = "0.32.0") -> None:
        self.base = load_policy(base).eval()
        self.tokenizer = tokenizer
        self.fault = fault
        self.version = version
        self.networks: dict[str, Any] = {"policy": self.base}
        self.turns: list[tuple[str, list[int]]] = []
        """The policy that was asked, and the prompt, of each turn that was answered."""
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.computing = threading.Lock()
        self.die_after: int | None = None
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        self._do(self._away())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _listen(self) -> None:
        application = web.Application(client_max_size=2**26)
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/v1/models", self.models),
                web.post("/v1/completions", self.complete),
                web.post("/tokenize", self.tokenize),
                web.post("/resume", self.fine),
                web.post("/reset_prefix_cache", self.fine),
                web.post("/v1/unload_lora_adapter", self.unload),
            ]
        )
        if self.fault != "no vllm":
            application.add_routes([web.get("/version", self.tell_version)])
        if self.fault != "no adapters":
            application.add_routes([web.post("/v1/load_lora_adapter", self.load)])
        if self.fault != "no weights":
            application.add_routes([web.post("/pause", self.fine), web.post("/collective_rpc", self.reload)])
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _away(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for connection in list(runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    async def _die(self) -> None:
        """As a process does that is killed: connections are cut, and what was published is gone."""
        await self._away()
        self.networks = {"policy": self.base}
        await asyncio.sleep(0.3)
        await self._listen()

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def fine(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "fine"})

    async def tell_version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "policy", "max_model_len": 32768}]})

    async def load(self, request: web.Request) -> web.Response:
        told = await request.json()
        if told["lora_name"] in self.networks:
            said = f"The lora adapter '{told['lora_name']}' has already been loaded."
            return web.json_response({"error": {"message": said}}, status=400)
        network = shared_copy(self.base)
        if self.fault != "adapter not applied":
            load_adapter(network, Path(told["lora_path"]))
        loaded = [name for name in self.networks if name != "policy"]
        if self.fault == "stale" and loaded:
            network = self.networks[loaded[0]]
        self.networks[told["lora_name"]] = network.eval()
        return web.Response(text="Success: LoRA adapter added")

    async def unload(self, request: web.Request) -> web.Response:
        del self.networks[(await request.json())["lora_name"]]
        return web.Response(text="Success")

    async def reload(self, request: web.Request) -> web.Response:
        told = await request.json()
        if self.fault != "stale":
            self.networks["policy"] = load_policy(told["kwargs"]["weights_path"]).eval()
        return web.json_response({"results": [None]})

    async def tokenize(self, request: web.Request) -> web.Response:
        told = await request.json()
        ids = self.tokenizer.apply_chat_template(
            told["messages"], tools=told.get("tools"), add_generation_prompt=True, return_dict=False
        )
        return web.json_response({"tokens": [*ids[:3], *ids] if self.fault == "template" else list(ids)})

    async def complete(self, request: web.Request) -> web.Response:
        told = await request.json()
        if self.fault == "slow":
            await asyncio.sleep(5)
        if told["model"] not in self.networks:
            return web.json_response({"error": {"message": f"no {told['model']}"}}, status=404)
        ids, logprobs = await asyncio.to_thread(self.write, self.networks[told["model"]], told)
        if self.die_after is not None and len(self.turns) >= self.die_after:
            self.die_after = None
            self._dying = self.loop.create_task(self._die())
            await asyncio.sleep(5)  # it never answers
        self.turns.append((told["model"], told["prompt"]))
        choice: dict[str, Any] = {"token_ids": ids, "logprobs": {"token_logprobs": logprobs}}
        if self.fault == "no log-probabilities":
            choice["logprobs"] = None
        if self.fault == "no token ids":
            del choice["token_ids"]
        return web.json_response({"choices": [choice]})

    def write(self, network: Any, told: dict[str, Any]) -> tuple[list[int], list[float]]:
        generator = torch.Generator().manual_seed(told["seed"])
        read, ids, logprobs, cache = list(told["prompt"]), [], [], DynamicCache(config=network.config)
        with self.computing, torch.inference_mode():
            if self.fault == "precision":
                network = network.to(torch.bfloat16)
            while len(ids) < told["max_tokens"] and not (ids and ids[-1] in told["stop_token_ids"]):
                said = network(input_ids=torch.tensor([read]), past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = said.logits[0, -1].float()
                at = torch.log_softmax(logits / (told["temperature"] or 1.0), -1)
                chosen = at.argmax() if told["temperature"] == 0 else at.exp().multinomial(1, generator=generator)[0]
                logprobs.append(float((torch.log_softmax(logits, -1) if self.fault == "raw" else at)[chosen]))
                ids.append(int(chosen))
                read = [int(chosen)]
            if self.fault == "precision":
                network.float()
        return ids, logprobs
