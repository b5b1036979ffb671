"""How is the answer scorer trained? Its data, its network, the job. Needs torch; answering does not."""
