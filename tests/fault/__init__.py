"""Runs, services and PostgreSQL that are killed, and disks that are full."""
