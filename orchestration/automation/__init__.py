"""What happens without being asked? Schedules, sensors, alerts, and the reaper of dead runs."""
