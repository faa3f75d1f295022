"""Settings: one typed group for each room, put together in one tree and read from four sources.

`docs/settings.md` lists every key.
"""

from safevid_core.settings.alignment import AlignmentSettings, Packing, Policy
from safevid_core.settings.automation import AutomationSettings
from safevid_core.settings.benchmarks import NEW_RELEASE, BenchmarkFiles, ChallengeSettings
from safevid_core.settings.corpus import CorpusSettings, Embedder, Source
from safevid_core.settings.datasets import DatasetSettings, ImportColumn, PairImport
from safevid_core.settings.descriptions import LOSSES, DescriptionAuditSettings, DescriptionSettings, Loss
from safevid_core.settings.evaluation import EvaluationSettings
from safevid_core.settings.execution import ExecutionSettings
from safevid_core.settings.group import Group, SettingsError
from safevid_core.settings.judging import JudgeModel
from safevid_core.settings.loading import PACKAGE, PROFILES, load_settings, merge
from safevid_core.settings.models import GatewaySettings, ModelTerms, TextModel, VideoModel
from safevid_core.settings.preferences import OwnStyleSettings, PreferenceSettings
from safevid_core.settings.promotion import PromotionSettings
from safevid_core.settings.queries import QuerySettings
from safevid_core.settings.storage import StorageSettings
from safevid_core.settings.taxonomy import TaxonomySettings
from safevid_core.settings.tree import Settings

__all__ = [
    "LOSSES",
    "NEW_RELEASE",
    "PACKAGE",
    "PROFILES",
    "AlignmentSettings",
    "AutomationSettings",
    "BenchmarkFiles",
    "ChallengeSettings",
    "CorpusSettings",
    "DatasetSettings",
    "DescriptionAuditSettings",
    "DescriptionSettings",
    "Embedder",
    "EvaluationSettings",
    "ExecutionSettings",
    "GatewaySettings",
    "Group",
    "ImportColumn",
    "JudgeModel",
    "Loss",
    "ModelTerms",
    "OwnStyleSettings",
    "Packing",
    "PairImport",
    "Policy",
    "PreferenceSettings",
    "PromotionSettings",
    "QuerySettings",
    "Settings",
    "SettingsError",
    "Source",
    "StorageSettings",
    "TaxonomySettings",
    "TextModel",
    "VideoModel",
    "load_settings",
    "merge",
]
