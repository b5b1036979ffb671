"""What happens by itself? Jobs, schedules, sensors, alerts, and ending runs whose process died."""
