from tests.models.conftest import gateway, settings, text_model  # noqa: F401
from tests.postgres import ledger_url, postgres, postgres_database  # noqa: F401
