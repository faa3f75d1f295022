"""2,000 unique calls, 128 at a time, to a loopback server that answers in 100 ms.

Ours is the gateway with everything on: ledger, budget, prices, limits a minute. The peers are a bare loop
over `litellm.acompletion`, which is most of the work of a call, the openai client, and distilabel in batches
of 128 where it is installed; none of them keeps anything. bespokelabs-curator does not install beside these
packages. Each runs in a process of its own, warmed up, in turns; the best turn of each counts. Then two
worker processes share one ledger, and one process asks 50,000 questions in batches of 2,000 to see whether
its memory stays flat. Goals: 0.9 times the bare litellm loop in one process, ahead of the other peers, 1.6
times with two workers where the server has a core of its own, and flat memory. Where it has none, the work of
a call in each of two workers says whether they stand in each other's way. Run with
``python -m benchmarks.llm_gateway``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

from benchmarks import print_result

ANSWER_S = 0.1
CONCURRENCY = 128
WARM_UP = 32
GOAL_ONE, GOAL_TWO, GOAL_MEMORY = 0.9, 1.6, 1.1
MODEL = "openai/loopback"
_CONTEXT = multiprocessing.get_context("spawn")


def serve(port: Any) -> None:
    """Answer every chat completion after 100 ms."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        await asyncio.sleep(ANSWER_S)
        message = {"role": "assistant", "content": f"echo: {asked['messages'][-1]['content']}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "loopback",
                "choices": [choice],
                "usage": usage,
            }
        )

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def messages(place: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What does clip {place} show?"}]


# -------------------------------------------------------------------------------------- the contenders


def ours(url: str, root: str, first: int, calls: int) -> dict[str, float]:
    """Calls a second of the gateway over some questions, its work, and this process's memory after them."""
    from safevid_core.models.llm import ChatRequest, Gateway
    from safevid_core.settings import TextModel, load_settings

    terms = {
        "usd_per_million_in": 1,
        "usd_per_million_out": 2,
        "requests_per_minute": 1e9,
        "tokens_per_minute": 1e12,
    }
    models = {"providers": [], "concurrency": CONCURRENCY, "budget_usd": 1e6, "terms": {MODEL: terms}}
    settings = load_settings("pocket", overrides={"root": root, "models": models})
    gateway = Gateway(settings, run="benchmark")
    model = TextModel(model=MODEL, api_base=url)

    def ask(start: int, count: int) -> None:
        requests = [ChatRequest(model, messages(place)) for place in range(start, start + count)]
        answers = gateway.ask_many(requests, asset="benchmark")
        assert all(answer.text for answer in answers)

    ask(-first - WARM_UP - 1, WARM_UP)
    started, worked = time.perf_counter(), time.process_time()
    ask(first, calls)
    return _told(calls, started, worked) | {"MB": memory_mb()}


def _told(calls: int, started: float, worked: float) -> dict[str, float]:
    """Calls a second by the wall clock since `started`, and milliseconds of CPU a call since `worked`."""
    return {
        "calls/s": calls / (time.perf_counter() - started),
        "CPU ms": 1_000 * (time.process_time() - worked) / calls,
    }


def our_memory(url: str, root: str, first: int, calls: int) -> dict[str, float]:
    """This process's memory after 2,000 calls and after all of them, in batches of 2,000."""
    first_mb = 0.0
    for start in range(first, first + calls, 2_000):
        measured = ours(url, root, start, min(2_000, first + calls - start))
        first_mb = first_mb or measured["MB"]
    return {"first MB": first_mb, "last MB": measured["MB"]}


def bare_litellm(url: str, root: str, first: int, calls: int) -> dict[str, float]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True

    async def call(place: int) -> str:
        answer = await litellm.acompletion(
            model=MODEL,
            messages=messages(place),
            api_base=url,
            api_key="none",
            max_tokens=512,
            temperature=0.0,
        )
        return str(answer.choices[0].message.content)

    return asyncio.run(_timed(call, first, calls))


def openai_client(url: str, root: str, first: int, calls: int) -> dict[str, float]:
    async def run() -> dict[str, float]:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(base_url=url, api_key="none")

        async def call(place: int) -> str:
            answer = await client.chat.completions.create(
                model="loopback",
                messages=messages(place),
                max_tokens=512,
                temperature=0.0,  # type: ignore[arg-type]
            )
            return str(answer.choices[0].message.content)

        return await _timed(call, first, calls)

    return asyncio.run(run())


def distilabel_llm(url: str, root: str, first: int, calls: int) -> dict[str, float]:
    from distilabel.models import OpenAILLM

    llm = OpenAILLM(model="loopback", base_url=url, api_key="none")
    llm.load()

    def ask(start: int, count: int) -> None:
        for place in range(start, start + count, CONCURRENCY):
            asked = [messages(each) for each in range(place, min(place + CONCURRENCY, start + count))]
            answers = llm.generate(inputs=asked, max_new_tokens=512, temperature=0.0)
            assert all(answer["generations"][0] for answer in answers)

    ask(-first - WARM_UP - 1, WARM_UP)
    started, worked = time.perf_counter(), time.process_time()
    ask(first, calls)
    return _told(calls, started, worked)


async def _timed(call: Callable[[int], Coroutine[Any, Any, str]], first: int, calls: int) -> dict[str, float]:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(place: int) -> str:
        async with slots:
            return await call(place)

    await asyncio.gather(*(one(place) for place in range(WARM_UP)))
    started, worked = time.perf_counter(), time.process_time()
    texts = await asyncio.gather(*(one(place) for place in range(first, first + calls)))
    assert all(texts)
    return _told(calls, started, worked)


# --------------------------------------------------------------------------------------- measuring them


def memory_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def _report(contender: Callable[..., dict[str, float]], out: Any, *arguments: Any) -> None:
    out.send(contender(*arguments))


def measure(contender: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What a contender tells, run in a process of its own."""
    ours_end, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_report, args=(contender, theirs, *arguments))
    process.start()
    measured = ours_end.recv()
    process.join()
    return dict(measured)


def two_workers(url: str, root: str, calls: int) -> dict[str, float]:
    """Calls a second of two processes that share a ledger, from the slower one's rate, and a call's work."""
    pipes = [_CONTEXT.Pipe() for _ in range(2)]
    processes = [
        _CONTEXT.Process(target=_report, args=(ours, theirs, url, root, worker * calls, calls // 2))
        for worker, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    measured = [mine.recv() for mine, _ in pipes]
    for process in processes:
        process.join()
    rate = 2 * min(each["calls/s"] for each in measured)
    return {"calls/s": rate, "CPU ms": sum(each["CPU ms"] for each in measured) / 2}


def _keep(best: dict[str, dict[str, float]], name: str, measured: dict[str, float]) -> None:
    """The best turn of each counts."""
    if name not in best or measured["calls/s"] > best[name]["calls/s"]:
        best[name] = measured


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--memory-calls", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    mine, theirs = _CONTEXT.Pipe()
    server = _CONTEXT.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{mine.recv()}/v1"
    best: dict[str, dict[str, float]] = {}
    contenders = {"ours": ours, "bare litellm loop": bare_litellm, "openai client": openai_client}
    if find_spec("distilabel") is not None:
        contenders["distilabel"] = distilabel_llm
    for _ in range(chosen.turns):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory() as root:
                _keep(best, name, measure(contender, url, root, 0, chosen.calls))
        with tempfile.TemporaryDirectory() as root:
            _keep(best, "two workers", two_workers(url, root, chosen.calls))
    with tempfile.TemporaryDirectory() as root:
        memory = measure(our_memory, url, root, 0, chosen.memory_calls)
    server.terminate()
    rates = {name: round(measured["calls/s"], 1) for name, measured in best.items()}
    work = {name: round(measured["CPU ms"], 2) for name, measured in best.items()}
    peers = {name: rate for name, rate in rates.items() if name not in ("ours", "two workers")}
    bare = peers["bare litellm loop"]
    ratio = round(rates["ours"] / bare, 2)
    cases = [
        {
            "case": "one process",
            "ours": rates["ours"],
            "peers": peers,
            "ratio": ratio,
            "goal": GOAL_ONE,
        },
        {
            "case": "two workers and the bare loop",
            "ours": rates["two workers"],
            "peers": peers,
            "ratio": round(rates["two workers"] / bare, 2),
            "goal": GOAL_TWO,
        },
        {
            "case": "CPU ms a call in each of two workers",
            "ours": work["two workers"],
            "peers": {"ours, one process": work["ours"], "bare litellm loop": work["bare litellm loop"]},
            "ratio": round(work["ours"] / work["two workers"], 2),
        },
        {
            "case": f"memory after 2,000 and after {chosen.memory_calls:,} calls, MB",
            "ours": round(memory["last MB"]),
            "peers": {"after 2,000": round(memory["first MB"])},
            "ratio": round(memory["last MB"] / memory["first MB"], 2),
            "goal": GOAL_MEMORY,
        },
    ]
    print_result("llm_gateway", "calls/s", chosen.calls, cases, ratio, cores=os.cpu_count())


if __name__ == "__main__":
    main()
