"""Asks through batch files: half the price, and an answer within a day.

A batch is noted in the ledger before it is submitted, and carries the name that it has there as metadata,
so that a killed process loses none: the next one finds what was submitted, waits for it and collects it.
The rows that end in the ledger are those of the online path.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from safevid_core.models.asking import Asker, rendered
from safevid_core.models.chat import CallResult, ChatRequest, text_of_times
from safevid_core.models.filters import is_filter_error
from safevid_core.models.ledger import Ledger
from safevid_core.models.limits import Limits
from safevid_core.models.prices import Prices
from safevid_core.models.providers import (
    PROVIDER_REFUSAL,
    api_key,
    fault_of,
    load_litellm,
    one_line,
    read_response,
    response_of,
)
from safevid_core.settings import TextModel

# What OpenAI takes in one file; others take more.
_MOST_LINES = 50_000
_MOST_BYTES = 150_000_000
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_NAME = "safevid"  # the metadata field that holds our name for a batch
_PAGE = 100


class BatchCaller(Asker):
    """Asks questions through batch files, each of one model."""

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        prices: Prices,
        keys: Sequence[str],
        requests: Sequence[ChatRequest],
        asset: str,
    ) -> None:
        super().__init__(limits, prices, keys, requests, asset)
        self.portion = _MOST_LINES
        self._ledger = ledger
        # Questions under way by request key, and the times of the frames that each was shown.
        self._waiting: dict[str, int] = {}
        self._times: dict[str, str] = {}

    async def _ask_all(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        """Take up the batches that hold some of the questions already, submit the others, collect all."""
        keys = [self._keys[position] for position in positions]
        self._waiting.update(zip(keys, positions, strict=True))
        try:
            underway = [self._see_through(*batch) async for batch in self._batches(keys, holds)]
            await asyncio.gather(*underway)
        except Exception as error:
            for key in keys:
                if key in self._waiting:
                    self._fail(key, error)

    async def _batches(
        self, keys: Sequence[str], holds: Callable[[], bool]
    ) -> AsyncIterator[tuple[TextModel, str, list[str]]]:
        """Model, the provider's name and the questions of each batch, found or submitted now."""
        new = dict.fromkeys(keys)
        for name, (provider_id, some) in (await asyncio.to_thread(self._ledger.batches_of, keys)).items():
            model = self._model(some[0])
            provider_id = provider_id or await self._found_again(name, model)
            if provider_id is not None:  # else the process was killed before the provider had it
                for key in some:
                    del new[key]
                yield model, provider_id, some
        by_model: dict[TextModel, list[str]] = defaultdict(list)
        for key in new:
            by_model[self._model(key)].append(key)
        for model, some in by_model.items():
            async for part, lines in self._files(model, some):
                batch_id = await self._submit(model, part, lines, holds)
                if batch_id is not None:
                    yield model, batch_id, part

    async def _found_again(self, name: str, model: TextModel) -> str | None:
        """The provider's name for a batch whose submission was not confirmed; None if it never arrived."""
        litellm, after = load_litellm(), None
        while True:
            page = await self._patiently(litellm.alist_batches, model, after=after, limit=_PAGE)
            for batch in page.data:
                if (batch.metadata or {}).get(_NAME) == name:
                    await asyncio.to_thread(self._ledger.confirm_batch, name, batch.id)
                    return str(batch.id)
            if len(page.data) < _PAGE:
                return None
            after = page.data[-1].id

    async def _files(
        self, model: TextModel, keys: Sequence[str]
    ) -> AsyncIterator[tuple[list[str], list[bytes]]]:
        """Keys and lines of each file; a question that cannot be rendered fails alone."""
        part: list[str] = []
        lines: list[bytes] = []
        size = 0
        for key in keys:
            try:
                messages, times = await rendered(self._requests[self._waiting[key]])
            except ValueError as error:
                self._settle(key, billed=False, reason=one_line(error))
                continue
            self._times[key] = text_of_times(times)
            line = _line(key, model, messages)
            if part and (len(part) == _MOST_LINES or size + len(line) > _MOST_BYTES):
                yield part, lines
                part, lines, size = [], [], 0
            part.append(key)
            lines.append(line)
            size += len(line)
        if part:
            yield part, lines

    async def _submit(
        self, model: TextModel, keys: list[str], lines: list[bytes], holds: Callable[[], bool]
    ) -> str | None:
        """The provider's name for a new batch; None where the claims on its questions lapsed meanwhile."""
        litellm, name = load_litellm(), uuid.uuid4().hex
        await asyncio.to_thread(self._ledger.open_batch, name, model.model, keys)
        file = (f"{name}.jsonl", b"".join(lines))
        uploaded = await self._patiently(litellm.acreate_file, model, file=file, purpose="batch")
        if not holds():
            await asyncio.to_thread(self._ledger.withdraw_batch, name)
            for key in keys:
                self._settle(key, billed=False, lost=True)
            return None
        # Sent once: a second try after an unclear answer might pay twice. The next run looks for it.
        batch = await litellm.acreate_batch(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=uploaded.id,
            metadata={_NAME: name},
            max_retries=0,
            **_at(model),
        )
        await asyncio.to_thread(self._ledger.confirm_batch, name, batch.id)
        return str(batch.id)

    async def _see_through(self, model: TextModel, batch_id: str, keys: list[str]) -> None:
        """Wait until a batch is over, and settle each of its questions."""
        litellm, started = load_litellm(), time.monotonic()
        try:
            while True:
                batch = await self._patiently(litellm.aretrieve_batch, model, batch_id=batch_id)
                if batch.status in _OVER:
                    break
                await asyncio.sleep(self._limits.models.batch_poll_s)
            seconds = time.monotonic() - started
            for file_id in (batch.output_file_id, getattr(batch, "error_file_id", None)):
                if file_id:
                    content = await self._patiently(litellm.afile_content, model, file_id=file_id)
                    await asyncio.to_thread(self._read_lines, content.content, seconds)
        except Exception as error:
            for key in keys:
                if key in self._waiting:
                    self._fail(key, error)
            return
        left = [key for key in keys if key in self._waiting]
        await asyncio.to_thread(self._ledger.forget_lines, left)
        for key in left:
            line = f"{model.model}: batch {batch_id} {batch.status}{_complaint(batch)}; run again"
            self._settle(key, billed=False, again=True, reason=line)

    def _read_lines(self, content: bytes, seconds: float) -> None:
        for line in content.splitlines():
            if not line.strip():
                continue
            answer = json.loads(line)
            key = answer["custom_id"]
            if key in self._waiting:
                self._read_line(key, answer.get("response") or {}, answer.get("error"), seconds)

    def _read_line(self, key: str, response: dict[str, Any], error: Any, seconds: float) -> None:
        model, body = self._model(key), response.get("body") or {}
        status = response.get("status_code")
        if status == 200:
            answer = response_of(body)
            read = read_response(answer)
            read["cost_usd"] = self._prices.cost(self._requests[self._waiting[key]], answer)
            billed = True
        else:
            said = json.dumps(body.get("error") or error)
            billed = is_filter_error(status, said)
            read = {"outcome": "undecidable", "reason": PROVIDER_REFUSAL}
            if not billed:
                read = {"reason": f"{model.model}: {said[:300]}"}
                self._ledger.forget_lines([key])
        self._settle(
            key,
            billed=billed,
            again=not billed and status != 400,
            latency_s=seconds,
            attempts=1,
            frame_times=self._times.get(key) or self._times_again(key),
            **read,
        )

    def _times_again(self, key: str) -> str:
        # A batch that an earlier process submitted: what it showed follows from the question.
        request = self._requests[self._waiting[key]]
        if request.render is None:
            return ""
        try:
            return text_of_times(request.render()[1])
        except ValueError:
            return ""

    def _fail(self, key: str, error: Exception) -> None:
        """No answer yet: where the provider was not to be reached, the next run takes the batch up again."""
        fault, model = fault_of(error), self._model(key)
        if fault.transient or fault.status is not None:
            line = f"{model.model}: {fault.line}; {fault.mend(model)}"
            self._settle(key, billed=False, again=fault.mendable, reason=line)
        else:
            position = self._waiting.pop(key)
            self._finished.put(CallResult(position, self._call(position), billed=False, error=error))

    def _settle(
        self, key: str, *, billed: bool, again: bool = False, lost: bool = False, **known: Any
    ) -> None:
        position = self._waiting.pop(key)
        call = self._call(position, **known)
        self._finished.put(CallResult(position, call, billed=billed, again=again, lost=lost))

    def _model(self, key: str) -> TextModel:
        return self._requests[self._waiting[key]].model

    async def _patiently(self, call: Callable[..., Awaitable[Any]], model: TextModel, **asked: Any) -> Any:
        """One request of the batch API that costs nothing, tried again after a passing fault."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await call(**asked, timeout=self._limits.models.timeout_s, max_retries=0, **_at(model))
            except Exception as error:
                fault = fault_of(error)
                if not fault.transient or attempt >= self._limits.models.max_attempts:
                    raise
                await asyncio.sleep(fault.wait_s(attempt))


def _at(model: TextModel) -> dict[str, Any]:
    """Where a model's batch API is, for litellm."""
    _, provider, _, _ = load_litellm().get_llm_provider(model.model, api_base=model.api_base)
    return {"custom_llm_provider": provider, "api_base": model.api_base, "api_key": api_key(model)}


def _line(key: str, model: TextModel, messages: list[dict[str, Any]]) -> bytes:
    """One line of a batch file: the request as the online path sends it."""
    litellm = load_litellm()
    name, provider, _, _ = litellm.get_llm_provider(model.model, api_base=model.api_base)
    options = litellm.utils.get_optional_params(
        model=name,
        custom_llm_provider=provider,
        temperature=model.temperature,
        max_tokens=model.max_tokens,
        drop_params=True,
    )
    options.pop("extra_body", None)
    body = {"model": name, "messages": messages, **options}
    line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode() + b"\n"


def _complaint(batch: Any) -> str:
    found = getattr(getattr(batch, "errors", None), "data", None) or ()
    return f" ({str(found[0].message)[:200]})" if found else ""
