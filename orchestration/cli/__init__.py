"""Which commands can a user type, and what do they print? The `headwater` command line."""
