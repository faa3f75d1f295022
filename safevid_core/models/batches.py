"""Calls through batch files, at half the price and with answers within a day.

The ledger records each batch before it is submitted. The batch carries its name in the ledger as metadata. A
killed process therefore loses no batch: the next process finds it at the provider, waits and collects the
answers. The ledger's rows are the same as those of single calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from safevid_core.models.asking import Asker, rendered
from safevid_core.models.chat import CallResult, text_of_times
from safevid_core.models.filters import is_filter_error
from safevid_core.models.ledger import Ledger
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

# Limits of one file at OpenAI. Other providers accept more.
_MOST_LINES = 50_000
_MOST_BYTES = 150_000_000
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_NAME = "safevid"  # metadata field with the ledger's name of a batch
_PAGE = 100
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]*)"')
_UNKNOWN = re.compile(r"no batch|no such|not found|does not exist", re.IGNORECASE)
_LOG = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """A batch that the provider has accepted.

    Attributes:
        name: Its name in the ledger.
        provider_id: The provider's id.
        model: The model that it asks.
        keys: Request keys of those of its questions that this caller waits for.
    """

    name: str
    provider_id: str
    model: TextModel
    keys: list[str]


@dataclass(eq=False, repr=False)
class BatchCaller(Asker):
    """Asks questions through batch files. Each file asks one model.

    Args:
        ledger: Holds the batches that are open.
    """

    ledger: Ledger
    last_wait_s: ClassVar[float] = 0.0  # the next run collects an open batch

    def __post_init__(self) -> None:
        super().__post_init__()
        self.portion = _MOST_LINES
        # Request key -> position of each open question, and request key -> times of its frames.
        self._waiting: dict[str, int] = {}
        self._times: dict[str, str] = {}

    async def _ask_all(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        """Find batches that already hold some of the questions, submit the other questions, collect all."""
        keys = [self.keys[position] for position in positions]
        self._waiting.update(zip(keys, positions, strict=True))
        with self._failing(keys):
            found = await asyncio.to_thread(self.ledger.batches_of, keys)
            async with asyncio.TaskGroup() as underway:
                async for batch in self._batches(keys, found, holds):
                    underway.create_task(self._wait_and_resolve(batch))

    @contextmanager
    def _failing(self, keys: Sequence[str]) -> Iterator[None]:
        """Turn an error into the result of those of these questions that have none yet."""
        try:
            yield
        except Exception as error:
            for key in keys:
                if key in self._waiting:
                    self._fail(key, error)

    async def _batches(
        self,
        keys: Sequence[str],
        found: Mapping[str, tuple[str | None, list[str]]],
        holds: Callable[[], bool],
    ) -> AsyncIterator[_Batch]:
        """Yield each batch, found or newly submitted. If one fails, only its own questions fail."""
        new = dict.fromkeys(keys)
        for name, (provider_id, some) in found.items():
            model = self._model(some[0])
            with self._failing(some):
                provider_id = provider_id or await self._search_for(name, model)
            if provider_id is not None:  # None: the process was killed before the provider received it
                for key in some:
                    del new[key]
                yield _Batch(name, provider_id, model, some)
        by_model: dict[TextModel, list[str]] = defaultdict(list)
        for key in new:
            if key in self._waiting:
                by_model[self._model(key)].append(key)
        for model, some in by_model.items():
            async for part, lines in self._files(model, some):
                batch = None
                with self._failing(part):
                    batch = await self._submit(model, part, lines, holds)
                if batch is not None:
                    yield batch

    async def _search_for(self, name: str, model: TextModel) -> str | None:
        """Return the provider's id of a batch with unconfirmed submission. None if it never arrived."""
        litellm, after = load_litellm(), None
        while True:
            page = await self._with_retries(litellm.alist_batches, model, after=after, limit=_PAGE)
            for batch in page.data:
                if (batch.metadata or {}).get(_NAME) == name:
                    await asyncio.to_thread(self.ledger.confirm_batch, name, batch.id)
                    return str(batch.id)
            if len(page.data) < _PAGE:
                return None
            after = page.data[-1].id

    async def _files(
        self, model: TextModel, keys: Sequence[str]
    ) -> AsyncIterator[tuple[list[str], list[bytes]]]:
        """Yield keys and lines of each file. If a question cannot be rendered, only it fails."""
        part: list[str] = []
        lines: list[bytes] = []
        size = 0
        for key in keys:
            line = b""
            with self._failing([key]):
                line = await self._rendered_line(key, model)
            if not line:
                continue
            if part and (len(part) == _MOST_LINES or size + len(line) > _MOST_BYTES):
                yield part, lines
                part, lines, size = [], [], 0
            part.append(key)
            lines.append(line)
            size += len(line)
        if part:
            yield part, lines

    async def _rendered_line(self, key: str, model: TextModel) -> bytes:
        """Return the line of a question. An empty line means that it could not be rendered, and failed."""
        try:
            messages, times = await rendered(self.requests[self._waiting[key]])
        except ValueError as error:
            self._resolve(key, billed=False, reason=one_line(error))
            return b""
        self._times[key] = text_of_times(times)
        return _line(key, model, messages)

    async def _submit(
        self, model: TextModel, keys: list[str], lines: list[bytes], holds: Callable[[], bool]
    ) -> _Batch | None:
        """Submit a new batch. Return None if the lease on its questions expired in the meantime."""
        litellm, name = load_litellm(), uuid.uuid4().hex
        await asyncio.to_thread(self.ledger.open_batch, name, model.model, keys)
        file = (f"{name}.jsonl", b"".join(lines))
        sent = False
        try:
            uploaded = await self._with_retries(litellm.acreate_file, model, file=file, purpose="batch")
            if not holds():
                await asyncio.to_thread(self.ledger.withdraw_batch, name)
                for key in keys:
                    self._resolve(key, billed=False, lost=True)
                return None
            sent = True
            # No retry: a retry after an unclear reply might pay twice. The next run searches for the batch.
            batch = await litellm.acreate_batch(
                completion_window="24h",
                endpoint="/v1/chat/completions",
                input_file_id=uploaded.id,
                metadata={_NAME: name},
                max_retries=0,
                **_at(model),
            )
        except Exception as error:
            fault = fault_of(error)
            if not sent or (fault.provider_is_there and not fault.transient):
                await asyncio.to_thread(self.ledger.withdraw_batch, name)
            raise
        await asyncio.to_thread(self.ledger.confirm_batch, name, batch.id)
        return _Batch(name, str(batch.id), model, keys)

    async def _wait_and_resolve(self, batch: _Batch) -> None:
        """Wait until a batch has ended, and resolve each of its questions."""
        with self._failing(batch.keys):
            try:
                ending = await self._collect(batch)
            except Exception as error:
                if not await self._is_gone(batch.model, error):
                    raise
                ending = f"the provider no longer knows batch {batch.provider_id}"
            left = [key for key in batch.keys if key in self._waiting]
            await asyncio.to_thread(self.ledger.forget_lines, left, batch.name)
            for key in left:
                line = f"{batch.model.model}: {ending}; run again"
                self._resolve(key, billed=False, again=True, reason=line)

    async def _collect(self, batch: _Batch) -> str:
        """Wait until a batch has ended, resolve the questions that it answers, and describe its ending."""
        litellm, model, started = load_litellm(), batch.model, time.monotonic()
        while True:
            seen = await self._with_retries(litellm.aretrieve_batch, model, batch_id=batch.provider_id)
            if seen.status in _OVER:
                break
            await asyncio.sleep(self.limits.models.batch_poll_s)
        seconds = time.monotonic() - started
        for file_id in (seen.output_file_id, getattr(seen, "error_file_id", None)):
            if file_id:
                content = await self._with_retries(litellm.afile_content, model, file_id=file_id)
                await asyncio.to_thread(self._read_lines, batch, content.content, seconds)
        return f"batch {batch.provider_id} {seen.status}{_complaint(seen)}"

    async def _is_gone(self, model: TextModel, error: Exception) -> bool:
        """Return whether an error says that the provider no longer knows a batch or its file.

        If the provider does not know the list of batches either, the address is wrong. The result is false.
        """
        fault = fault_of(error)
        if fault.status != 404 and not (fault.status == 400 and _UNKNOWN.search(fault.line)):
            return False
        try:
            await self._with_retries(load_litellm().alist_batches, model, limit=1)
        except Exception as other:
            return not fault_of(other).retryable  # the provider answers but does not list batches
        return True

    def _read_lines(self, batch: _Batch, content: bytes, seconds: float) -> None:
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            key, parsed = _parsed(line)
            if key is None:
                _LOG.warning("batch %s: line %d names no question; skipped", batch.provider_id, number)
            elif key in self._waiting:
                self._read_line(batch, key, parsed, seconds)

    def _read_line(self, batch: _Batch, key: str, parsed: dict[str, Any] | None, seconds: float) -> None:
        try:
            billed, again, read = self._read(key, parsed)
        except Exception as error:  # a line of any form may have been paid for
            billed, again, read = True, False, self._unreadable(batch, key, error)
        if not billed:
            self.ledger.forget_lines([key], batch.name)
        self._resolve(
            key, billed=billed, again=again, latency_s=seconds, attempts=1, batch_id=batch.name, **read
        )

    def _read(self, key: str, parsed: dict[str, Any] | None) -> tuple[bool, bool, dict[str, Any]]:
        """Read the line of an answer.

        Returns:
            Whether a model answered, whether to ask again, and the fields for the ledger.

        Raises:
            ValueError: If the line holds neither an answer nor an error.
        """
        if parsed is None:
            raise ValueError("it is no JSON object")
        response, error = parsed.get("response"), parsed.get("error")
        response = response if isinstance(response, dict) else {}
        status, body = _status(response.get("status_code")), response.get("body")
        error = (body.get("error") if isinstance(body, dict) else body) or error
        if status == 200 or (isinstance(body, dict) and body.get("choices")):
            if not isinstance(body, dict):
                raise ValueError("its body is no JSON object")
            read = self._read_body(key, body)
            return True, False, {**read, "frame_times": self._times.get(key) or self._times_again(key)}
        if not status and not error:
            raise ValueError("it holds neither an answer nor an error")
        error_text = json.dumps(error)
        frame_times = self._times.get(key) or self._times_again(key)
        if is_filter_error(status, error_text):
            refused = {"outcome": "undecidable", "reason": PROVIDER_REFUSAL, "frame_times": frame_times}
            return True, False, refused
        reason = f"{self._model(key).model}: {error_text[:300]}"
        return False, status != 400, {"reason": reason, "frame_times": frame_times}

    def _read_body(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = response_of(body)
        read = read_response(answer)
        return {**read, "cost_usd": self.prices.cost(self.requests[self._waiting[key]], answer)}

    def _unreadable(self, batch: _Batch, key: str, error: Exception) -> dict[str, Any]:
        """Return the ledger's fields for an answer that cannot be read. Its cost is the upper bound."""
        why = f"the line of batch {batch.provider_id} cannot be read ({one_line(error)})"
        _LOG.warning("%s: %s", batch.model.model, why)
        cost = self.prices.cost(self.requests[self._waiting[key]], response_of({}))
        reason = f"{batch.model.model}: {why}; counted at the most that it may cost"
        return {"reason": reason, "cost_usd": cost, "frame_times": self._times.get(key, "")}

    def _times_again(self, key: str) -> str:
        # An earlier process submitted the batch. The question determines the frames that it showed.
        request = self.requests[self._waiting[key]]
        if request.render is None:
            return ""
        try:
            return text_of_times(request.render()[1])
        except ValueError:
            return ""

    def _fail(self, key: str, error: Exception) -> None:
        """Resolve a question without an answer. After a passing fault the next run collects the batch."""
        fault, model = fault_of(error), self._model(key)
        if fault.transient or fault.status is not None:
            line = f"{model.model}: {fault.line}; {fault.advice(model)}"
            self._resolve(key, billed=False, again=fault.retryable, reason=line)
        else:
            position = self._waiting.pop(key)
            self._finish(CallResult(position, self._call(position), billed=False, error=error))

    def _resolve(
        self, key: str, *, billed: bool, again: bool = False, lost: bool = False, **known: Any
    ) -> None:
        position = self._waiting.pop(key)
        call = self._call(position, **known)
        self._finish(CallResult(position, call, billed=billed, again=again, lost=lost))

    def _model(self, key: str) -> TextModel:
        return self.requests[self._waiting[key]].model

    async def _with_retries(self, call: Callable[..., Awaitable[Any]], model: TextModel, **asked: Any) -> Any:
        """Send one free request of the batch API, with retries after passing faults."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await call(**asked, timeout=self.limits.models.timeout_s, max_retries=0, **_at(model))
            except Exception as error:
                fault = fault_of(error)
                if not fault.transient or attempt >= self.limits.models.max_attempts:
                    raise
                await asyncio.sleep(fault.wait_s(attempt))


def _at(model: TextModel) -> dict[str, Any]:
    """Return litellm's arguments for the batch API of a model."""
    _, provider, _, _ = load_litellm().get_llm_provider(model.model, api_base=model.api_base)
    return {"custom_llm_provider": provider, "api_base": model.api_base, "api_key": api_key(model)}


def _line(key: str, model: TextModel, messages: list[dict[str, Any]]) -> bytes:
    """Return one line of a batch file, with the same request body as a single call."""
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


def _parsed(line: bytes) -> tuple[str | None, dict[str, Any] | None]:
    """Return the request key and the JSON object of a line of an output file. None for a missing part."""
    try:
        parsed = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        named = _CUSTOM_ID.search(line)
        return (named[1].decode("utf-8", "replace") if named else None), None
    key = parsed.get("custom_id")
    return (key if isinstance(key, str) else None), parsed


def _status(value: Any) -> int | None:
    """Return an HTTP status, which some servers send as text. None if the value is no status."""
    return int(value) if isinstance(value, (int, str)) and re.fullmatch(r"\d{3}", str(value)) else None


def _complaint(batch: Any) -> str:
    found = getattr(getattr(batch, "errors", None), "data", None) or ()
    return f" ({str(found[0].message)[:200]})" if found else ""
