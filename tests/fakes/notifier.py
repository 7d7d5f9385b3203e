"""A notifier that tells nobody and keeps what it was told."""

from pixaris_sync.process.systemd import Notifier


class FakeNotifier(Notifier):
    """Keeps what it is told, in `told`."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, str]] = []

    def tell(self, **state: str) -> None:
        self.told.append(state)
