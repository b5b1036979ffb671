"""When it runs, and with what."""

from orchestration.environment.offline import go_offline

go_offline()
