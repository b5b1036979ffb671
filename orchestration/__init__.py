"""When it runs, and with what."""

from orchestration.offline import go_offline

go_offline()
