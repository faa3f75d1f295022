"""What holds for every test: a property is no faster on a quiet machine, so no example has a time limit."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import settings

from tests.models.chat_server import ChatServer

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with closing(ChatServer()) as chat:
        yield chat
