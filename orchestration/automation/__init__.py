"""What runs automatically? Jobs, schedules, sensors, alerts, and ending runs whose process died."""
