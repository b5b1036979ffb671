"""When do the assets run, and who starts them? Commands, services, schedules, traces and benches."""

from orchestration.environment.offline import go_offline

go_offline()
