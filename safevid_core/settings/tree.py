"""All settings in one tree. :func:`safevid_core.settings.loading.load_settings` reads it from its sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from safevid_core.settings.alignment import AlignmentSettings
from safevid_core.settings.automation import AutomationSettings
from safevid_core.settings.corpus import CorpusSettings
from safevid_core.settings.datasets import DatasetSettings
from safevid_core.settings.descriptions import DescriptionSettings
from safevid_core.settings.evaluation import EvaluationSettings
from safevid_core.settings.execution import ExecutionSettings
from safevid_core.settings.models import GatewaySettings
from safevid_core.settings.paths import map_paths
from safevid_core.settings.preferences import PreferenceSettings
from safevid_core.settings.queries import QuerySettings
from safevid_core.settings.storage import StorageSettings
from safevid_core.settings.taxonomy import TaxonomySettings

_ROOT = Path(".safevid")


class Settings(BaseSettings):
    """The whole tree. Build it with :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="SAFEVID_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    profile: str = Field(description="Name of the profile below all other settings. Ours.")
    root: Path = Field(_ROOT, description="Folder of all tables, caches and reports. Ours.")
    seed: int = Field(0, description="Seed of every draw that has no seed of its own. Ours.")
    stages: tuple[str, ...] = Field(
        (),
        description="Modules with a tuple `STAGES` whose stages are added to the registry: yours beside the "
        "method's. Ours.",
    )
    storage: StorageSettings = Field(
        StorageSettings.model_validate({}), description="How much is kept beside the tables. Ours."
    )
    execution: ExecutionSettings = Field(
        ExecutionSettings.model_validate({}), description="How the batches of a stage run. Ours."
    )
    taxonomy: TaxonomySettings = Field(
        TaxonomySettings.model_validate({}), description="The taxonomy and the scene categories. Ours."
    )
    corpus: CorpusSettings = Field(description="The corpus. Ours.")
    models: GatewaySettings = Field(description="How models are asked. Ours.")
    descriptions: DescriptionSettings = Field(description="Descriptions of clips. Ours.")
    queries: QuerySettings = Field(description="Queries about clips. Ours.")
    preferences: PreferenceSettings = Field(description="Preference pairs. Ours.")
    datasets: DatasetSettings = Field(
        DatasetSettings.model_validate({}), description="What a release is made of. Ours."
    )
    alignment: AlignmentSettings = Field(description="Training of policies. Ours.")
    evaluation: EvaluationSettings = Field(description="Benchmarks, judges and promotion. Ours.")
    automation: AutomationSettings = Field(
        AutomationSettings(), description="The sensor that keeps scenes up to date. Ours."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` merges the layers; a tree that a caller gives is not changed by the environment.
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_root(cls, tree: Any) -> Any:
        """The tree with `{root}` replaced in every path, and in texts that begin with `{root}/`."""
        root = str(tree.get("root", _ROOT))
        return _below_root(map_paths(tree, cls, lambda path: path.replace("{root}", root)), root)

    @property
    def ledger_url(self) -> str:
        return self.models.ledger_url or f"sqlite:///{(self.root / 'ledger.sqlite').absolute()}"

    @property
    def systems(self) -> tuple[str, ...]:
        """Every system that is measured: each policy before and after alignment, then the controls."""
        policies = self.alignment.policies.items()
        before = [f"{name}@0" for name, policy in policies if not policy.is_control]
        trained = [f"{name}@1" for name, policy in policies if policy.is_trained]
        prompted = [f"{name}@0" for name, policy in policies if not policy.is_trained]
        return (*before, *trained, *prompted, *self.evaluation.controls)

    @property
    def systems_at_other_scales(self) -> tuple[str, ...]:
        """Each policy on other shares of the pairs, such as `pocket@0.1`: measured only on request."""
        policies = [name for name, policy in self.alignment.policies.items() if not policy.is_control]
        names = [f"{policy}@{scale:g}" for policy in policies for scale in self.alignment.data_scales]
        return tuple(name for name in names if name not in self.systems)


def _below_root(tree: Any, root: str) -> Any:
    """The tree with the root in each text that begins with `{root}/`."""
    if isinstance(tree, dict):
        return {key: _below_root(value, root) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_below_root(value, root) for value in tree]
    if isinstance(tree, str) and tree.startswith("{root}/"):
        return str(Path(root) / tree.removeprefix("{root}/"))
    return tree
