"""Settings of models: text models, video models, and the gateway through which all are asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from safevid_core.settings.group import Group, Share

Limit = Annotated[float | None, Field(gt=0)]
Price = Annotated[float | None, Field(ge=0)]


class TextModel(Group):
    """A text model by its litellm model string."""

    model: str = Field(description="Model string of litellm, such as `openai/gpt-4o`. Ours.")
    family: str | None = Field(
        None,
        min_length=1,
        description="Family of the model, such as `gpt` for a deployment `azure/my-deploy`. None means that "
        "the name tells it. It belongs to the model beside which it is named. Ours.",
    )
    revision: str = Field("1", description="Version of the model; a new one is asked everything again. Ours.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy. Ours.")
    max_tokens: int = Field(512, ge=1, description="Most tokens of a response. Ours.")
    api_base: str | None = Field(
        None, description="Base URL of the server. None means the provider's own. Ours."
    )
    api_key_env: str | None = Field(
        None,
        description="Name of the environment variable that holds the API key. A key belongs to the server "
        "beside which it is named: a setting that names another server does not inherit it. Ours.",
    )
    second: TextModel | None = Field(
        None,
        description="Fallback that is asked if the provider of the first model refuses. None means that the "
        "request stays refused. Ours.",
    )


class VideoModel(Group):
    """A video language model, local (transformers) or served (OpenAI-compatible)."""

    family: str = Field(
        description="How the model takes a video: an entry of models/families.py (`llava_next_video`, "
        "`qwen2_5_vl`, `internvl`). Ours."
    )
    path: str = Field(
        description="Checkpoint folder or hub id; for a served model its litellm model string. `{root}/...` "
        "is a folder below the root. Ours."
    )
    revision: str = Field("main", description="Commit or branch of the checkpoint. Ours.")
    served_at: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible server. None means that the model runs locally. Ours.",
    )
    api_key_env: str | None = Field(
        None, description="Name of the environment variable that holds the server's API key. Ours."
    )
    frames: int = Field(8, ge=1, description="Uniform frames of a clip that the model sees. Ours.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Number format in which a local model computes. Ours."
    )
    quantisation: Literal["none", "4bit"] = Field(
        "none",
        description="`4bit` keeps the weights of a local language model in NF4 (bitsandbytes) and computes "
        "in `dtype`. The vision tower is never quantised. There is no 8-bit mode: it treats outliers over "
        "the whole batch, so a response would depend on the other responses of its batch. Ours.",
    )
    device: str = Field("cpu", description="Torch device, such as `cpu` or `cuda`. Ours.")
    batch_size: int = Field(32, ge=1, description="Requests that a local model answers at once. Ours.")
    threads: int | None = Field(
        None, ge=1, description="Torch threads of a local model. None means torch's default. Ours."
    )
    max_new_tokens: int = Field(256, ge=1, description="Most tokens of a response. Ours.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 is greedy. Ours.")
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="Factor by which tokens that occurred already become less likely, for a local model that "
        "repeats itself (Keskar et al. 2019). 1 means no penalty. Ours.",
    )

    @model_validator(mode="after")
    def _penalised_here(self) -> VideoModel:
        if self.served_at is not None and self.repetition_penalty != 1:
            raise ValueError(
                "repetition_penalty holds for local models only; take it out, or set it on the server"
            )
        return self

    @property
    def decoding(self) -> tuple[float, ...]:
        """How tokens are chosen: the temperature, and the repetition penalty if there is one."""
        penalty = () if self.repetition_penalty == 1 else (self.repetition_penalty,)
        return (self.temperature, *penalty)

    @property
    def precision(self) -> str:
        """`dtype` and quantisation, as far as they decide the responses."""
        return self.dtype if self.quantisation == "none" else f"{self.dtype}/{self.quantisation}"


class ModelTerms(Group):
    """Rate limits of one process, prices and batch files of one model."""

    requests_per_minute: Limit = Field(
        None,
        description="Most requests a minute. None means the limit in the provider's headers, if there is "
        "one. Ours.",
    )
    tokens_per_minute: Limit = Field(
        None,
        description="Most tokens a minute, read and written together. None means the limit in the "
        "provider's headers, if there is one. Ours.",
    )
    usd_per_million_in: Price = Field(
        None,
        description="Price of a million tokens read, in USD; 0 if free. None means litellm's price list. "
        "Ours.",
    )
    usd_per_million_out: Price = Field(
        None, description="Price of a million tokens written, in USD. Give both prices or neither. Ours."
    )
    tokens_per_image: int | None = Field(
        None,
        ge=0,
        description="Most tokens that one image counts. None means our own table of providers. Ours.",
    )
    batch: bool = Field(
        False,
        description="Whether requests go through batch files: half the price, and up to a day until the "
        "responses come. Ours.",
    )
    batch_price: Share = Field(0.5, description="Price through batch files as a share. Ours.")

    @model_validator(mode="after")
    def _both_prices(self) -> ModelTerms:
        names = ("usd_per_million_in", "usd_per_million_out")
        missing = [name for name in names if getattr(self, name) is None]
        if len(missing) == 1:
            raise ValueError(f"{' and '.join(names)} go together: give {missing[0]} too (0 if it is free)")
        return self


class GatewaySettings(Group):
    """How models are asked: the ledger, limits, budgets, retries."""

    ledger_url: str | None = Field(
        None,
        description="SQLAlchemy URL of the ledger. None means `ledger.sqlite` below the root. Ours.",
    )
    providers: tuple[str, ...] = Field(
        (), description="Modules with a function `register(root)` that adds litellm providers. Ours."
    )
    builders: tuple[str, ...] = Field(
        (),
        description="Modules with a function `prepare(root, report)` that builds the checkpoints below the "
        "root that the settings name. `safevid demo` calls it first. Ours.",
    )
    concurrency: int = Field(16, ge=1, description="Most requests in flight at once. Ours.")
    timeout_s: float = Field(120.0, gt=0, description="Seconds until a request is given up. Ours.")
    max_attempts: int = Field(5, ge=1, description="Attempts at a request, the first included. Ours.")
    terms: dict[str, ModelTerms] = Field(
        default_factory=dict, description="Rate limits and prices by model string. Ours."
    )
    budget_usd: float | None = Field(
        None,
        ge=0,
        description="Most that a run may spend, in USD; the run stops before it. None means no limit. Ours.",
    )
    asset_budgets_usd: dict[str, float] = Field(
        default_factory=dict, description="Most that a run may spend on an asset, in USD, by asset. Ours."
    )
    pilot_fraction: Share = Field(
        0.1, description="A paid run over a larger share of the plan needs a budget. Ours."
    )
    retry_failed: bool = Field(
        False,
        description="Whether to ask again if the stored response is refused, empty or not readable. Ours.",
    )
    breaker_faults: int = Field(
        10, ge=1, description="Errors in a row after which a provider counts as down. Ours."
    )
    breaker_wait_s: float = Field(
        30.0, gt=0, description="Seconds between two probes of a provider that is down. Ours."
    )
    lease_s: float = Field(
        20.0,
        gt=0,
        le=600,
        description="Seconds of a lease on a request. Another run may ask the request if the run that holds "
        "the lease was killed and does not renew it. Ours.",
    )
    progress_s: float = Field(30.0, gt=0, description="Seconds between two progress lines in the log. Ours.")
    batch_poll_s: float = Field(60.0, gt=0, description="Seconds between two polls of a batch file. Ours.")
